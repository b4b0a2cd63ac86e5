/* Weighted sums along and across rows, for each kind of processor. */
#ifndef IMGDATA_KERNELS_H
#define IMGDATA_KERNELS_H

#include "filters.h"
#include "resample.h"

/* Bits behind the point of fine samples. */
#define FINE_BITS 6

typedef struct {
    /* One row -> one row. Reads and writes a few bytes behind the ends, within ROW_PADDING. */
    void (*along_row)(const uint8_t *from, uint8_t *to, const Filter *filter);
    /* `taps` rows (an even number) -> one row of `width` samples. Reads and writes as above. */
    void (*across_rows)(const uint8_t *const *rows, const int16_t *weights, int taps, int precision, uint8_t *to,
                        int width);
    /* The same in steps of 2^-FINE_BITS, and not clipped: bytes -> fine samples -> fine samples. */
    void (*along_row_fine)(const uint8_t *from, int16_t *to, const Filter *filter);
    void (*across_rows_fine)(const int16_t *const *rows, const int16_t *weights, int taps, int precision, int16_t *to,
                             int width);
    int shuffles; /* rows are faster with filters that have `steps` */
} Kernels;

/* Scalar ones for a `simd` that was not compiled in. */
Kernels kernels_of(Simd simd);

#endif
