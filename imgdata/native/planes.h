/* What the stages hand on: the colour planes of one image, each at its own resolution. */
#ifndef IMGDATA_PLANES_H
#define IMGDATA_PLANES_H

#include "scratch.h"
#include "simd.h"

#include <stddef.h>
#include <stdint.h>

/* Bytes behind every row that may be read and overwritten; what they hold is never used. */
#define ROW_PADDING 64

typedef struct {
    uint8_t *samples; /* of column `left`, row `top`: a plane may hold a part only */
    size_t stride;    /* bytes from one row to the next, at least the columns that it holds + ROW_PADDING */
    int left, top;
    int width, height; /* of the whole plane */
    /* Image pixels, at the size in the file's header, from one sample to the next: 2 for the chroma of 4:2:0. */
    double pitch_x, pitch_y;
} Plane;

typedef struct {
    int count; /* 1: gray; 3: Y, Cb, Cr */
    int luma_only; /* set before decoding: of Y, Cb, Cr only Y is made, and `count` is 1 */
    Plane plane[3];
    int width, height; /* pixels of the image */
} Planes;

typedef enum {
    DONE,
    UNFIT, /* not for this code, or damaged: the caller takes another way */
    NO_MEMORY
} Outcome;

/* Room for `columns` x `rows` samples of a plane of `width` x `height`, from its upper left corner on. */
Outcome plane_alloc(Plane *plane, int width, int height, size_t columns, size_t rows, Scratch *scratch);

/* Pixels of the image: columns `left` to `right` - 1, rows `top` to `bottom` - 1. */
typedef struct {
    int left, top, right, bottom;
} Part;

/* One side of a picture, in pixels. */
typedef struct {
    int size;
    int unit;    /* what is decoded together */
    int is_half; /* whether chroma has half as many samples */
} Side;

/* Units: columns `left` to `right` - 1, rows `top` to `bottom` - 1. */
typedef struct {
    int left, top, right, bottom;
} Range;

/* The units that a part needs with `shrink`, as for `decode_planes`; all of them without a part. */
Range range_of(const Part *part, int shrink, Side x, Side y);

/* An 8-bit JPEG in YCbCr (4:2:0, 4:2:2, 4:4:0, 4:4:4) or gray -> its planes, sides divided by `shrink` (1, 2, 4, 8).
 *
 * With a `part`, the planes hold at least that, and chroma enough to interpolate it; of what lies behind it in the file
 * nothing is read but the end marker, and of a crop-ready file nothing but the segments that cover it. NULL: all of it,
 * up to the end marker.
 *
 * UNFIT for every other JPEG, for one whose header does not say `width` x `height`, and at any warning of libjpeg. */
Outcome decode_planes(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part, Simd simd,
                      Planes *planes, Scratch *scratch);

/* The same by libjpeg alone, whether there is an end marker or not. */
Outcome decode_by_libjpeg(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part,
                          Planes *planes, Scratch *scratch);

typedef struct {
    uint8_t *bytes; /* malloc'ed, the caller frees it */
    size_t size, capacity;
} Buffer;

/* Planes -> a baseline JPEG. The subsampling is that of the planes: pitch 1 or 2.
 *
 * Overwrites the padding behind the rows. `out` must be all zero; whatever the outcome, the caller frees it. */
Outcome encode_planes(Planes *planes, int quality, Buffer *out);

/* Whether a JPEG has more scans than any encoder writes: each takes as long as a whole picture. */
int has_too_many_scans(const uint8_t *data, size_t size);

#endif
