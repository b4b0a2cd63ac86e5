/* Python's face of what a batch's plan needs: random numbers of positions, and records of an index. */
#ifndef IMGDATA_PLANNING_H
#define IMGDATA_PLANNING_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int planning_add_functions(PyObject *module);

#endif
