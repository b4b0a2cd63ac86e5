/* JPEG bytes -> what an audit looks at: a small picture in gray, a smaller one in colour, counts of levels and edges. */
#ifndef IMGDATA_THUMBNAIL_H
#define IMGDATA_THUMBNAIL_H

#include "resample.h"

#define LEVELS 256

/* Where the results of one picture go. */
typedef struct {
    int luma_side, colour_side;
    uint8_t *luma;   /* luma_side x luma_side: the whole picture, squashed */
    uint8_t *colour; /* colour_side x colour_side x 3: the same in red, green, blue */
    int32_t *levels; /* LEVELS: how many samples of the scaled luma have each value */
    int32_t *edges;  /* LEVELS: how many inside its frame have each strength: half of |4 centre - its 4 neighbours| */
} Thumbnail;

/* The sides are divided by the largest power of 2 (up to 8 in the DCT) with which the shorter one keeps `shortest`
 * samples: `levels` and `edges` are those of this size.
 *
 * UNFIT as in `decode_planes`: what is written then is undefined. The picture is as stored: no EXIF orientation. */
Outcome thumbnail_jpeg(const uint8_t *data, size_t size, int width, int height, int shortest, const Thumbnail *to,
                       Simd simd, Scratch *scratch);

#endif
