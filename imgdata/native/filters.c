/* Windows -> integer weights: what rounding leaves over goes to the next weight, so that sums are exact. */
#include "filters.h"

#include <string.h>

/* With the 8 or 14 bits of samples and the overshoot of the filter, sums stay below 2^31. */
#define MAX_PRECISION 21
#define MAX_PRECISION_FINE 15

static void set_weights(int16_t *weights, const Window *window, int precision)
{
    double unit = 1 << precision, rest = 0;

    for (int i = 0; i < window->count; i++) {
        double exact = window->weights[i] * unit + rest;
        weights[i] = (int16_t)(exact < 0 ? exact - 0.5 : exact + 0.5);
        rest = exact - weights[i];
    }
}

/* Memory and form; `taps` becomes a multiple of `group`. */
static Outcome filter_alloc(Filter *filter, const Window *windows, int count, int group, int precision, Scratch *scratch)
{
    int most = 1;
    double largest = 0;
    size_t room = (size_t)count + OUTPUTS_AT_ONCE - 1;

    for (int x = 0; x < count; x++) {
        most = windows[x].count > most ? windows[x].count : most;
        for (int i = 0; i < windows[x].count; i++)
            largest = windows[x].weights[i] > largest ? windows[x].weights[i] : largest;
    }
    *filter = (Filter){.count = count, .taps = (most + group - 1) / group * group, .precision = precision};
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

/* Fewer than `group` samples are read behind the last one. */
static Outcome filter_make(Filter *filter, const Window *windows, int count, int first, int held, int group,
                           int precision, Scratch *scratch)
{
    Outcome outcome = filter_alloc(filter, windows, count, group, precision, scratch);
    int last = held > filter->taps ? held - filter->taps : 0;

    for (int x = 0; x < count && outcome == DONE; x++) {
        /* Windows near the end begin earlier, with weights of 0. */
        int from = windows[x].count > 0 ? windows[x].from - first : 0;
        int start = filter->start[x] = from < last ? from : last;
        set_weights(filter->weights + (size_t)x * (size_t)filter->taps + (from - start), &windows[x],
                    filter->precision);
    }
    return outcome;
}

/* The lowest start of `LANE` results from `x` on; -1 where their samples don't lie within 16 bytes. */
static int lane_base(const Filter *filter, int x)
{
    int low = filter->start[x], high = low;

    for (int i = 1; i < LANE && x + i < filter->count; i++) {
        int start = filter->start[x + i];
        low = start < low ? start : low;
        high = start > high ? start : high;
    }
    return high + filter->taps - low <= 16 ? low : -1;
}

static void set_step(Step *step, const Filter *filter, int x, const int *bases, int tap)
{
    /* Samples go into the lower half of a word, the upper one becomes 0. */
    memset(step, 0, sizeof *step);
    memset(step->places, 0x80, sizeof step->places);
    for (int i = 0; i < OUTPUTS_AT_ONCE && x + i < filter->count; i++)
        for (int t = 0; t < 2; t++) {
            step->places[4 * i + 2 * t] = (uint8_t)(filter->start[x + i] + tap + t - bases[i / LANE]);
            step->weights[2 * i + t] = filter->weights[(size_t)(x + i) * (size_t)filter->taps + (size_t)(tap + t)];
        }
}

/* Fill in `steps`, `bases` and `table`, if the samples lie close enough. */
static Outcome add_steps(Filter *filter, Scratch *scratch)
{
    int steps = filter->taps / 2;
    size_t groups = ((size_t)filter->count + OUTPUTS_AT_ONCE - 1) / OUTPUTS_AT_ONCE;

    if (filter->taps % 2 != 0 || filter->taps > 16)
        return DONE;
    filter->bases = scratch_take(scratch, groups, 2 * sizeof *filter->bases);
    filter->table = scratch_take(scratch, groups, (size_t)steps * sizeof *filter->table);
    if (filter->bases == NULL || filter->table == NULL)
        return NO_MEMORY;
    for (size_t g = 0; g < groups; g++) {
        int x = (int)g * OUTPUTS_AT_ONCE, *bases = filter->bases + 2 * g;
        bases[0] = lane_base(filter, x);
        bases[1] = x + LANE < filter->count ? lane_base(filter, x + LANE) : bases[0];
        if (bases[0] < 0 || bases[1] < 0)
            return DONE;
        for (int s = 0; s < steps; s++)
            set_step(&filter->table[g * (size_t)steps + (size_t)s], filter, x, bases, 2 * s);
    }
    filter->steps = steps;
    return DONE;
}

Outcome filter_along(Filter *filter, const Window *windows, int count, int first, int held, int shuffles,
                     Scratch *scratch)
{
    if (shuffles) {
        Outcome outcome = filter_make(filter, windows, count, first, held, 2, MAX_PRECISION, scratch);
        if (outcome == DONE)
            outcome = add_steps(filter, scratch);
        if (outcome != DONE || filter->steps > 0)
            return outcome;
    }
    return filter_make(filter, windows, count, first, held, TAPS_AT_ONCE, MAX_PRECISION, scratch);
}

Outcome filter_across(Filter *filter, const Window *windows, int count, int first, int held, int fine,
                      Scratch *scratch)
{
    return filter_make(filter, windows, count, first, held, 2, fine ? MAX_PRECISION_FINE : MAX_PRECISION, scratch);
}
