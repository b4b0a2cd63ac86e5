/* The arguments of a job -> the tasks of its threads, or the exception that says which argument is wrong. */
#define _GNU_SOURCE
#include "arguments.h"
#include "turbo.h"

static const size_t ROW_BYTES[IMAGES] = {8, 8, 8, 8, 8, 16, 32, 16, 16, 1, 1, 12};

int parse_arguments(PyObject *args, PyObject **tuple, Options *options)
{
    return PyArg_ParseTuple(args, "O!(iii)ipppi", &PyTuple_Type, tuple, &options->height, &options->width,
                            &options->channels, &options->kind, &options->planar, &options->cubic,
                            &options->mirrored, &options->simd);
}

int check_options(PyObject *tuple, const Options *options)
{
    if (PyTuple_Size(tuple) == ARRAYS && options->height >= 1 && options->width >= 1 &&
        options->height <= JPEG_MAX_DIMENSION && options->width <= JPEG_MAX_DIMENSION && options->kind >= BYTES &&
        options->kind <= FLOATS && (options->channels == 1 || options->channels == 3) && options->simd >= SCALAR &&
        options->simd <= (int)best_simd())
        return 1;
    PyErr_SetString(PyExc_ValueError, "arrays, height, width, channels, kind or simd is out of range");
    return 0;
}

int get_buffers(PyObject *tuple, Py_buffer arrays[])
{
    int held = 0;

    while (held < ARRAYS && PyObject_GetBuffer(PyTuple_GetItem(tuple, held), &arrays[held],
                                               held == IMAGES ? PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS
                                                              : PyBUF_C_CONTIGUOUS) == 0)
        held++;
    return held;
}

/* Sides that no arithmetic overflows with, and that memory is enough for. */
static int is_sensible(const int64_t *pixels, int count)
{
    for (int i = 0; i < count; i++)
        if (pixels[i] < -(1 << 24) || pixels[i] > 1 << 24)
            return 0;
    return 1;
}

Task task_of(const Py_buffer arrays[], Py_ssize_t i, Shape shape, int mirrored)
{
#define ROW(array, index, count) ((const int64_t *)arrays[array].buf + (count) * (index))
    int64_t row = *ROW(ROWS, i, 1);
    const int64_t *source = ROW(SOURCES, i, 2), *box = ROW(BOXES, row, 4), *resized = ROW(RESIZED, row, 2);
    const int64_t *shifted = ROW(SHIFTED, row, 2);
    Task task = {(int)*ROW(FILES, i, 1), (off_t)*ROW(OFFSETS, i, 1), (size_t)*ROW(SIZES, i, 1),
                 (size_t)*ROW(TARGETS, i, 1), {0}, GIVEN_UP};
#undef ROW

    if (!is_sensible(source, 2) || !is_sensible(box, 4) || !is_sensible(resized, 2) || !is_sensible(shifted, 2)) {
        task.outcome = UNFIT;
        return task;
    }
    task.crop = (Crop){.width = (int)source[0],
                       .height = (int)source[1],
                       .x = {(int)box[0], (int)box[2], (int)resized[0], (int)shifted[0],
                             ((const uint8_t *)arrays[FLIPS].buf)[row]},
                       .y = {(int)box[1], (int)box[3], (int)resized[1], (int)shifted[1],
                             ((const uint8_t *)arrays[VFLIPS].buf)[row]},
                       .shape = shape,
                       .mirrored = mirrored};
    return task;
}

int check_arrays(const Py_buffer arrays[], size_t picture_bytes)
{
    Py_ssize_t rows = arrays[ROWS].len / 8, params = arrays[FLIPS].len;
    size_t pictures = (size_t)arrays[IMAGES].len / picture_bytes;

    for (Array array = ROWS; array < IMAGES; array++) {
        Py_ssize_t count = array == SCALES ? 2 : array < BOXES ? rows : params;
        if (arrays[array].len != count * (Py_ssize_t)ROW_BYTES[array]) {
            PyErr_Format(PyExc_ValueError, "array %d must have %zd rows of %zu bytes, got %zd bytes", (int)array, count,
                         ROW_BYTES[array], arrays[array].len);
            return 0;
        }
    }
    for (Py_ssize_t i = 0; i < rows; i++) {
        int64_t row = ((const int64_t *)arrays[ROWS].buf)[i], target = ((const int64_t *)arrays[TARGETS].buf)[i];
        if (row < 0 || row >= params || target < 0 || (uint64_t)target >= pictures ||
            ((const int64_t *)arrays[SIZES].buf)[i] < 0) {
            PyErr_Format(PyExc_ValueError, "rows, targets or sizes are out of range at %zd", i);
            return 0;
        }
    }
    return 1;
}
