/* Which samples a result is made of -> the integer weights that the kernels take. */
#ifndef IMGDATA_FILTERS_H
#define IMGDATA_FILTERS_H

#include "planes.h"
#include "windows.h"

/* Results that are added up at once with one load each; see `Filter.steps`. */
#define LANE 4
#define OUTPUTS_AT_ONCE 8
/* Weights along a row come in groups of this many, where samples aren't shuffled. */
#define TAPS_AT_ONCE 8

/* Two taps of OUTPUTS_AT_ONCE results: where their samples lie in the 16 bytes of a lane, and the weights. */
typedef struct {
    _Alignas(32) uint8_t places[32];
    int16_t weights[16];
} Step;

typedef struct {
    int count;        /* results; the arrays hold OUTPUTS_AT_ONCE - 1 more, with weights of 0 */
    int taps;         /* weights of one result */
    int precision;    /* bits behind the point of a weight */
    int *start;       /* `count`: the first sample of each result */
    int16_t *weights; /* `count` x `taps`, each row with the sum 2^precision */
    /* The same for kernels that shuffle, where the samples of LANE results lie within 16 bytes; 0 steps: they don't. */
    int steps;   /* of OUTPUTS_AT_ONCE results */
    int *bases;  /* 2 for OUTPUTS_AT_ONCE results: the first sample of each lane */
    Step *table; /* `steps` for OUTPUTS_AT_ONCE results */
} Filter;

/* Weights of `count` windows along a row, or across rows, of which the samples `first` to `first + held - 1` are at hand.
 *
 * Along a row, with `shuffles`: with steps where that works. Up to 15 samples behind the last are read, and don't count.
 * Across rows, of bytes or of `fine` samples, `taps` is even; rows behind the last have weights of 0. */
Outcome filter_along(Filter *filter, const Window *windows, int count, int first, int held, int shuffles,
                     Scratch *scratch);
Outcome filter_across(Filter *filter, const Window *windows, int count, int first, int held, int fine,
                      Scratch *scratch);

#endif
