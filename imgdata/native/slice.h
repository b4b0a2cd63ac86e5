/* A JPEG with restart markers and a part -> a small JPEG of the segments that cover it; nothing is decoded. */
#ifndef IMGDATA_SLICE_H
#define IMGDATA_SLICE_H

#include "planes.h"

typedef struct {
    const uint8_t *data;
    size_t size;
    int left, top;     /* pixels of the picture, at corners of MCUs */
    int width, height; /* of the small JPEG, in pixels */
} Slice;

/* `shrink` as for `decode_planes`: chroma at half resolution needs a few pixels around the part.
 *
 * DONE; UNFIT where the whole file has to be decoded: its markers are not one after each interval, in order and in
 * number, an interval is no part of a row of MCUs, it has more than one scan or another size than `width` x `height`, or the
 * segments of the part are all there are. */
Outcome slice_jpeg(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part, Slice *slice,
                   Scratch *scratch);

/* MCUs of the restart interval of a JPEG that `slice_jpeg` takes; 0 for others. */
int slice_interval(const uint8_t *data, size_t size);

#endif
