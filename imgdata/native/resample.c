/* Scale -> weights; weights and rows -> the resized plane: first along the rows, then across them, as Pillow. */
#include "resample.h"
#include "kernels.h"

/* The windows of `count` results from `size` samples, or NULL. */
static Window *windows_of(int count, int size, double scale, Scratch *scratch)
{
    double stretch = scale > 1 ? scale : 1;
    Window *windows = windows_alloc(count, CUBIC, stretch, scratch);

    for (int x = 0; x < count && windows != NULL; x++)
        window_at(&windows[x], CUBIC, (x + 0.5) * scale, stretch, 0, size);
    return windows;
}

static Outcome resize_rows(const Plane *from, Plane *to, double scale, const Kernels *kernels, Scratch *scratch)
{
    Filter filter = {0};
    Window *windows = windows_of(to->width, from->width, scale, scratch);
    Outcome outcome = NO_MEMORY;

    if (windows != NULL)
        outcome = filter_along(&filter, windows, to->width, 0, from->width, kernels->shuffles, scratch);

    for (size_t y = 0; y < (size_t)to->height && outcome == DONE; y++)
        kernels->along_row(from->samples + y * from->stride, to->samples + y * to->stride, &filter);
    return outcome;
}

static Outcome resize_columns(const Plane *from, Plane *to, double scale, const Kernels *kernels, Scratch *scratch)
{
    Filter filter = {0};
    const uint8_t **rows = NULL;
    Window *windows = windows_of(to->height, from->height, scale, scratch);
    Outcome outcome = NO_MEMORY;

    if (windows != NULL)
        outcome = filter_across(&filter, windows, to->height, 0, from->height, 0, scratch);
    if (outcome == DONE && (rows = scratch_take(scratch, (size_t)filter.taps, sizeof *rows)) == NULL)
        outcome = NO_MEMORY;
    for (int y = 0; y < to->height && outcome == DONE; y++) {
        for (int i = 0; i < filter.taps; i++) {
            int row = filter.start[y] + i;
            rows[i] = from->samples + (size_t)(row < from->height ? row : from->height - 1) * from->stride;
        }
        kernels->across_rows(rows, filter.weights + (size_t)y * (size_t)filter.taps, filter.taps, filter.precision,
                             to->samples + (size_t)y * to->stride, to->width);
    }
    return outcome;
}

Outcome resample(const Plane *from, Plane *to, double scale_x, double scale_y, Simd simd, Scratch *scratch)
{
    Kernels kernels = kernels_of(simd);
    Plane narrow = {0};
    Outcome outcome = plane_alloc(&narrow, to->width, from->height, (size_t)to->width, (size_t)from->height,
                                  scratch);

    if (outcome == DONE)
        outcome = resize_rows(from, &narrow, scale_x, &kernels, scratch);
    if (outcome == DONE)
        outcome = resize_columns(&narrow, to, scale_y, &kernels, scratch);
    return outcome;
}
