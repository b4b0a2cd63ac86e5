/* One plane -> the same picture with another number of samples: antialiased bicubic, in integers. */
#ifndef IMGDATA_RESAMPLE_H
#define IMGDATA_RESAMPLE_H

#include "planes.h"
#include "simd.h"

/* Fill `to`, whose room and size are set, from `from`.
 *
 * `scale_x` and `scale_y`: samples of `from` for one of `to`. Sample x of `to` has its centre at
 * (x + 0.5) * scale_x - 0.5 in `from`. Where the filter reaches over an edge, the weights inside count alone, as in
 * Pillow. */
Outcome resample(const Plane *from, Plane *to, double scale_x, double scale_y, Simd simd, Scratch *scratch);

#endif
