/* Python's face of what the system says of files, and of whether a tar holds what it should. */
#ifndef IMGDATA_FILE_FACTS_H
#define IMGDATA_FILE_FACTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

int file_facts_add_functions(PyObject *module);

#endif
