/* JPEG bytes, a part -> the samples that cover it, of each plane, as Python sees them. */
#include "planes_face.h"
#include "baseline.h"
#include "no_result.h"

#include <math.h>
#include <string.h>

/* (columns, rows, samples) of what covers the part. */
static PyObject *samples_of(const Plane *plane, const Part *part)
{
    int left = (int)(part->left / plane->pitch_x), top = (int)(part->top / plane->pitch_y);
    int right = (int)ceil(part->right / plane->pitch_x), bottom = (int)ceil(part->bottom / plane->pitch_y);
    int columns = right - left, rows = bottom - top;
    PyObject *result, *samples = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)columns * rows);

    if (samples == NULL)
        return NULL;
    for (int y = 0; y < rows; y++)
        memcpy(PyBytes_AsString(samples) + (size_t)y * (size_t)columns,
               plane->samples + (size_t)(top - plane->top + y) * plane->stride + (left - plane->left), (size_t)columns);
    result = Py_BuildValue("iiN", columns, rows, samples);
    return result;
}

static PyObject *list_of(const Planes *planes, const Part *part)
{
    PyObject *list = PyList_New(0);

    for (int i = 0; i < planes->count && list != NULL; i++) {
        PyObject *item = samples_of(&planes->plane[i], part);
        if (item == NULL || PyList_Append(list, item) < 0)
            Py_CLEAR(list);
        Py_XDECREF(item);
    }
    return list;
}

/* (data, (width, height), shrink, (left, top, right, bottom), simd, own) -> a list, or None. A part of nothing but zeros: the
 * whole file is read up to its end. */
static PyObject *planes_(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Planes planes = {0};
    Part part, *wanted;
    Scratch scratch;
    Outcome outcome;
    int width, height, shrink, simd, own;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*(ii)i(iiii)ip", &data, &width, &height, &shrink, &part.left, &part.top, &part.right,
                          &part.bottom, &simd, &own))
        return NULL;
    wanted = part.right > 0 ? &part : NULL;
    if ((wanted != NULL && (part.left < 0 || part.top < 0 || part.left >= part.right || part.top >= part.bottom ||
                            part.right > width || part.bottom > height)) ||
        simd < SCALAR || simd > (int)best_simd() || (shrink != 1 && shrink != 2 && shrink != 4 && shrink != 8)) {
        PyErr_SetString(PyExc_ValueError, "the part must be inside of the picture, and shrink 1, 2, 4 or 8");
        PyBuffer_Release(&data);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    scratch = scratch_begin();
    outcome = own ? decode_baseline(data.buf, (size_t)data.len, width, height, shrink, wanted, AS_LIBJPEG, (Simd)simd,
                                    &planes, &scratch)
                  : decode_by_libjpeg(data.buf, (size_t)data.len, width, height, shrink, wanted, &planes, &scratch);
    Py_END_ALLOW_THREADS
    if (wanted == NULL)
        part = (Part){0, 0, width, height};
    if (outcome == DONE)
        result = list_of(&planes, &part);
    else
        result = no_result(outcome);
    scratch_end(&scratch);
    PyBuffer_Release(&data);
    return result;
}

static PyMethodDef FUNCTIONS[] = {
    {"planes", planes_, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int planes_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, FUNCTIONS);
}
