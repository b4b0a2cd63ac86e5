/* What Python gives to a job: for each crop of its pictures a tuple of arrays and options, checked before any thread uses
 * them. */
#ifndef IMGDATA_ARGUMENTS_H
#define IMGDATA_ARGUMENTS_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "crop.h"

#include <sys/types.h>

/* What became of a picture; the first three are those of `Outcome`. From IO_ERROR on: an errno added to it. */
enum { CUT_SHORT = NO_MEMORY + 1, GIVEN_UP, IO_ERROR = 100 };

/* The arrays that a call brings, in its order; all int64 but the ones that say otherwise. */
typedef enum {
    ROWS,    /* (M,): which of the N parameters */
    TARGETS, /* (M,): which picture of the batch */
    FILES,   /* (M,): file descriptors */
    OFFSETS, /* (M,) */
    SIZES,   /* (M,) */
    SOURCES, /* (M, 2): width, height */
    BOXES,   /* (N, 4) */
    RESIZED, /* (N, 2) */
    SHIFTED, /* (N, 2) */
    FLIPS,   /* (N,) bool */
    VFLIPS,  /* (N,) bool */
    SCALES,  /* (2, 3) float32: scale and shift of the colours */
    IMAGES,  /* the batch, writable */
    ARRAYS
} Array;

/* What a thread needs for one crop of a picture: a copy, since the caller may change the arrays. */
typedef struct {
    int file;
    off_t offset;
    size_t size, target;
    Crop crop;
    uint8_t outcome;
} Task;

typedef struct {
    int height, width, channels, kind, planar, cubic, mirrored, simd;
} Options;

/* The tuple and the options of a crop; 0 with an exception set. */
int parse_arguments(PyObject *args, PyObject **tuple, Options *options);

/* The length of the tuple and the ranges of the options; 0 with an exception set. */
int check_options(PyObject *tuple, const Options *options);

/* The arrays of the tuple, as buffers; how many could be had, with an exception set where not all. */
int get_buffers(PyObject *tuple, Py_buffer arrays[]);

/* Lengths of the arrays and what points into others, so that no thread reads or writes outside of them; 0 with an
   exception set. */
int check_arrays(const Py_buffer arrays[], size_t picture_bytes);

/* What a thread needs for picture `i`; its outcome is UNFIT where sides are beyond all sense. */
Task task_of(const Py_buffer arrays[], Py_ssize_t i, Shape shape, int mirrored);

#endif
