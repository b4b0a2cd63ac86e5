/* Random numbers of positions, and records of an index: hundreds for each batch, in one call. */
#define _GNU_SOURCE
#include "planning.h"
#include "read_all.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/uio.h>

enum { ROUNDS = 10, WORDS = 4 };
static const uint64_t MULTIPLIERS[2] = {0xD2E7470EE14C6C93, 0xCA5A826395121157};
static const uint64_t WEYL[2] = {0x9E3779B97F4A7C15, 0xBB67AE8584CAA73B};

/* The upper half of a product; the lower one is `a * b`. */
static inline uint64_t upper(uint64_t a, uint64_t b)
{
#ifdef __SIZEOF_INT128__
    __extension__ typedef unsigned __int128 Product;

    return (uint64_t)((Product)a * b >> 64);
#else
    uint64_t a_low = (uint32_t)a, a_high = a >> 32, b_low = (uint32_t)b, b_high = b >> 32;
    uint64_t middle = a_high * b_low + (a_low * b_low >> 32);

    return a_high * b_high + (middle >> 32) + (((uint32_t)middle + a_low * b_high) >> 32);
#endif
}

/* Philox 4x64-10 of the counter in `x`, which becomes the result. */
static inline void philox(uint64_t x[WORDS], uint64_t key_0, uint64_t key_1)
{
    for (int round = 0; round < ROUNDS; round++) {
        uint64_t high_0 = upper(x[0], MULTIPLIERS[0]), low_0 = x[0] * MULTIPLIERS[0];
        uint64_t high_1 = upper(x[2], MULTIPLIERS[1]), low_1 = x[2] * MULTIPLIERS[1];

        x[0] = high_1 ^ x[1] ^ key_0;
        x[1] = low_1;
        x[2] = high_0 ^ x[3] ^ key_1;
        x[3] = low_0;
        key_0 += WEYL[0];
        key_1 += WEYL[1];
    }
}

/* Counters `(K, 4)` -> their random words, in the same place. */
static PyObject *philox4x64(PyObject *module, PyObject *args)
{
    Py_buffer counters;
    unsigned long long key_0, key_1;
    uint64_t *x;

    (void)module;
    if (!PyArg_ParseTuple(args, "w*KK", &counters, &key_0, &key_1))
        return NULL;
    if (counters.len % (8 * WORDS) != 0) {
        PyErr_SetString(PyExc_ValueError, "counters must have four words each");
        PyBuffer_Release(&counters);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    x = counters.buf;
    for (Py_ssize_t count = counters.len / (8 * WORDS); count > 0; count--, x += WORDS)
        philox(x, key_0, key_1);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&counters);
    return Py_NewRef(Py_None);
}

/* Whether `size` bytes are in the page cache, and so were read without waiting; *can is 0 once the system can't say. */
static int read_cached(int file, uint8_t *to, size_t size, off_t offset, int *can)
{
#ifdef RWF_NOWAIT
    struct iovec part = {to, size};

    if (*can) {
        ssize_t got = preadv2(file, &part, 1, offset, RWF_NOWAIT);
        if (got == (ssize_t)size)
            return 1;
        if (got < 0 && errno != EAGAIN && errno != EINTR)
            *can = 0;
    }
#else
    (void)file, (void)to, (void)size, (void)offset, (void)can;
#endif
    return 0;
}

/* Records of `size` bytes: 0, FILE_ENDS or an errno. `missing` has room for `count` numbers. */
static int read_records(const int64_t *files, const int64_t *offsets, Py_ssize_t count, uint8_t *to, size_t size,
                        Py_ssize_t *missing)
{
    Py_ssize_t missed = 0;
    int failed = 0, can = 1;

    for (Py_ssize_t i = 0; i < count; i++)
        if (!read_cached((int)files[i], to + (size_t)i * size, size, (off_t)offsets[i], &can))
            missing[missed++] = i;
#ifdef POSIX_FADV_WILLNEED
    /* A disk is asked for all of them together. */
    for (Py_ssize_t m = 0; m < missed; m++)
        (void)posix_fadvise((int)files[missing[m]], (off_t)offsets[missing[m]], (off_t)size, POSIX_FADV_WILLNEED);
#endif
    for (Py_ssize_t m = 0; m < missed && failed == 0; m++)
        failed = read_all((int)files[missing[m]], to + (size_t)missing[m] * size, size, (off_t)offsets[missing[m]]);
    return failed;
}

static PyObject *read_records_(PyObject *module, PyObject *args)
{
    Py_buffer files, offsets, records;
    Py_ssize_t count, *missing = NULL;
    int failed = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*w*", &files, &offsets, &records))
        return NULL;
    count = files.len / 8;
    if (files.len % 8 != 0 || offsets.len != files.len || (count == 0 ? records.len != 0 : records.len % count != 0)) {
        PyErr_SetString(PyExc_ValueError, "there must be a file, an offset and a record of the same size each");
    } else if (count > 0 && (missing = malloc((size_t)count * sizeof *missing)) == NULL) {
        PyErr_NoMemory();
    } else if (count > 0) {
        size_t size = (size_t)(records.len / count);
        Py_BEGIN_ALLOW_THREADS
        failed = read_records(files.buf, offsets.buf, count, records.buf, size, missing);
        Py_END_ALLOW_THREADS
    }
    free(missing);
    PyBuffer_Release(&files);
    PyBuffer_Release(&offsets);
    PyBuffer_Release(&records);
    return PyErr_Occurred() != NULL ? NULL : PyLong_FromLong(failed);
}

static PyMethodDef FUNCTIONS[] = {
    {"philox4x64", philox4x64, METH_VARARGS, NULL},
    {"read_records", read_records_, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int planning_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, FUNCTIONS);
}
