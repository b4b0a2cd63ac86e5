/* The Python types of imgdata.native: Pool and Job. */
#ifndef IMGDATA_BATCH_H
#define IMGDATA_BATCH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

/* Adds them to the module; -1 with an exception set. */
int batch_add_types(PyObject *module);

#endif
