/* The same state is filled by the copying of samples, without Python's lock, and by calls of Python. */
#include "tar_hash.h"

#include <stdalign.h>

void tar_hash_update(HashKind kind, TarHash *hash, const uint8_t *data, size_t size)
{
    if (kind == HASH_XXH128)
        xxh128_update(&hash->xxh128, data, size);
    else if (kind == HASH_SHA256)
        sha256_update(&hash->sha256, data, size);
}

int is_tar_hash(int kind, const Py_buffer *state)
{
    return kind >= 0 && kind < HASH_KINDS && state->len == sizeof(TarHash) &&
           (uintptr_t)state->buf % alignof(TarHash) == 0 && (kind != HASH_SHA256 || sha256_is_fast());
}

static int check_state(int kind, const Py_buffer *state)
{
    if (is_tar_hash(kind, state))
        return 1;
    PyErr_SetString(PyExc_ValueError, "no such hash, or no state of one");
    return 0;
}

static PyObject *update(PyObject *module, PyObject *args)
{
    Py_buffer state, data;
    PyObject *result = NULL;
    int kind;

    (void)module;
    if (!PyArg_ParseTuple(args, "iw*y*", &kind, &state, &data))
        return NULL;
    if (data.len % HASHED_BYTES != 0)
        PyErr_SetString(PyExc_ValueError, "bytes of a tar come in blocks");
    else if (check_state(kind, &state)) {
        Py_BEGIN_ALLOW_THREADS
        tar_hash_update((HashKind)kind, state.buf, data.buf, (size_t)data.len);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    PyBuffer_Release(&state);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *digest(PyObject *module, PyObject *args)
{
    uint8_t found[32];
    Py_ssize_t size = 0;
    Py_buffer state;
    PyObject *result = NULL;
    int kind;

    (void)module;
    if (!PyArg_ParseTuple(args, "iw*", &kind, &state))
        return NULL;
    if (check_state(kind, &state)) {
        TarHash *hash = state.buf;
        if (kind == HASH_XXH128) {
            xxh128_digest(&hash->xxh128, found);
            size = 16;
        } else if (kind == HASH_SHA256) {
            sha256_digest(&hash->sha256, found);
            size = 32;
        }
        result = PyBytes_FromStringAndSize((const char *)found, size);
    }
    PyBuffer_Release(&state);
    return result;
}

static PyMethodDef FUNCTIONS[] = {
    {"tar_hash_update", update, METH_VARARGS, NULL},
    {"tar_hash_digest", digest, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int tar_hash_add_functions(PyObject *module)
{
    return PyModule_AddIntConstant(module, "TAR_HASH_BYTES", sizeof(TarHash)) == 0 &&
                   PyModule_AddIntConstant(module, "SHA256_IS_FAST", sha256_is_fast()) == 0
               ? PyModule_AddFunctions(module, FUNCTIONS)
               : -1;
}
