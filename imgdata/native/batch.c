/* Pool: threads. Job: one call's pictures, read from files and cropped into the caller's array while Python goes on. */
#define _GNU_SOURCE
#include "batch.h"
#include "crop.h"
#include "pool.h"
#include "turbo.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* What became of a picture; the first three are those of `Outcome`. From IO_ERROR on: an errno added to it. */
enum { CUT_SHORT = NO_MEMORY + 1, GIVEN_UP, IO_ERROR = 100 };

/* The arrays that a call brings, in its order; all int64 but the ones that say otherwise. */
typedef enum {
    ROWS,     /* (M,): which of the N parameters */
    TARGETS,  /* (M,): which picture of the batch */
    FILES,    /* (M,): file descriptors */
    OFFSETS,  /* (M,) */
    SIZES,    /* (M,) */
    SOURCES,  /* (M, 2): width, height */
    BOXES,    /* (N, 4) */
    RESIZED,  /* (N, 2) */
    SHIFTED,  /* (N, 2) */
    FLIPS,    /* (N,) bool */
    VFLIPS,   /* (N,) bool */
    SCALES,   /* (2, 3) float32: scale and shift of the colours */
    IMAGES,   /* the batch, writable */
    ARRAYS
} Array;

static const size_t ROW_BYTES[IMAGES] = {8, 8, 8, 8, 8, 16, 32, 16, 16, 1, 1, 12};

typedef struct {
    PyObject_HEAD
    Pool *pool;
    int closed;
} PoolObject;

typedef struct {
    PyObject_HEAD
    Job job; /* the pool's view of it */
    PoolObject *owner;
    Py_buffer arrays[ARRAYS];
    int held; /* arrays to release */
    uint8_t *outcomes;
    Picture picture; /* of the first one */
    size_t bytes;    /* of one picture */
    Shape shape;
    int mirrored;
    Simd simd;
} JobObject;

/* --- In the threads ------------------------------------------------------------------------------------ */

static const int64_t *numbers(const JobObject *self, Array array)
{
    return self->arrays[array].buf;
}

/* `size` bytes at `offset`: 0, CUT_SHORT or IO_ERROR + errno. */
static uint8_t read_all(int file, uint8_t *to, size_t size, off_t offset)
{
    while (size > 0) {
        ssize_t got = pread(file, to, size, offset);
        if (got == 0)
            return CUT_SHORT;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return (uint8_t)(IO_ERROR + (errno < 255 - IO_ERROR ? errno : 0));
        to += got;
        size -= (size_t)got;
        offset += got;
    }
    return DONE;
}

static uint8_t make_picture(const JobObject *self, int i, Scratch *scratch)
{
    size_t row = (size_t)numbers(self, ROWS)[i], size = (size_t)numbers(self, SIZES)[i];
    const int64_t *source = numbers(self, SOURCES) + 2 * i, *box = numbers(self, BOXES) + 4 * row;
    const int64_t *resized = numbers(self, RESIZED) + 2 * row, *shifted = numbers(self, SHIFTED) + 2 * row;
    Crop crop = {.width = (int)source[0],
                 .height = (int)source[1],
                 .x = {(int)box[0], (int)box[2], (int)resized[0], (int)shifted[0],
                       ((const uint8_t *)self->arrays[FLIPS].buf)[row]},
                 .y = {(int)box[1], (int)box[3], (int)resized[1], (int)shifted[1],
                       ((const uint8_t *)self->arrays[VFLIPS].buf)[row]},
                 .shape = self->shape,
                 .mirrored = self->mirrored};
    Picture picture = self->picture;
    uint8_t *data = scratch_take(scratch, size, 1), outcome;

    if (data == NULL)
        return NO_MEMORY;
    picture.pixels = (uint8_t *)picture.pixels + (size_t)numbers(self, TARGETS)[i] * self->bytes;
    outcome = read_all((int)numbers(self, FILES)[i], data, size, (off_t)numbers(self, OFFSETS)[i]);
    return outcome != DONE ? outcome : (uint8_t)crop_jpeg(data, size, &crop, &picture, self->simd, scratch);
}

static void work(Job *job, int i)
{
    JobObject *self = (JobObject *)((char *)job - offsetof(JobObject, job));
    Scratch scratch = scratch_begin();

    self->outcomes[i] = make_picture(self, i, &scratch);
    scratch_end(&scratch);
}

/* Let the system fetch what is not in memory yet, all at once. */
static void read_ahead(const JobObject *self)
{
#ifdef POSIX_FADV_WILLNEED
    for (int i = 0; i < self->job.count; i++)
        posix_fadvise((int)numbers(self, FILES)[i], (off_t)numbers(self, OFFSETS)[i], (off_t)numbers(self, SIZES)[i],
                      POSIX_FADV_WILLNEED);
#else
    (void)self;
#endif
}

/* --- Job ------------------------------------------------------------------------------------------------- */

/* Until no thread works on it; rows that were not begun are given up if `cancel`. */
static int job_finish(JobObject *self, int cancel, double seconds)
{
    int all;

    /* In a forked child nobody works on it, and the lock may be held for ever. */
    if (self->owner == NULL || !pool_is_here(self->owner->pool))
        return 1;
    Py_BEGIN_ALLOW_THREADS
    if (cancel)
        pool_cancel(self->owner->pool, &self->job);
    all = pool_wait(self->owner->pool, &self->job, seconds);
    Py_END_ALLOW_THREADS
    return all;
}

static PyObject *job_wait(JobObject *self, PyObject *nothing)
{
    (void)nothing;
    while (!job_finish(self, 0, 0.1))
        if (PyErr_CheckSignals() < 0)
            return NULL;
    return PyBytes_FromStringAndSize((const char *)self->outcomes, self->arrays[ROWS].len / 8);
}

static PyObject *job_done(JobObject *self, PyObject *nothing)
{
    (void)nothing;
    return PyBool_FromLong(job_finish(self, 0, 0));
}

static PyObject *job_cancel(JobObject *self, PyObject *nothing)
{
    (void)nothing;
    job_finish(self, 1, -1);
    Py_RETURN_NONE;
}

static void job_dealloc(JobObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    if (self->held == ARRAYS)
        job_finish(self, 1, -1);
    for (int i = 0; i < self->held; i++)
        PyBuffer_Release(&self->arrays[i]);
    PyMem_RawFree(self->outcomes);
    Py_XDECREF(self->owner);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

static PyMethodDef JOB_METHODS[] = {
    {"wait", (PyCFunction)job_wait, METH_NOARGS, NULL},
    {"done", (PyCFunction)job_done, METH_NOARGS, NULL},
    {"cancel", (PyCFunction)job_cancel, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot JOB_SLOTS[] = {{Py_tp_dealloc, job_dealloc}, {Py_tp_methods, JOB_METHODS}, {0, NULL}};
static PyType_Spec JOB_SPEC = {"imgdata.native._compiled.Job", sizeof(JobObject), 0,
                               Py_TPFLAGS_DEFAULT | Py_TPFLAGS_DISALLOW_INSTANTIATION, JOB_SLOTS};

/* --- Pool ------------------------------------------------------------------------------------------------ */

static int pool_init(PoolObject *self, PyObject *args, PyObject *keywords)
{
    int threads;

    (void)keywords;
    if (self->pool != NULL) {
        PyErr_SetString(PyExc_RuntimeError, "the pool was started already");
        return -1;
    }
    if (!PyArg_ParseTuple(args, "i", &threads))
        return -1;
    if (threads < 1 || threads > 4096) {
        PyErr_Format(PyExc_ValueError, "threads must be 1 to 4096, got %d", threads);
        return -1;
    }
    self->pool = pool_start(threads);
    if (self->pool != NULL)
        return 0;
    PyErr_Format(PyExc_OSError, "%d threads can't be started", threads);
    return -1;
}

static PyObject *pool_close(PoolObject *self, PyObject *nothing)
{
    (void)nothing;
    if (self->pool != NULL && !self->closed && pool_is_here(self->pool)) {
        self->closed = 1;
        Py_BEGIN_ALLOW_THREADS
        pool_stop(self->pool);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static void pool_dealloc(PoolObject *self)
{
    PyTypeObject *type = Py_TYPE(self);

    Py_XDECREF(pool_close(self, NULL));
    /* A forked child has a copy of a pool without threads, whose locks it must not touch. */
    if (self->pool != NULL && self->closed)
        pool_free(self->pool);
    type->tp_free((PyObject *)self);
    Py_DECREF(type);
}

/* Lengths and contents of the arrays, so that no thread reads or writes outside of them. */
static int check_arrays(const JobObject *self)
{
    Py_ssize_t rows = self->arrays[ROWS].len / 8, params = self->arrays[FLIPS].len;
    size_t pictures = (size_t)self->arrays[IMAGES].len / self->bytes;

    for (Array array = ROWS; array < IMAGES; array++) {
        Py_ssize_t count = array == SCALES ? 2 : array < BOXES ? rows : params;
        if (self->arrays[array].len != count * (Py_ssize_t)ROW_BYTES[array]) {
            PyErr_Format(PyExc_ValueError, "array %d must have %zd rows of %zu bytes, got %zd bytes", (int)array, count,
                         ROW_BYTES[array], self->arrays[array].len);
            return 0;
        }
    }
    for (Py_ssize_t i = 0; i < rows; i++) {
        int64_t row = numbers(self, ROWS)[i], target = numbers(self, TARGETS)[i];
        if (row < 0 || row >= params || target < 0 || (uint64_t)target >= pictures || numbers(self, SIZES)[i] < 0) {
            PyErr_Format(PyExc_ValueError, "rows, targets or sizes are out of range at %zd", i);
            return 0;
        }
    }
    return 1;
}

/* Sides that no arithmetic here overflows with. */
static int check_sides(const JobObject *self)
{
    for (Array array = SOURCES; array <= SHIFTED; array++)
        for (Py_ssize_t i = 0; i < self->arrays[array].len / 8; i++)
            if (numbers(self, array)[i] < -(1 << 24) || numbers(self, array)[i] > 1 << 24) {
                PyErr_SetString(PyExc_ValueError, "sizes, boxes and offsets must be within 2^24 pixels");
                return 0;
            }
    return 1;
}

static PyObject *pool_submit_(PoolObject *self, PyObject *args)
{
    PyObject *arrays, *module = PyType_GetModule(Py_TYPE(self));
    int height, width, kind, planar, cubic, mirrored, simd;
    PyTypeObject *type;
    JobObject *job;

    if (!PyArg_ParseTuple(args, "O!(ii)ipppi", &PyTuple_Type, &arrays, &height, &width, &kind, &planar, &cubic,
                          &mirrored, &simd))
        return NULL;
    if (self->pool == NULL || self->closed || !pool_is_here(self->pool)) {
        PyErr_SetString(PyExc_RuntimeError, "the pool is closed, or another process's");
        return NULL;
    }
    if (PyTuple_GET_SIZE(arrays) != ARRAYS || height < 1 || width < 1 || height > JPEG_MAX_DIMENSION || width > JPEG_MAX_DIMENSION || kind < BYTES ||
        kind > FLOATS || simd < SCALAR || simd > (int)best_simd()) {
        PyErr_SetString(PyExc_ValueError, "arrays, height, width, kind or simd is out of range");
        return NULL;
    }
    type = (PyTypeObject *)((PyObject **)PyModule_GetState(module))[0];
    job = (JobObject *)type->tp_alloc(type, 0);
    if (job == NULL)
        return NULL;
    for (; job->held < ARRAYS; job->held++)
        if (PyObject_GetBuffer(PyTuple_GET_ITEM(arrays, job->held), &job->arrays[job->held],
                               job->held == IMAGES ? PyBUF_WRITABLE | PyBUF_C_CONTIGUOUS : PyBUF_C_CONTIGUOUS) < 0)
            goto failed;
    job->bytes = (size_t)height * (size_t)width * 3 * (kind == BYTES ? 1 : kind == HALVES ? 2 : 4);
    if (!check_arrays(job) || !check_sides(job))
        goto failed;
    job->picture = (Picture){job->arrays[IMAGES].buf, (Kind)kind, planar, height, width, job->arrays[SCALES].buf,
                             (const float *)job->arrays[SCALES].buf + 3};
    job->shape = cubic ? CUBIC : TRIANGLE;
    job->mirrored = mirrored;
    job->simd = (Simd)simd;
    job->job = (Job){.count = (int)(job->arrays[ROWS].len / 8), .work = work};
    job->outcomes = PyMem_RawMalloc((size_t)job->job.count + 1);
    if (job->outcomes == NULL) {
        PyErr_NoMemory();
        goto failed;
    }
    memset(job->outcomes, GIVEN_UP, (size_t)job->job.count);
    job->owner = (PoolObject *)Py_NewRef((PyObject *)self);
    Py_BEGIN_ALLOW_THREADS
    read_ahead(job);
    pool_submit(self->pool, &job->job);
    Py_END_ALLOW_THREADS
    return (PyObject *)job;
failed:
    Py_DECREF(job);
    return NULL;
}

static PyMethodDef POOL_METHODS[] = {
    {"submit", (PyCFunction)pool_submit_, METH_VARARGS, NULL},
    {"close", (PyCFunction)pool_close, METH_NOARGS, NULL},
    {NULL, NULL, 0, NULL},
};

static PyType_Slot POOL_SLOTS[] = {
    {Py_tp_init, pool_init}, {Py_tp_dealloc, pool_dealloc}, {Py_tp_methods, POOL_METHODS}, {0, NULL}};
static PyType_Spec POOL_SPEC = {"imgdata.native._compiled.Pool", sizeof(PoolObject), 0, Py_TPFLAGS_DEFAULT, POOL_SLOTS};

int batch_add_types(PyObject *module)
{
    PyObject **job_type = PyModule_GetState(module);
    PyObject *pool_type = PyType_FromModuleAndSpec(module, &POOL_SPEC, NULL);
    int result;

    if (pool_type == NULL)
        return -1;
    result = PyModule_AddObjectRef(module, "Pool", pool_type);
    Py_DECREF(pool_type);
    *job_type = PyType_FromModuleAndSpec(module, &JOB_SPEC, NULL);
    return *job_type == NULL ? -1 : result;
}
