/* A baseline JPEG -> its planes at a quarter or an eighth, in half the time that libjpeg takes. */
#ifndef IMGDATA_QUICK_H
#define IMGDATA_QUICK_H

#include "planes.h"

/* The luma that `decode_planes` gives with a `shrink` of 4 or 8, sample by sample, and chroma at an eighth in any case.
 *
 * UNFIT where `decode_planes` is, and for all but whole sequential JPEGs in one scan, without a single odd byte: the
 * caller decodes those by `decode_planes`, which also judges what is damaged. */
Outcome decode_quick(const uint8_t *data, size_t size, int width, int height, int shrink, Planes *planes,
                     Scratch *scratch);

#endif
