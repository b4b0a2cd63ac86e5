/* Where a result lies -> the samples that it is made of, and how much of each. */
#ifndef IMGDATA_WINDOWS_H
#define IMGDATA_WINDOWS_H

#include "scratch.h"

/* Samples `from` to `from + count - 1` of a row or column. */
typedef struct {
    int from, count;
    double *weights; /* their sum is 1, or `count` is 0 */
} Window;

typedef enum { TRIANGLE, CUBIC } Shape;

/* `count` windows with room for what `window_at` makes with `stretch`; NULL when there is no memory. */
Window *windows_alloc(int count, Shape shape, double stretch, Scratch *scratch);

/* The antialiased filter about `centre`, as Pillow and PyTorch have it: sample i has its middle at i + 0.5, the filter is
 * `stretch` (at least 1) times as wide as for interpolation, and samples outside of `low` to `high` - 1 don't count. */
void window_at(Window *window, Shape shape, double centre, double stretch, int low, int high);

/* `windows` on samples at full resolution -> the same on `size` samples of half of it, which are interpolated as libjpeg
 * does it: 3/4 of the nearer one and 1/4 of the other; repeated where `smooth` is 0. NULL when there is no memory. */
Window *windows_halved(const Window *windows, int count, int size, int smooth, Scratch *scratch);

#endif
