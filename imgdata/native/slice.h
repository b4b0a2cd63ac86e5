/* A JPEG with restart markers and a part -> a small JPEG of the segments that cover it; nothing is decoded. */
#ifndef IMGDATA_SLICE_H
#define IMGDATA_SLICE_H

#include "header.h"
#include "planes.h"

/* The coded bytes of a segment, from its first one to the marker behind it. */
typedef struct {
    const uint8_t *begin, *end;
} Place;

/* Rows and columns of segments: those of the picture, and those that are wanted, which lie at `places`, row by row. */
typedef struct {
    int per_row, rows;
    int left, top, right, bottom;
    Place *places;
} Segments;

/* The segments that cover the part.
 *
 * UNFIT where the file has to be decoded from its beginning on: its markers are not one after each interval, in order and in
 * number, an interval is no part of a row of MCUs, or the segments of the part are all there are. */
Outcome find_segments(const uint8_t *data, size_t size, const Header *header, int shrink, const Part *part,
                      Segments *segments, Scratch *scratch);

/* The same of the whole picture. */
Outcome find_all_segments(const uint8_t *data, size_t size, const Header *header, Segments *segments, Scratch *scratch);

typedef struct {
    const uint8_t *data;
    size_t size;
    int left, top;     /* pixels of the picture, at corners of MCUs */
    int width, height; /* of the small JPEG, in pixels */
} Slice;

/* `shrink` as for `decode_planes`: chroma at half resolution needs a few pixels around the part.
 *
 * DONE; UNFIT as for `find_segments`, and where `header_read` does not take the file or it has another size than `width` x
 * `height`. */
Outcome slice_jpeg(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part, Slice *slice,
                   Scratch *scratch);

/* MCUs of the restart interval of a JPEG that `slice_jpeg` takes; 0 for others. */
int slice_interval(const uint8_t *data, size_t size);

#endif
