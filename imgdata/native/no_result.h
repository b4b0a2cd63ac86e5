/* An outcome that is not DONE -> what Python gets. */
#ifndef IMGDATA_NO_RESULT_H
#define IMGDATA_NO_RESULT_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "planes.h"

/* None, or NULL with a MemoryError set. */
static inline PyObject *no_result(Outcome outcome)
{
    return outcome == NO_MEMORY ? PyErr_NoMemory() : Py_NewRef(Py_None);
}

#endif
