/* One scaled decode -> thumbnails and counts. */
#include "thumbnail.h"
#include "baseline.h"

#include <stdlib.h>
#include <string.h>

/* The largest power of 2 by which the sides can be divided so that the shorter one keeps `shortest` samples. */
static int shrink_of(int width, int height, int shortest)
{
    int shrink = 1, shorter = width < height ? width : height;

    while (shorter / 2 / shrink >= shortest)
        shrink *= 2;
    return shrink;
}

/* Both sides by 2, in place, each sample the mean of four; of two or one at an edge that has no more. */
static void halve(Plane *plane)
{
    int width = (plane->width + 1) / 2, height = (plane->height + 1) / 2;

    for (int y = 0; y < height; y++) {
        const uint8_t *upper = plane->samples + 2 * (size_t)y * plane->stride;
        const uint8_t *lower = 2 * y + 1 < plane->height ? upper + plane->stride : upper;
        uint8_t *to = plane->samples + (size_t)y * plane->stride;
        for (int x = 0; x < width; x++) {
            int right = 2 * x + 1 < plane->width ? 2 * x + 1 : 2 * x;
            to[x] = (uint8_t)((upper[2 * x] + upper[right] + lower[2 * x] + lower[right] + 2) >> 2);
        }
    }
    plane->width = width;
    plane->height = height;
    plane->pitch_x *= 2;
    plane->pitch_y *= 2;
}

/* A whole plane -> `side` x `side` samples. */
static Outcome squash(const Planes *from, int i, int side, Plane *to, Simd simd, Scratch *scratch)
{
    const Plane *plane = &from->plane[i];
    Outcome outcome = plane_alloc(to, side, side, (size_t)side, (size_t)side, scratch);

    /* From edge to edge of the picture: the last sample of a plane may lie half outside. */
    return outcome != DONE ? outcome
                           : resample(plane, to, (double)from->width / (side * plane->pitch_x),
                                      (double)from->height / (side * plane->pitch_y), simd, scratch);
}

static uint8_t clipped(int value)
{
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Sums of 16 bits behind the point, rounded. */
static uint8_t rounded(int y, int parts)
{
    return clipped(y + ((parts + (1 << 15)) >> 16));
}

/* JFIF, ITU-T T.871, section 7. */
static void store_rgb(const Plane plane[3], int count, int side, uint8_t *rgb)
{
    for (int row = 0; row < side; row++)
        for (int x = 0; x < side; x++, rgb += 3) {
            size_t at = (size_t)row * plane[0].stride + (size_t)x;
            int y = plane[0].samples[at], cb = 0, cr = 0;
            if (count == 3) {
                cb = plane[1].samples[at] - 128;
                cr = plane[2].samples[at] - 128;
            }
            rgb[0] = rounded(y, 91881 * cr);
            rgb[1] = rounded(y, -22554 * cb - 46802 * cr);
            rgb[2] = rounded(y, 116130 * cb);
        }
}

static void count_levels(const Plane *plane, int32_t *levels)
{
    /* Neighbours are often equal: with one table, each count would wait for the one before. */
    int32_t odd[LEVELS] = {0};

    memset(levels, 0, LEVELS * sizeof *levels);
    for (int y = 0; y < plane->height; y++) {
        const uint8_t *row = plane->samples + (size_t)y * plane->stride;
        int x = 0;
        for (; x + 1 < plane->width; x += 2) {
            levels[row[x]]++;
            odd[row[x + 1]]++;
        }
        if (x < plane->width)
            levels[row[x]]++;
    }
    for (int i = 0; i < LEVELS; i++)
        levels[i] += odd[i];
}

static void find_edges(const uint8_t *restrict above, const uint8_t *restrict row, const uint8_t *restrict below,
                       uint8_t *restrict strength, int width)
{
    for (int x = 1; x < width - 1; x++) {
        int edge = abs(4 * row[x] - row[x - 1] - row[x + 1] - above[x] - below[x]) >> 1;
        strength[x] = (uint8_t)(edge > 255 ? 255 : edge);
    }
}

static Outcome count_edges(const Plane *plane, int32_t *edges, Scratch *scratch)
{
    uint8_t *strength = scratch_take(scratch, (size_t)plane->width, 1);

    if (strength == NULL)
        return NO_MEMORY;
    memset(edges, 0, LEVELS * sizeof *edges);
    for (int y = 1; y < plane->height - 1; y++) {
        const uint8_t *row = plane->samples + (size_t)y * plane->stride;
        find_edges(row - plane->stride, row, row + plane->stride, strength, plane->width);
        for (int x = 1; x < plane->width - 1; x++)
            edges[strength[x]]++;
    }
    return DONE;
}

Outcome thumbnail_jpeg(const uint8_t *data, size_t size, int width, int height, int shortest, const Thumbnail *to,
                       Simd simd, Scratch *scratch)
{
    Planes planes = {0};
    Plane luma = {0}, small[3] = {{0}};
    int shrink = shrink_of(width, height, shortest), by_dct = shrink < 8 ? shrink : 8;
    Outcome outcome = UNFIT;

    if (by_dct >= 4)
        outcome = decode_baseline(data, size, width, height, by_dct, NULL, AS_LUMA, simd, &planes, scratch);
    if (outcome == UNFIT)
        outcome = decode_planes(data, size, width, height, by_dct, NULL, simd, &planes, scratch);
    for (; by_dct < shrink && outcome == DONE; by_dct *= 2)
        halve(&planes.plane[0]);
    if (outcome == DONE)
        outcome = squash(&planes, 0, to->luma_side, &luma, simd, scratch);
    for (int i = 0; i < planes.count && outcome == DONE; i++)
        outcome = squash(&planes, i, to->colour_side, &small[i], simd, scratch);
    if (outcome == DONE)
        outcome = count_edges(&planes.plane[0], to->edges, scratch);
    if (outcome != DONE)
        return outcome;
    count_levels(&planes.plane[0], to->levels);
    for (int y = 0; y < to->luma_side; y++)
        memcpy(to->luma + (size_t)y * (size_t)to->luma_side, luma.samples + (size_t)y * luma.stride,
               (size_t)to->luma_side);
    store_rgb(small, planes.count, to->colour_side, to->colour);
    return DONE;
}
