/* Hashes of 256 bits and an index of one chunk of them -> the hashes within a distance. */
#ifndef IMGDATA_NEAREST_H
#define IMGDATA_NEAREST_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* `imgdata.native.nearest`, which says what the arguments mean. */
PyObject *nearest(PyObject *module, PyObject *args);

#endif
