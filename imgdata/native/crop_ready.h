/* JPEG bytes -> the same coefficients as a baseline JPEG with a restart marker every few MCUs, the smallest units of coded
 * data: its stream can be entered anywhere, so that a crop is decoded from its own data alone. */
#ifndef IMGDATA_CROP_READY_H
#define IMGDATA_CROP_READY_H

#include "planes.h"

/* MCUs from one restart marker to the next: the fewest of at least 32 pixels that divide the MCUs of a row of `width`
 * pixels, the row itself where none do. `mcu`: pixels of one. */
int interval_for(int width, int mcu);

/* What is kept besides the picture: all there is, or what the pixels depend on (JFIF, Adobe, ICC, orientation). */
typedef enum { KEEP_ALL, STRIP } Kept;

/* With `STRIP`, `orientation` is written as EXIF unless it is 1. `interval`: 0 for the one of `interval_for`; the one taken
 * is written there. `out` must be all zero; whatever the outcome, the caller frees it.
 *
 * UNFIT for a JPEG that has not 8 bits, is lossless, has other than 1 or 3 components, more than one picture that would
 * be lost, or that libjpeg warns of. */
Outcome make_crop_ready(const uint8_t *data, size_t size, Kept kept, int orientation, int *interval, Buffer *out);

/* Whether all blocks of both have the same coefficients, and components the same tables and samplings: 1, 0; UNFIT or
 * NO_MEMORY as `outcome` for files that can't be read without a warning. */
int have_same_coefficients(const uint8_t *left, size_t left_size, const uint8_t *right, size_t right_size,
                           Outcome *outcome);

#endif
