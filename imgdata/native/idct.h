/* Coefficients -> samples, as libjpeg-turbo's accurate integer method makes them (JDCT_ISLOW): the same in every bit. */
#ifndef IMGDATA_IDCT_H
#define IMGDATA_IDCT_H

#include "simd.h"

#include <stddef.h>
#include <stdint.h>

/* A block of 64 coefficients, how many of them there are up to the last one in the order of the file, and where its
 * samples go. */
typedef struct {
    const int16_t *coefficients;
    int count;
    uint8_t *to;
} Block;

/* `count` blocks, each -> a square with sides of `side` samples: 8, 4, 2 or 1. */
void idct_blocks(const Block *blocks, int count, const uint16_t *quant, int side, size_t stride, Simd simd);

#endif
