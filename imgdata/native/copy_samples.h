/* Files -> the part of a tar that holds them, with hashes and headers' facts. */
#ifndef IMGDATA_COPY_SAMPLES_H
#define IMGDATA_COPY_SAMPLES_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int copying_add_functions(PyObject *module);

#endif
