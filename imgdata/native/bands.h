/* A large crop-ready picture -> its planes, by all threads of a pool that have nothing to do. */
#ifndef IMGDATA_BANDS_H
#define IMGDATA_BANDS_H

#include "scan.h"

/* Into how many bands of rows: 1 where the picture is small, or no thread has time. */
int count_bands(const Scan *scan, const Segments *segments);

/* What `read_segments` does. */
Outcome share_segments(const Scan *scan, const Segments *segments, int bands);

/* The same of a file of which all segments are needed. UNFIT where one thread has to read it row by row, which also tells
 * whether it is damaged: that must not depend on how many threads have nothing to do. */
Outcome share_all(const Scan *scan, const uint8_t *data, size_t size, Scratch *scratch);

#endif
