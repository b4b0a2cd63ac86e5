/* Many files in one call, without Python's lock; what is wrong with one of them Python finds out. */
#define _GNU_SOURCE
#include "file_facts.h"
#include "nanoseconds.h"
#include "read_all.h"
#include "ustar.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

/* Columns, int64; the order is that of imgdata.native.stat_files. */
enum { FAILED, MODE, BYTES, MODIFIED, CHANGED, INODE, DEVICE, STAT_COLUMNS };

/* 1 when the file is exactly these members, one behind the other, and an end of two empty blocks. */
static int is_tar_of(int descriptor, const char *names, size_t names_size, const int64_t *places, Py_ssize_t count)
{
    static const uint8_t EMPTY[2 * BLOCK];
    uint8_t header[2 * BLOCK];
    struct stat info;
    int64_t position = 0;
    const char *name = names, *end = names + names_size;

    for (Py_ssize_t i = 0; i < count; i++) {
        if (name == end || places[2 * i] != position + BLOCK || places[2 * i + 1] < 0 ||
            read_all(descriptor, header, BLOCK, (off_t)position) != 0 || !is_header(header, name, places[2 * i + 1]))
            return 0;
        position += BLOCK + (int64_t)padded((size_t)places[2 * i + 1]);
        name += strlen(name) + 1;
    }
    return name == end && fstat(descriptor, &info) == 0 && info.st_size == position + 2 * BLOCK &&
           read_all(descriptor, header, 2 * BLOCK, (off_t)position) == 0 && memcmp(header, EMPTY, 2 * BLOCK) == 0;
}

static PyObject *is_tar_of_(PyObject *module, PyObject *args)
{
    Py_buffer names, places;
    int descriptor, right = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "iy*y*", &descriptor, &names, &places))
        return NULL;
    if (names.len == 0 || ((const char *)names.buf)[names.len - 1] != 0 || places.len % 16 != 0) {
        PyErr_SetString(PyExc_ValueError, "names must end in zeros, and places be pairs");
        PyBuffer_Release(&names);
        PyBuffer_Release(&places);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    right = is_tar_of(descriptor, names.buf, (size_t)names.len, places.buf, places.len / 16);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&names);
    PyBuffer_Release(&places);
    return PyBool_FromLong(right);
}

/* Links are followed. */
static void stat_file(const char *path, int64_t *facts)
{
    struct stat info;
    int failed = stat(path, &info) == 0 ? 0 : errno;

    facts[FAILED] = failed;
    facts[MODE] = failed ? 0 : (int64_t)info.st_mode;
    facts[BYTES] = failed ? 0 : (int64_t)info.st_size;
    facts[MODIFIED] = failed ? 0 : nanoseconds(info.st_mtim);
    facts[CHANGED] = failed ? 0 : nanoseconds(info.st_ctim);
    facts[INODE] = failed ? 0 : (int64_t)info.st_ino;
    facts[DEVICE] = failed ? 0 : (int64_t)info.st_dev;
}

static PyObject *stat_files(PyObject *module, PyObject *args)
{
    Py_buffer paths, facts;
    const char *path, *end;
    int64_t *to;
    Py_ssize_t count = 0, rows;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*", &paths, &facts))
        return NULL;
    path = paths.buf;
    end = path + paths.len;
    rows = facts.len / (8 * STAT_COLUMNS);
    for (const char *at = path; at < end; at++)
        count += *at == 0;
    if (count != rows || facts.len % (8 * STAT_COLUMNS) != 0 || (paths.len > 0 && end[-1] != 0)) {
        PyErr_SetString(PyExc_ValueError, "there must be a row of facts for each path");
        PyBuffer_Release(&paths);
        PyBuffer_Release(&facts);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    to = facts.buf;
    for (; path < end; path += strlen(path) + 1, to += STAT_COLUMNS)
        stat_file(path, to);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&paths);
    PyBuffer_Release(&facts);
    return Py_NewRef(Py_None);
}

static PyMethodDef FUNCTIONS[] = {
    {"is_tar_of", is_tar_of_, METH_VARARGS, NULL},
    {"stat_files", stat_files, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int file_facts_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, FUNCTIONS);
}
