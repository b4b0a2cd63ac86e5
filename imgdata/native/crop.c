/* Header -> filters -> planes of the part -> rows of colour. Chroma is interpolated, resized and cropped by one filter,
 * the product of all three, so that it costs no more than its own few samples; colours are made last, where pixels are
 * fewest. */
#include "crop.h"
#include "filters.h"
#include "kernels.h"

#include <string.h>

/* The DCT may halve the sides as long as this many samples remain for a pixel: beyond it the filter is not antialiased as
 * the full picture's would be. */
#define SAMPLES_LEFT 3

/* --- One axis ------------------------------------------------------------------------------------------ */

static int axis_fits(const Axis *axis, int size)
{
    return 0 <= axis->box && 1 <= axis->length && axis->length <= size - axis->box && 1 <= axis->resized;
}

/* Which pixel of the resized part output `x` shows; -1: none. */
static int shown(const Axis *axis, int count, int mirrored, int x)
{
    long place = (long)(axis->reversed ? count - 1 - x : x) + axis->offset, last = axis->resized - 1;

    if (0 <= place && place <= last)
        return (int)place;
    if (!mirrored)
        return -1;
    if (last == 0)
        return 0;
    place %= 2 * last;
    place = place < 0 ? place + 2 * last : place;
    return (int)(place <= last ? place : 2 * last - place);
}

/* Windows of `count` outputs on the samples of a row of `size` pixels, whose sides the DCT divided by `shrink`. */
static Window *axis_windows(const Axis *axis, int count, int size, int shrink, const Crop *crop, Scratch *scratch)
{
    double scale = (double)axis->length / axis->resized, stretch = scale / shrink > 1 ? scale / shrink : 1;
    int low = axis->box / shrink, high = (axis->box + axis->length + shrink - 1) / shrink;
    int samples = (size + shrink - 1) / shrink;
    Window *windows = windows_alloc(count, crop->shape, stretch, scratch);

    for (int x = 0; x < count && windows != NULL; x++) {
        int place = shown(axis, count, crop->mirrored, x);
        if (place >= 0)
            window_at(&windows[x], crop->shape, (axis->box + (place + 0.5) * scale) / shrink, stretch, low,
                      high < samples ? high : samples);
    }
    return windows;
}

/* From the first to behind the last sample of all windows; 0 and 0 where there is none. */
static void reach_of(const Window *windows, int count, int *from, int *until)
{
    *from = *until = 0;
    for (int x = 0; x < count; x++) {
        if (windows[x].count == 0)
            continue;
        if (*until == 0 || windows[x].from < *from)
            *from = windows[x].from;
        if (windows[x].from + windows[x].count > *until)
            *until = windows[x].from + windows[x].count;
    }
}

static int axis_shrinks(const Axis *axis, int shrink)
{
    return axis->length >= SAMPLES_LEFT * shrink * (long)axis->resized;
}

static int shrink_of(const Crop *crop)
{
    int shrink = 8;

    while (shrink > 1 && !(axis_shrinks(&crop->x, shrink) && axis_shrinks(&crop->y, shrink)))
        shrink /= 2;
    return shrink;
}

/* --- Planes -> fine rows ------------------------------------------------------------------------------- */

/* A plane resized along its rows, and what makes rows of the picture from it. */
typedef struct {
    int16_t *narrow; /* `height` rows, `stride` samples from one to the next */
    size_t stride;
    int height;
    Filter along, down;
    const int16_t **rows; /* as many as `down.taps` */
    int16_t *fine;        /* one row of the picture */
} Column;

/* `x` and `y` are windows on this plane's own samples. A column that is `like` it has its filters. */
static Outcome column_make(Column *column, const Plane *plane, const Window *x, const Window *y, const Column *like,
                           const Picture *picture, const Kernels *kernels, Scratch *scratch)
{
    Outcome outcome = DONE;
    int left, right, from, until, width = picture->width;

    reach_of(x, width, &left, &right);
    reach_of(y, picture->height, &from, &until);
    column->height = until - from;
    column->stride = ((size_t)width + ROW_PADDING + 15) / 16 * 16;
    if (like != NULL) {
        column->along = like->along;
        column->down = like->down;
    } else {
        outcome = filter_along(&column->along, x, width, plane->left, right > 0 ? right - plane->left : 1,
                               kernels->shuffles, scratch);
    }
    if (outcome == DONE && like == NULL)
        outcome = filter_across(&column->down, y, picture->height, from, column->height, 1, scratch);
    if (outcome != DONE)
        return outcome;
    column->narrow = scratch_take(scratch, (size_t)column->height, column->stride * sizeof *column->narrow);
    column->rows = scratch_take(scratch, (size_t)column->down.taps, sizeof *column->rows);
    column->fine = scratch_take(scratch, column->stride, sizeof *column->fine);
    if (column->narrow == NULL || column->rows == NULL || column->fine == NULL)
        return NO_MEMORY;
    for (int row = from; row < until; row++)
        kernels->along_row_fine(plane->samples + (size_t)(row - plane->top) * plane->stride,
                                column->narrow + (size_t)(row - from) * column->stride, &column->along);
    return DONE;
}

static void column_row(const Column *column, int y, int width, const Kernels *kernels)
{
    const Filter *down = &column->down;

    for (int i = 0; i < down->taps; i++) {
        int row = down->start[y] + i;
        column->rows[i] = column->narrow + (size_t)(row < column->height ? row : column->height - 1) * column->stride;
    }
    kernels->across_rows_fine(column->rows, down->weights + (size_t)y * (size_t)down->taps, down->taps,
                              down->precision, column->fine, width);
}

/* One `Column` for each plane. Chroma at half resolution has windows of its own. */
static Outcome columns_make(Column columns[3], const Planes *planes, int shrink, const Window *x, const Window *y,
                            const Picture *picture, const Kernels *kernels, Scratch *scratch)
{
    const Plane *luma = &planes->plane[0], *chroma = &planes->plane[1];
    Outcome outcome = column_make(&columns[0], luma, x, y, NULL, picture, kernels, scratch);
    int halved_x, halved_y, smooth;

    if (planes->count == 1 || outcome != DONE)
        return outcome;
    halved_x = chroma->pitch_x > luma->pitch_x;
    halved_y = chroma->pitch_y > luma->pitch_y;
    /* When libjpeg's "fancy upsampling" interpolates. */
    smooth = shrink < 8 && (!halved_x || chroma->width > 2);
    if (halved_x && (x = windows_halved(x, picture->width, chroma->width, smooth, scratch)) == NULL)
        return NO_MEMORY;
    if (halved_y && (y = windows_halved(y, picture->height, chroma->height, smooth, scratch)) == NULL)
        return NO_MEMORY;
    for (int i = 1; i < 3 && outcome == DONE; i++)
        outcome = column_make(&columns[i], &planes->plane[i], x, y, i == 2 ? &columns[1] : NULL, picture, kernels, scratch);
    return outcome;
}

/* --- Pictures ------------------------------------------------------------------------------------------ */

static void blacken(const Rows *rows, const Window *x, int width)
{
    for (int i = 0; i < width; i++)
        if (x[i].count == 0)
            rows->rgb[0][i] = rows->rgb[1][i] = rows->rgb[2][i] = 0;
}

static Outcome draw(const Column columns[3], int count, const Window *x, const Window *y, const Picture *picture,
                    const Kernels *kernels, Simd simd, Scratch *scratch)
{
    Rows rows;
    int margins = 0;

    if (rows_alloc(&rows, picture, scratch) != DONE)
        return NO_MEMORY;
    for (int i = 0; i < picture->width; i++)
        margins |= x[i].count == 0;
    for (int row = 0; row < picture->height; row++) {
        if (y[row].count > 0) {
            for (int i = 0; i < count; i++)
                column_row(&columns[i], row, picture->width, kernels);
            if (picture->channels == 1)
                row_to_gray(columns[0].fine, &rows, picture->width);
            else
                row_to_rgb(columns[0].fine, count == 3 ? columns[1].fine : NULL, columns[2].fine, &rows, picture->width,
                           simd);
        } else {
            for (int c = 0; c < 3; c++)
                memset(rows.rgb[c], 0, (size_t)picture->width);
        }
        if (margins)
            blacken(&rows, x, picture->width);
        row_store(&rows, picture, row, simd);
    }
    return DONE;
}

/* What a crop needs of the picture: samples of the planes, and their pixels. */
typedef struct {
    int shrink;
    Window *x, *y;
    Part part;
} Need;

static Outcome need_of(Need *need, const Crop *crop, const Picture *picture, Scratch *scratch)
{
    Part *part = &need->part;
    int shrink;

    if (!axis_fits(&crop->x, crop->width) || !axis_fits(&crop->y, crop->height))
        return UNFIT;
    need->shrink = shrink = shrink_of(crop);
    need->x = axis_windows(&crop->x, picture->width, crop->width, shrink, crop, scratch);
    need->y = axis_windows(&crop->y, picture->height, crop->height, shrink, crop, scratch);
    if (need->x == NULL || need->y == NULL)
        return NO_MEMORY;
    reach_of(need->x, picture->width, &part->left, &part->right);
    reach_of(need->y, picture->height, &part->top, &part->bottom);
    /* All of it may be margin; the header is read all the same. */
    *part = (Part){part->left * shrink, part->top * shrink, (part->right > 0 ? part->right : 1) * shrink,
                   (part->bottom > 0 ? part->bottom : 1) * shrink};
    part->right = part->right < crop->width ? part->right : crop->width;
    part->bottom = part->bottom < crop->height ? part->bottom : crop->height;
    return DONE;
}

/* The smallest part with all those that need this `shrink`; 0 where none does. */
static int part_of_all(const Need *needs, int count, int shrink, Part *all)
{
    int found = 0;

    for (int i = 0; i < count; i++) {
        const Part *part = &needs[i].part;
        if (needs[i].shrink != shrink)
            continue;
        if (found++ == 0)
            *all = *part;
        all->left = part->left < all->left ? part->left : all->left;
        all->top = part->top < all->top ? part->top : all->top;
        all->right = part->right > all->right ? part->right : all->right;
        all->bottom = part->bottom > all->bottom ? part->bottom : all->bottom;
    }
    return found;
}

/* In memory of its own: that of one picture after the other is the same, and stays in the cache. */
static Outcome make_picture(const Planes *planes, const Need *need, const Picture *picture, Simd simd)
{
    Kernels kernels = kernels_of(simd);
    Column columns[3] = {0};
    Scratch scratch = scratch_begin();
    Outcome outcome = columns_make(columns, planes, need->shrink, need->x, need->y, picture, &kernels, &scratch);

    if (outcome == DONE)
        outcome = draw(columns, planes->count, need->x, need->y, picture, &kernels, simd, &scratch);
    scratch_end(&scratch);
    return outcome;
}

Outcome crop_jpeg(const uint8_t *data, size_t size, const Crop *crops, const Picture *pictures, int count, Simd simd,
                  Scratch *scratch)
{
    Need *needs = scratch_take(scratch, (size_t)count, sizeof *needs);
    Outcome outcome = needs != NULL ? DONE : NO_MEMORY;

    for (int i = 0; i < count && outcome == DONE; i++)
        outcome = need_of(&needs[i], &crops[i], &pictures[i], scratch);
    for (int shrink = 1; shrink <= 8 && outcome == DONE; shrink *= 2) {
        Planes planes = {.luma_only = pictures->channels == 1};
        Part part;
        if (!part_of_all(needs, count, shrink, &part))
            continue;
        outcome = decode_planes(data, size, crops->width, crops->height, shrink, &part, simd, &planes, scratch);
        for (int i = 0; i < count && outcome == DONE; i++)
            if (needs[i].shrink == shrink)
                outcome = make_picture(&planes, &needs[i], &pictures[i], simd);
    }
    return outcome;
}
