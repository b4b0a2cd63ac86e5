/* The Python functions of imgdata.native that make and judge crop-ready JPEGs. */
#ifndef IMGDATA_CROP_READY_FACE_H
#define IMGDATA_CROP_READY_FACE_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds them to the module; -1 with an exception set. */
int crop_ready_add_functions(PyObject *module);

#endif
