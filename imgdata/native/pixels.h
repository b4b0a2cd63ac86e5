/* One finished row of a picture -> the batch: colours, and the layout and type that the caller wants. */
#ifndef IMGDATA_PIXELS_H
#define IMGDATA_PIXELS_H

#include "resample.h"

typedef enum { BYTES, HALVES, FLOATS } Kind;

/* Where the pixels of one picture go. */
typedef struct {
    void *pixels;
    Kind kind;
    int planar;   /* (channels, height, width), not (height, width, channels) */
    int channels; /* 1: luma; 3: red, green and blue */
    int height, width;
    const float *scale, *shift; /* of red, green and blue, for halves and floats: value * scale + shift */
} Picture;

/* Rows of one colour each. */
typedef struct {
    uint8_t *rgb[3];
    void *typed[3]; /* for the picture's type, where it is not planar */
} Rows;

/* Room for `width` pixels. */
Outcome rows_alloc(Rows *rows, const Picture *picture, Scratch *scratch);

/* Y, Cb, Cr in steps of 2^-FINE_BITS -> red, green, blue by JFIF's formulas, rounded. Cb is NULL for gray. */
void row_to_rgb(const int16_t *y, const int16_t *cb, const int16_t *cr, const Rows *rows, int width, Simd simd);

/* Y in steps of 2^-FINE_BITS -> the one row of a picture of one channel, rounded. */
void row_to_gray(const int16_t *y, const Rows *rows, int width);

/* `rows` -> row `y` of the picture. */
void row_store(const Rows *rows, const Picture *picture, int y, Simd simd);

#endif
