/* Pool: threads. Job: one call's pictures, read from files and cropped into the caller's arrays while Python goes on. */
#define _GNU_SOURCE
#include "batch.h"
#include "arguments.h"
#include "pool.h"
#include "read_all.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    PyObject_HEAD
    Pool *pool;
    atomic_int closed;
} PoolObject;

/* More crops of a picture than anybody cuts. */
#define MOST_CROPS 64

/* Where one crop of every picture goes. */
typedef struct {
    Py_buffer images;
    Picture picture; /* the first one */
    size_t bytes;    /* of one picture */
    float scales[6];
} Output;

typedef struct {
    PyObject_HEAD
    Job job; /* the pool's view of it */
    PoolObject *owner;
    Py_ssize_t count;
    int crops;       /* of each picture */
    Output *outputs; /* `crops` */
    Task *tasks;     /* `count` x `crops`; the first of a picture says where its file is, and has its outcome */
    Simd simd;
} JobObject;

/* --- In the threads ------------------------------------------------------------------------------------ */

static uint8_t read_file(const Task *task, uint8_t *to)
{
    int fault = read_all(task->file, to, task->size, task->offset);

    if (fault == FILE_ENDS)
        return CUT_SHORT;
    return fault == 0 ? DONE : (uint8_t)(IO_ERROR + (fault < 255 - IO_ERROR ? fault : 0));
}

static uint8_t make_crops(const JobObject *self, const Task *tasks, Scratch *scratch)
{
    Crop crops[MOST_CROPS];
    Picture pictures[MOST_CROPS];
    uint8_t *data = scratch_take(scratch, tasks->size, 1), outcome;

    if (data == NULL)
        return NO_MEMORY;
    for (int i = 0; i < self->crops; i++) {
        if (tasks[i].outcome == UNFIT)
            return UNFIT;
        crops[i] = tasks[i].crop;
        pictures[i] = self->outputs[i].picture;
        pictures[i].pixels = (uint8_t *)pictures[i].pixels + tasks[i].target * self->outputs[i].bytes;
    }
    outcome = read_file(tasks, data);
    return outcome != DONE ? outcome
                           : (uint8_t)crop_jpeg(data, tasks->size, crops, pictures, self->crops, self->simd, scratch);
}

static void work(Job *job, int i)
{
    JobObject *self = (JobObject *)((char *)job - offsetof(JobObject, job));
    Task *tasks = &self->tasks[(Py_ssize_t)i * self->crops];
    Scratch scratch = scratch_begin();

    tasks->outcome = make_crops(self, tasks, &scratch);
    scratch_end(&scratch);
}

/* Let the system fetch what is not in memory yet, all at once. */
static void read_ahead(const JobObject *self)
{
#ifdef POSIX_FADV_WILLNEED
    for (Py_ssize_t i = 0; i < self->count * self->crops; i += self->crops)
        posix_fadvise(self->tasks[i].file, self->tasks[i].offset, (off_t)self->tasks[i].size, POSIX_FADV_WILLNEED);
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
    PyObject *result;
    char *outcomes;

    (void)nothing;
    while (!job_finish(self, 0, 0.1))
        if (PyErr_CheckSignals() < 0)
            return NULL;
    result = PyBytes_FromStringAndSize(NULL, self->count);
    if (result == NULL)
        return NULL;
    outcomes = PyBytes_AsString(result);
    for (Py_ssize_t i = 0; i < self->count; i++)
        outcomes[i] = (char)self->tasks[i * self->crops].outcome;
    return result;
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
    PyTypeObject *type = Py_TYPE((PyObject *)self);

    job_finish(self, 1, -1);
    for (int i = 0; i < self->crops; i++)
        if (self->outputs[i].images.obj != NULL)
            PyBuffer_Release(&self->outputs[i].images);
    free(self->outputs);
    free(self->tasks);
    Py_XDECREF((PyObject *)self->owner);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
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
    if (self->pool != NULL && pool_is_here(self->pool) && !atomic_exchange(&self->closed, 1)) {
        Py_BEGIN_ALLOW_THREADS
        pool_stop(self->pool);
        Py_END_ALLOW_THREADS
    }
    Py_RETURN_NONE;
}

static void pool_dealloc(PoolObject *self)
{
    PyTypeObject *type = Py_TYPE((PyObject *)self);

    Py_XDECREF(pool_close(self, NULL));
    /* A forked child has a copy of a pool without threads, whose locks it must not touch. */
    if (self->pool != NULL && self->closed)
        pool_free(self->pool);
    PyObject_Free(self);
    Py_DECREF((PyObject *)type);
}

/* Copies what the threads need for crop `number` of each picture; 0 with an exception set. */
static int job_fill(JobObject *self, int number, const Py_buffer arrays[], const Options *options)
{
    Output *output = &self->outputs[number];
    Py_ssize_t count = arrays[ROWS].len / 8;

    output->bytes = (size_t)options->height * (size_t)options->width * (size_t)options->channels *
                    (options->kind == BYTES ? 1 : options->kind == HALVES ? 2 : 4);
    if (!check_arrays(arrays, output->bytes))
        return 0;
    if (number == 0) {
        self->count = count;
        output->picture.channels = options->channels;
        self->tasks = malloc(((size_t)count * (size_t)self->crops + 1) * sizeof *self->tasks);
    }
    if (self->tasks == NULL) {
        PyErr_NoMemory();
        return 0;
    }
    if (count != self->count || options->channels != self->outputs->picture.channels) {
        PyErr_SetString(PyExc_ValueError, "all crops must be of the same pictures, with as many channels");
        return 0;
    }
    for (Py_ssize_t i = 0; i < count; i++)
        self->tasks[i * self->crops + number] =
            task_of(arrays, i, options->cubic ? CUBIC : TRIANGLE, options->mirrored);
    memcpy(output->scales, arrays[SCALES].buf, sizeof output->scales);
    output->picture = (Picture){arrays[IMAGES].buf, (Kind)options->kind, options->planar, options->channels,
                                options->height, options->width, output->scales, output->scales + 3};
    self->simd = (Simd)options->simd;
    return 1;
}

/* One crop of each picture, out of what Python said of it; 0 with an exception set. */
static int job_add(JobObject *self, int number, PyObject *said)
{
    PyObject *tuple;
    Options options;
    Py_buffer arrays[ARRAYS];
    int held, filled;

    if (!parse_arguments(said, &tuple, &options) || !check_options(tuple, &options))
        return 0;
    held = get_buffers(tuple, arrays);
    filled = held == ARRAYS && job_fill(self, number, arrays, &options);
    if (filled)
        self->outputs[number].images = arrays[--held];
    while (held > 0)
        PyBuffer_Release(&arrays[--held]);
    return filled;
}

static JobObject *job_make(PyObject *module, PyObject *all, int crops)
{
    PyTypeObject *type = (PyTypeObject *)((PyObject **)PyModule_GetState(module))[0];
    JobObject *job = (JobObject *)PyType_GenericAlloc(type, 0);

    if (job == NULL)
        return NULL;
    job->outputs = calloc((size_t)crops, sizeof *job->outputs);
    if (job->outputs == NULL) {
        Py_DECREF((PyObject *)job);
        return (JobObject *)PyErr_NoMemory();
    }
    job->crops = crops;
    for (int i = 0; i < crops; i++)
        if (!job_add(job, i, PyTuple_GetItem(all, i))) {
            Py_DECREF((PyObject *)job);
            return NULL;
        }
    job->job = (Job){.count = (int)job->count, .work = work};
    return job;
}

/* A tuple of arrays and options for each crop. */
static PyObject *pool_submit_(PoolObject *self, PyObject *args)
{
    PyObject *module = PyType_GetModule(Py_TYPE((PyObject *)self));
    Py_ssize_t crops = PyTuple_Size(args);
    JobObject *job;

    if (crops < 1 || crops > MOST_CROPS) {
        PyErr_Format(PyExc_ValueError, "a picture must have 1 to %d crops, got %zd", MOST_CROPS, crops);
        return NULL;
    }
    for (Py_ssize_t i = 0; i < crops; i++)
        if (!PyTuple_Check(PyTuple_GetItem(args, i))) {
            PyErr_SetString(PyExc_TypeError, "a crop must be a tuple of arrays and options");
            return NULL;
        }
    if (self->pool == NULL || self->closed || !pool_is_here(self->pool)) {
        PyErr_SetString(PyExc_RuntimeError, "the pool is closed, or another process's");
        return NULL;
    }
    job = job_make(module, args, (int)crops);
    if (job == NULL)
        return NULL;
    job->owner = (PoolObject *)Py_NewRef((PyObject *)self);
    Py_BEGIN_ALLOW_THREADS
    read_ahead(job);
    pool_submit(self->pool, &job->job);
    Py_END_ALLOW_THREADS
    return (PyObject *)job;
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
    if (result == 0 && (*job_type = PyType_FromModuleAndSpec(module, &JOB_SPEC, NULL)) == NULL)
        result = -1;
    return result;
}
