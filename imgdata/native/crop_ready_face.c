/* The Python face of crop_ready.h and slice.h. */
#include "crop_ready_face.h"
#include "crop_ready.h"
#include "no_result.h"
#include "slice.h"

#include <stdlib.h>

static PyObject *make_crop_ready_(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Buffer out = {0};
    Outcome outcome;
    int strip, orientation, interval;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*pii", &data, &strip, &orientation, &interval))
        return NULL;
    if (orientation < 1 || orientation > 8 || interval < 0 || interval > 0xFFFF) {
        PyErr_Format(PyExc_ValueError, "orientation must be 1 to 8 and interval 0 to 65535, got %d and %d", orientation,
                     interval);
        goto end;
    }

    Py_BEGIN_ALLOW_THREADS
    outcome = make_crop_ready(data.buf, (size_t)data.len, strip ? STRIP : KEEP_ALL, orientation, &interval, &out);
    Py_END_ALLOW_THREADS

    if (outcome == DONE)
        result = Py_BuildValue("y#i", (const char *)out.bytes, (Py_ssize_t)out.size, interval);
    else
        result = no_result(outcome);
end:
    free(out.bytes);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *crop_interval(PyObject *module, PyObject *args)
{
    Py_buffer data;
    int interval;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*", &data))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    interval = slice_interval(data.buf, (size_t)data.len);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&data);
    return PyLong_FromLong(interval);
}

static PyObject *slice_jpeg_(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Part part;
    Slice slice;
    Scratch scratch;
    Outcome outcome;
    int width, height;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*(ii)(iiii)", &data, &width, &height, &part.left, &part.top, &part.right, &part.bottom))
        return NULL;
    if (part.left < 0 || part.top < 0 || part.left >= part.right || part.top >= part.bottom || part.right > width ||
        part.bottom > height) {
        PyErr_SetString(PyExc_ValueError, "the part must be inside of the picture");
        PyBuffer_Release(&data);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    scratch = scratch_begin();
    outcome = slice_jpeg(data.buf, (size_t)data.len, width, height, 1, &part, &slice, &scratch);
    Py_END_ALLOW_THREADS
    if (outcome == DONE)
        result = Py_BuildValue("y#ii", (const char *)slice.data, (Py_ssize_t)slice.size, slice.left, slice.top);
    else
        result = no_result(outcome);
    scratch_end(&scratch);
    PyBuffer_Release(&data);
    return result;
}

static PyObject *same_coefficients(PyObject *module, PyObject *args)
{
    Py_buffer left, right;
    Outcome outcome;
    int same;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*", &left, &right))
        return NULL;
    Py_BEGIN_ALLOW_THREADS
    same = have_same_coefficients(left.buf, (size_t)left.len, right.buf, (size_t)right.len, &outcome);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&left);
    PyBuffer_Release(&right);
    if (outcome == DONE)
        return PyBool_FromLong(same);
    PyErr_SetString(PyExc_ValueError, "both must be JPEGs that libjpeg reads without a warning");
    return NULL;
}

static PyMethodDef FUNCTIONS[] = {
    {"make_crop_ready", make_crop_ready_, METH_VARARGS, NULL},
    {"crop_interval", crop_interval, METH_VARARGS, NULL},
    {"slice_jpeg", slice_jpeg_, METH_VARARGS, NULL},
    {"same_coefficients", same_coefficients, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int crop_ready_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, FUNCTIONS);
}
