/* The Python face: imgdata.native._compiled. */
#include "batch.h"
#include "copy_samples.h"
#include "crop_ready.h"
#include "crop_ready_face.h"
#include "file_facts.h"
#include "nearest.h"
#include "no_result.h"
#include "planes.h"
#include "planes_face.h"
#include "planning.h"
#include "resample.h"
#include "tar_hash.h"
#include "thumbnail.h"
#include "turbo.h"

#include <stdlib.h>
#include <string.h>

static const char *const SIMD_NAMES[] = {"scalar", "sse2", "avx2"};

static int simd_named(const char *name, Simd *simd)
{
    for (int i = SCALAR; i <= (int)best_simd(); i++)
        if (strcmp(name, SIMD_NAMES[i]) == 0) {
            *simd = (Simd)i;
            return 1;
        }
    PyErr_Format(PyExc_ValueError, "simd must be one of SIMD, got '%s'", name);
    return 0;
}

static int is_side(int pixels)
{
    if (1 <= pixels && pixels <= JPEG_MAX_DIMENSION)
        return 1;
    PyErr_Format(PyExc_ValueError, "sides must be 1 to %d pixels, got %d", (int)JPEG_MAX_DIMENSION, pixels);
    return 0;
}

/* Every plane of `from` -> the one of `to`, whose size and chroma pitch are set here. */
static Outcome resize_planes(const Planes *from, Planes *to, int width, int height, int chroma_pitch, Simd simd,
                             Scratch *scratch)
{
    Outcome outcome = DONE;

    to->count = from->count;
    to->width = width;
    to->height = height;
    for (int i = 0; i < from->count && outcome == DONE; i++) {
        const Plane *source = &from->plane[i];
        Plane *plane = &to->plane[i];
        int pitch = i == 0 ? 1 : chroma_pitch;
        int columns = (width + pitch - 1) / pitch, rows = (height + pitch - 1) / pitch;

        plane->pitch_x = plane->pitch_y = pitch;
        outcome = plane_alloc(plane, columns, rows, (size_t)columns, (size_t)rows, scratch);
        /* Both sides from edge to edge of the picture: the last sample of a plane may lie half outside. */
        if (outcome == DONE)
            outcome = resample(source, plane, (double)from->width * pitch / (width * source->pitch_x),
                               (double)from->height * pitch / (height * source->pitch_y), simd, scratch);
    }
    return outcome;
}

typedef struct {
    int from_width, from_height, width, height, quality, shrink, crop_ready;
    Simd simd;
} Order;

static Outcome make_ready(Buffer *out)
{
    Buffer plain = *out;
    int interval = 0;
    Outcome outcome;

    *out = (Buffer){0};
    outcome = make_crop_ready(plain.bytes, plain.size, KEEP_ALL, 1, &interval, out);
    free(plain.bytes);
    return outcome;
}

static Outcome transcode(const uint8_t *data, size_t size, const Order *order, Buffer *out)
{
    Planes from = {0}, to = {0};
    Scratch scratch = scratch_begin();
    Outcome outcome = decode_planes(data, size, order->from_width, order->from_height, order->shrink, NULL, order->simd,
                                    &from, &scratch);

    if (outcome == DONE)
        outcome = resize_planes(&from, &to, order->width, order->height, order->quality <= 90 ? 2 : 1, order->simd,
                                &scratch);
    if (outcome == DONE)
        outcome = encode_planes(&to, order->quality, out);
    scratch_end(&scratch);
    /* In a third of the time that libjpeg takes to optimise codes. */
    return outcome == DONE && order->crop_ready ? make_ready(out) : outcome;
}

static PyObject *resize_jpeg(PyObject *module, PyObject *args)
{
    Py_buffer data;
    Order order;
    Buffer out = {0};
    Outcome outcome;
    const char *simd;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*(ii)(ii)iisp", &data, &order.from_width, &order.from_height, &order.width,
                          &order.height, &order.quality, &order.shrink, &simd, &order.crop_ready))
        return NULL;
    /* The size of the file needs no check: it is compared with the header. */
    if (!is_side(order.width) || !is_side(order.height) || !simd_named(simd, &order.simd))
        goto end;
    if (order.shrink != 1 && order.shrink != 2 && order.shrink != 4 && order.shrink != 8) {
        PyErr_Format(PyExc_ValueError, "shrink must be 1, 2, 4 or 8, got %d", order.shrink);
        goto end;
    }
    if (order.quality < 1 || order.quality > 100) {
        PyErr_Format(PyExc_ValueError, "quality must be 1 to 100, got %d", order.quality);
        goto end;
    }

    Py_BEGIN_ALLOW_THREADS
    outcome = transcode(data.buf, (size_t)data.len, &order, &out);
    Py_END_ALLOW_THREADS

    if (outcome == DONE)
        result = PyBytes_FromStringAndSize((const char *)out.bytes, (Py_ssize_t)out.size);
    else
        result = no_result(outcome);
end:
    free(out.bytes);
    PyBuffer_Release(&data);
    return result;
}

static Outcome resize_samples(const uint8_t *samples, Plane *from, Plane *to, Simd simd, Scratch *scratch)
{
    Outcome outcome = plane_alloc(from, from->width, from->height, (size_t)from->width, (size_t)from->height, scratch);

    if (outcome == DONE)
        outcome = plane_alloc(to, to->width, to->height, (size_t)to->width, (size_t)to->height, scratch);
    if (outcome != DONE)
        return outcome;
    for (size_t y = 0; y < (size_t)from->height; y++)
        memcpy(from->samples + y * from->stride, samples + y * (size_t)from->width, (size_t)from->width);
    return resample(from, to, (double)from->width / to->width, (double)from->height / to->height, simd, scratch);
}

static PyObject *resize_plane(PyObject *module, PyObject *args)
{
    Py_buffer samples;
    Plane from = {0}, to = {0};
    Outcome outcome;
    const char *name;
    Simd simd;
    Scratch scratch;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*(ii)(ii)s", &samples, &from.width, &from.height, &to.width, &to.height, &name))
        return NULL;
    if (!is_side(from.width) || !is_side(from.height) || !is_side(to.width) || !is_side(to.height) ||
        !simd_named(name, &simd))
        goto end;
    if (samples.len != (Py_ssize_t)from.width * from.height) {
        PyErr_Format(PyExc_ValueError, "samples must be %d x %d bytes, got %zd", from.width, from.height, samples.len);
        goto end;
    }

    Py_BEGIN_ALLOW_THREADS
    scratch = scratch_begin();
    outcome = resize_samples(samples.buf, &from, &to, simd, &scratch);
    Py_END_ALLOW_THREADS

    if (outcome != DONE)
        PyErr_NoMemory();
    else if ((result = PyBytes_FromStringAndSize(NULL, (Py_ssize_t)to.width * to.height)) != NULL)
        for (size_t y = 0; y < (size_t)to.height; y++)
            memcpy(PyBytes_AsString(result) + y * (size_t)to.width, to.samples + y * to.stride, (size_t)to.width);
    scratch_end(&scratch);
end:
    PyBuffer_Release(&samples);
    return result;
}

typedef enum { PICTURE_SIZES, LUMA, COLOUR, PICTURE_LEVELS, PICTURE_EDGES, PICTURE_OUTCOMES, THUMBNAIL_ARRAYS } ThumbnailArray;

typedef struct {
    Thumbnail place; /* of the first picture */
    int shortest;
    Simd simd;
} ThumbnailOptions;

typedef struct {
    const uint8_t *bytes;
    size_t size;
} File;

static void make_thumbnails(const File files[], size_t count, const int32_t *sizes, uint8_t *outcomes,
                            const ThumbnailOptions *options)
{
    const Thumbnail *first = &options->place;
    size_t luma_bytes = (size_t)(first->luma_side * first->luma_side);
    size_t colour_bytes = 3 * (size_t)(first->colour_side * first->colour_side);

    for (size_t i = 0; i < count; i++) {
        Thumbnail to = {first->luma_side, first->colour_side, first->luma + i * luma_bytes,
                        first->colour + i * colour_bytes, first->levels + i * LEVELS, first->edges + i * LEVELS};
        Scratch scratch = scratch_begin();
        Outcome outcome = thumbnail_jpeg(files[i].bytes, files[i].size, sizes[2 * i], sizes[2 * i + 1],
                                         options->shortest, &to, options->simd, &scratch);
        scratch_end(&scratch);
        outcomes[i] = (uint8_t)outcome;
    }
}

/* Where the bytes of all pictures are, which stay there while the tuple holds them; NULL with an exception set. */
static File *files_of(PyObject *tuple)
{
    Py_ssize_t count = PyTuple_Size(tuple);
    File *files = malloc(((size_t)count + 1) * sizeof *files);

    if (files == NULL)
        PyErr_NoMemory();
    for (Py_ssize_t i = 0; i < count && files != NULL; i++) {
        PyObject *file = PyTuple_GetItem(tuple, i);
        if (PyBytes_Check(file)) {
            files[i] = (File){(const uint8_t *)PyBytes_AsString(file), (size_t)PyBytes_Size(file)};
            continue;
        }
        PyErr_Format(PyExc_TypeError, "file %zd must be bytes", i);
        free(files);
        files = NULL;
    }
    return files;
}

static int check_thumbnails(Py_ssize_t count, const Py_buffer arrays[], const Thumbnail *first)
{
    Py_ssize_t luma = (Py_ssize_t)first->luma_side * first->luma_side;
    Py_ssize_t colour = 3 * (Py_ssize_t)first->colour_side * first->colour_side, levels = LEVELS * 4;
    Py_ssize_t bytes[THUMBNAIL_ARRAYS] = {8, luma, colour, levels, levels, 1};

    for (int array = 0; array < THUMBNAIL_ARRAYS; array++)
        if (arrays[array].len != count * bytes[array]) {
            PyErr_Format(PyExc_ValueError, "array %d must have %zd rows of %zd bytes, got %zd bytes", array, count,
                         bytes[array], arrays[array].len);
            return 0;
        }
    for (Py_ssize_t i = 0; i < 2 * count; i++) {
        int32_t side = ((const int32_t *)arrays[PICTURE_SIZES].buf)[i];
        if (side < 1 || side > JPEG_MAX_DIMENSION) {
            PyErr_Format(PyExc_ValueError, "sides must be 1 to %d pixels, got %d", (int)JPEG_MAX_DIMENSION, (int)side);
            return 0;
        }
    }
    return 1;
}

static PyObject *thumbnails(PyObject *module, PyObject *args)
{
    PyObject *tuple, *arrays;
    File *files = NULL;
    size_t pictures;
    Py_buffer held[THUMBNAIL_ARRAYS];
    ThumbnailOptions options = {.place = {0}};
    const char *simd;
    PyObject *result = NULL;
    int count = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "O!O!iiis", &PyTuple_Type, &tuple, &PyTuple_Type, &arrays, &options.place.luma_side,
                          &options.place.colour_side, &options.shortest, &simd))
        return NULL;
    if (PyTuple_Size(arrays) != THUMBNAIL_ARRAYS || options.place.luma_side < 1 || options.place.luma_side > 1024 ||
        options.place.colour_side < 1 || options.place.colour_side > 1024 || options.shortest < 1 ||
        options.shortest > JPEG_MAX_DIMENSION) {
        PyErr_SetString(PyExc_ValueError, "arrays, sides or shortest is out of range");
        return NULL;
    }
    if (!simd_named(simd, &options.simd))
        return NULL;
    for (; count < THUMBNAIL_ARRAYS; count++)
        if (PyObject_GetBuffer(PyTuple_GetItem(arrays, count), &held[count],
                               PyBUF_C_CONTIGUOUS | (count > PICTURE_SIZES ? PyBUF_WRITABLE : 0)) != 0)
            goto end;
    files = files_of(tuple);
    if (files == NULL || !check_thumbnails(PyTuple_Size(tuple), held, &options.place))
        goto end;
    options.place.luma = held[LUMA].buf;
    options.place.colour = held[COLOUR].buf;
    options.place.levels = held[PICTURE_LEVELS].buf;
    options.place.edges = held[PICTURE_EDGES].buf;

    pictures = (size_t)PyTuple_Size(tuple);
    Py_BEGIN_ALLOW_THREADS
    make_thumbnails(files, pictures, held[PICTURE_SIZES].buf, held[PICTURE_OUTCOMES].buf, &options);
    Py_END_ALLOW_THREADS

    result = Py_NewRef(Py_None);
end:
    free(files);
    while (count > 0)
        PyBuffer_Release(&held[--count]);
    return result;
}

static int fill(PyObject *module)
{
    PyObject *names = PyTuple_New((Py_ssize_t)best_simd() + 1);

    if (names == NULL)
        return -1;
    for (int i = SCALAR; i <= (int)best_simd(); i++) {
        PyObject *name = PyUnicode_FromString(SIMD_NAMES[i]);
        if (name == NULL) {
            Py_DECREF(names);
            return -1;
        }
        PyTuple_SetItem(names, i, name);
    }
    if (PyModule_AddObjectRef(module, "SIMD", names) < 0) {
        Py_DECREF(names);
        return -1;
    }
    Py_DECREF(names);
#define TEXT(value) #value
#define TEXT_OF(macro) TEXT(macro)
    if (PyModule_AddStringConstant(module, "LIBJPEG_TURBO", TEXT_OF(LIBJPEG_TURBO_VERSION)) < 0)
        return -1;
    if (crop_ready_add_functions(module) < 0 || planes_add_functions(module) < 0 || copying_add_functions(module) < 0 ||
        file_facts_add_functions(module) < 0 || planning_add_functions(module) < 0 || tar_hash_add_functions(module) < 0)
        return -1;
    return batch_add_types(module);
}

/* The state is one reference: the type of jobs, which nobody makes but pools. */
static int visit_state(PyObject *module, visitproc visit, void *arg)
{
    Py_VISIT(*(PyObject **)PyModule_GetState(module));
    return 0;
}

static int clear_state(PyObject *module)
{
    Py_CLEAR(*(PyObject **)PyModule_GetState(module));
    return 0;
}

static PyMethodDef METHODS[] = {
    {"nearest", nearest, METH_VARARGS, NULL},
    {"resize_jpeg", resize_jpeg, METH_VARARGS, NULL},
    {"resize_plane", resize_plane, METH_VARARGS, NULL},
    {"thumbnails", thumbnails, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyModuleDef_Slot SLOTS[] = {
    {Py_mod_exec, fill},
#ifdef Py_GIL_DISABLED
    {Py_mod_gil, Py_MOD_GIL_NOT_USED},
#endif
    {0, NULL},
};

static PyModuleDef MODULE = {
    PyModuleDef_HEAD_INIT,
    .m_name = "imgdata.native._compiled",
    .m_doc = "JPEG to JPEG, and JPEG to pixels. Documented in imgdata/native/__init__.py.",
    .m_size = sizeof(PyObject *),
    .m_methods = METHODS,
    .m_slots = SLOTS,
    .m_traverse = visit_state,
    .m_clear = clear_state,
};

PyMODINIT_FUNC PyInit__compiled(void)
{
    return PyModuleDef_Init(&MODULE);
}
