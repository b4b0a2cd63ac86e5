/* A baseline JPEG -> its planes, in half the time that libjpeg takes. */
#ifndef IMGDATA_BASELINE_H
#define IMGDATA_BASELINE_H

#include "planes.h"

/* Which samples chroma has where the DCT divides the sides. */
typedef enum {
    AS_LIBJPEG, /* as many as luma, where its own resolution has them */
    AS_LUMA     /* sides divided like those of luma */
} Chroma;

/* What `decode_planes` gives, sample by sample.
 *
 * UNFIT where `decode_planes` is, and for all but sequential JPEGs in one scan, without a single odd byte in what is read:
 * the caller decodes those by libjpeg, which also judges what is damaged. */
Outcome decode_baseline(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part,
                        Chroma chroma, Simd simd, Planes *planes, Scratch *scratch);

#endif
