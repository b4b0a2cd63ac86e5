/* A Python function for the tests: planes by our own decoder, or by libjpeg. */
#ifndef IMGDATA_PLANES_FACE_H
#define IMGDATA_PLANES_FACE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds it to the module; -1 with an exception set. */
int planes_add_functions(PyObject *module);

#endif
