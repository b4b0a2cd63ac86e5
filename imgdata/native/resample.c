/* Scale -> weights; weights and rows -> the resized plane: first along the rows, then across them, as Pillow. */
#include "resample.h"
#include "kernels.h"

#include <math.h>
#include <string.h>

/* With 8 bits of the samples and the overshoot of the filter, sums stay below 2^31. */
#define MAX_PRECISION 21

/* Keys' cubic with a = -0.5 ("Cubic convolution interpolation for digital image processing", 1981). */
static double cubic(double x)
{
    const double a = -0.5;

    x = fabs(x);
    if (x < 1)
        return ((a + 2) * x - (a + 3)) * x * x + 1;
    if (x < 2)
        return (((x - 5) * x + 8) * x - 4) * a;
    return 0;
}

/* Which samples of `size` a result is made of, and how much of each. */
typedef struct {
    int from, count;
    double *weights; /* their sum is 1 */
} Window;

static void window_fill(Window *window, int x, int size, double scale)
{
    double stretch = scale > 1 ? scale : 1, reach = 2 * stretch, centre = (x + 0.5) * scale, sum = 0;
    int until = centre + reach + 0.5 < size ? (int)(centre + reach + 0.5) : size;

    window->from = centre - reach + 0.5 > 0 ? (int)(centre - reach + 0.5) : 0;
    window->count = until - window->from;
    for (int i = 0; i < window->count; i++)
        sum += window->weights[i] = cubic((window->from + i - centre + 0.5) / stretch);
    for (int i = 0; i < window->count; i++)
        window->weights[i] /= sum;
}

/* The windows of all results, or NULL. */
static Window *windows_make(int count, int size, double scale, Scratch *scratch)
{
    double reach = 2 * (scale > 1 ? scale : 1);
    size_t most = (size_t)(2 * reach) + 2 < (size_t)size ? (size_t)(2 * reach) + 2 : (size_t)size;
    Window *windows = scratch_take(scratch, (size_t)count, sizeof *windows);
    double *weights = scratch_take(scratch, (size_t)count, most * sizeof *weights);

    if (windows == NULL || weights == NULL)
        return NULL;
    for (int x = 0; x < count; x++) {
        windows[x].weights = weights + (size_t)x * most;
        window_fill(&windows[x], x, size, scale);
    }
    return windows;
}

/* Whole numbers that add up to 2^precision: what rounding leaves over goes to the next weight. */
static void set_weights(int16_t *weights, const Window *window, int precision)
{
    double unit = 1 << precision, rest = 0;

    for (int i = 0; i < window->count; i++) {
        double exact = window->weights[i] * unit + rest;
        weights[i] = (int16_t)(exact < 0 ? exact - 0.5 : exact + 0.5);
        rest = exact - weights[i];
    }
}

/* Memory and form of a filter; `taps` becomes a multiple of `group`. */
static Outcome filter_alloc(Filter *filter, const Window *windows, int count, int group, Scratch *scratch)
{
    int most = 1;
    double largest = 0;
    size_t room = (size_t)count + OUTPUTS_AT_ONCE - 1;

    for (int x = 0; x < count; x++) {
        most = windows[x].count > most ? windows[x].count : most;
        for (int i = 0; i < windows[x].count; i++)
            largest = windows[x].weights[i] > largest ? windows[x].weights[i] : largest;
    }
    filter->count = count;
    filter->taps = (most + group - 1) / group * group;
    filter->precision = MAX_PRECISION;
    while (largest * (1 << filter->precision) + 1 > INT16_MAX)
        filter->precision--;
    filter->start = scratch_take(scratch, room, sizeof *filter->start);
    filter->weights = scratch_take(scratch, room, (size_t)filter->taps * sizeof *filter->weights);
    if (filter->start == NULL || filter->weights == NULL)
        return NO_MEMORY;
    memset(filter->start, 0, room * sizeof *filter->start);
    memset(filter->weights, 0, room * (size_t)filter->taps * sizeof *filter->weights);
    return DONE;
}

/* `count` results from `size` samples. */
static Outcome filter_make(Filter *filter, int count, int size, double scale, int group, Scratch *scratch)
{
    Window *windows = windows_make(count, size, scale, scratch);
    Outcome outcome = windows == NULL ? NO_MEMORY : filter_alloc(filter, windows, count, group, scratch);

    for (int x = 0; x < count && outcome == DONE; x++) {
        /* Windows near the end begin earlier, with weights of 0: less than `group` samples are read behind it. */
        int from = windows[x].from, last = size > filter->taps ? size - filter->taps : 0;
        int start = filter->start[x] = from < last ? from : last;
        set_weights(filter->weights + (size_t)x * (size_t)filter->taps + (from - start), &windows[x],
                    filter->precision);
    }
    return outcome;
}

static Outcome resize_rows(const Plane *from, Plane *to, double scale, const Kernels *kernels, Scratch *scratch)
{
    Filter filter = {0};
    Outcome outcome = filter_make(&filter, to->width, from->width, scale, TAPS_AT_ONCE, scratch);

    for (size_t y = 0; y < (size_t)to->height && outcome == DONE; y++)
        kernels->along_row(from->samples + y * from->stride, to->samples + y * to->stride, &filter);
    return outcome;
}

static Outcome resize_columns(const Plane *from, Plane *to, double scale, const Kernels *kernels, Scratch *scratch)
{
    Filter filter = {0};
    const uint8_t **rows = NULL;
    Outcome outcome = filter_make(&filter, to->height, from->height, scale, 2, scratch);

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
