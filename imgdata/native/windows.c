/* Triangle and cubic, normalised; and what they become on chroma, where libjpeg's interpolation comes before them. */
#include "windows.h"

#include <math.h>
#include <string.h>

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

static double triangle(double x)
{
    x = fabs(x);
    return x < 1 ? 1 - x : 0;
}

static double reach_of(Shape shape, double stretch)
{
    return (shape == CUBIC ? 2 : 1) * stretch;
}

static Window *alloc(int count, size_t most, Scratch *scratch)
{
    Window *windows = scratch_take(scratch, (size_t)count, sizeof *windows);
    double *weights = scratch_take(scratch, (size_t)count, most * sizeof *weights);

    if (windows == NULL || weights == NULL)
        return NULL;
    for (int x = 0; x < count; x++)
        windows[x] = (Window){0, 0, weights + (size_t)x * most};
    return windows;
}

Window *windows_alloc(int count, Shape shape, double stretch, Scratch *scratch)
{
    return alloc(count, (size_t)(2 * reach_of(shape, stretch)) + 2, scratch);
}

void window_at(Window *window, Shape shape, double centre, double stretch, int low, int high)
{
    double reach = reach_of(shape, stretch), step = 1 / stretch, sum = 0, x;
    int from = (int)floor(centre - reach + 0.5), until = (int)floor(centre + reach + 0.5);

    from = from > low ? from : low;
    until = until < high ? until : high;
    x = (from - centre + 0.5) * step;
    for (int i = 0; i < until - from; i++)
        sum += window->weights[i] = shape == CUBIC ? cubic(x + i * step) : triangle(x + i * step);
    for (int i = 0; i < until - from; i++)
        window->weights[i] /= sum;
    window->from = from;
    window->count = until - from;
}

static int inside(int i, int size)
{
    return i < 0 ? 0 : i < size ? i : size - 1;
}

static void window_halve(Window *half, const Window *window, int size, int smooth)
{
    int last = window->from + window->count - 1;
    int from = inside((window->from - smooth) >> 1, size), until = inside((last + smooth) >> 1, size);

    half->from = from;
    half->count = until - from + 1;
    memset(half->weights, 0, (size_t)half->count * sizeof *half->weights);
    for (int i = window->from; i <= last; i++) {
        double weight = window->weights[i - window->from];
        int near = inside(i >> 1, size), other = inside((i >> 1) + (i & 1 ? 1 : -1), size);
        half->weights[near - from] += smooth ? 0.75 * weight : weight;
        if (smooth)
            half->weights[other - from] += 0.25 * weight;
    }
}

Window *windows_halved(const Window *windows, int count, int size, int smooth, Scratch *scratch)
{
    Window *halves;
    int most = 1;

    for (int x = 0; x < count; x++)
        most = windows[x].count > most ? windows[x].count : most;
    halves = alloc(count, (size_t)most / 2 + 3, scratch);
    for (int x = 0; x < count && halves != NULL; x++)
        if (windows[x].count > 0)
            window_halve(&halves[x], &windows[x], size, smooth);
    return halves;
}
