/* The weighted sums of `resample`, one pair of functions for each kind of processor. */
#ifndef IMGDATA_KERNELS_H
#define IMGDATA_KERNELS_H

#include "resample.h"

typedef struct {
    int count;        /* results; the arrays hold OUTPUTS_AT_ONCE - 1 more, with weights of 0 */
    int taps;         /* weights of one result */
    int precision;    /* bits behind the point of a weight */
    int *start;       /* `count`: the first sample of each result */
    int16_t *weights; /* `count` x `taps`, each row with the sum 2^precision */
} Filter;

#define OUTPUTS_AT_ONCE 8
/* Weights along a row come in groups of this many. */
#define TAPS_AT_ONCE 8

typedef struct {
    /* One row -> one row. Reads and writes a few bytes behind the ends, within ROW_PADDING. */
    void (*along_row)(const uint8_t *from, uint8_t *to, const Filter *filter);
    /* `taps` rows (an even number) -> one row of `width` samples. Reads and writes as above. */
    void (*across_rows)(const uint8_t *const *rows, const int16_t *weights, int taps, int precision, uint8_t *to,
                        int width);
} Kernels;

/* Scalar ones for a `simd` that was not compiled in. */
Kernels kernels_of(Simd simd);

#endif
