/* Any bytes -> the decoder, by libFuzzer: nothing may crash, leak, read or write where it should not, or hang.
 *
 * The last 16 bytes choose the crop; sizes are those of the file's header, so that damaged files get past the check. What
 * our own decoder takes, libjpeg must take as well, and make the same samples of. */
#include "../../imgdata/native/baseline.h"
#include "../../imgdata/native/crop.h"
#include "../../imgdata/native/crop_ready.h"
#include "../../imgdata/native/kernels.h"
#include "../../imgdata/native/thumbnail.h"

#include <stdlib.h>
#include <string.h>

#define TAIL 16
/* Pixels of a header that is followed: larger pictures only take longer. */
#define MOST_PIXELS (1 << 20)

/* The size that the frame header says, segment by segment; 0 where there is none. */
static int find_size(const uint8_t *data, size_t size, int *width, int *height)
{
    for (size_t i = 2; i + 9 < size;) {
        if (data[i] != 0xFF || data[i + 1] == 0xFF) {
            i++;
            continue;
        }
        if (data[i + 1] >= 0xC0 && data[i + 1] <= 0xC2) {
            *height = data[i + 5] << 8 | data[i + 6];
            *width = data[i + 7] << 8 | data[i + 8];
            return *width > 0 && *height > 0 && (long)*width * *height <= MOST_PIXELS;
        }
        i += 2 + (size_t)(data[i + 2] << 8 | data[i + 3]);
    }
    return 0;
}

static Axis axis_from(const uint8_t *tail, int size)
{
    int box = tail[0] * size / 256;

    /* From the picture's own size down to a pixel or two. */
    return (Axis){box, 1 + tail[1] * (size - box - 1) / 255, 1 + (tail[4] & 2 ? tail[2] % 4 : tail[2]), (int8_t)tail[3],
                  tail[4] & 1};
}

/* How many more pieces of memory there are; negative: as many as are wanted. */
static int pieces_left = -1;

void *__real_aligned_alloc(size_t alignment, size_t size);
void *__wrap_aligned_alloc(size_t alignment, size_t size);

void *__wrap_aligned_alloc(size_t alignment, size_t size)
{
    if (pieces_left == 0)
        return NULL;
    pieces_left -= pieces_left > 0;
    return __real_aligned_alloc(alignment, size);
}

/* Without enough memory our own decoder says so, and gives all back. */
static void decode_with_little_memory(const uint8_t *data, size_t size, int width, int height, const Part *part)
{
    Outcome outcome = NO_MEMORY;

    for (int pieces = 0; outcome == NO_MEMORY; pieces++) {
        Planes planes = {0};
        Scratch scratch = scratch_begin();
        pieces_left = pieces;
        outcome = decode_baseline(data, size, width, height, 1, part, AS_LIBJPEG, best_simd(), &planes, &scratch);
        pieces_left = -1;
        scratch_end(&scratch);
        if (pieces > 20)
            abort();
    }
}

/* Samples of `part` in both planes. */
static void compare_plane(const Plane *own, const Plane *other, const Part *part)
{
    int left = (int)(part->left / own->pitch_x), top = (int)(part->top / own->pitch_y);
    size_t columns = (size_t)((part->right - 1) / (int)own->pitch_x + 1 - left);

    if (own->width != other->width || own->height != other->height || own->pitch_x != other->pitch_x ||
        own->pitch_y != other->pitch_y)
        abort();
    for (int y = top; y * own->pitch_y < part->bottom; y++)
        if (memcmp(own->samples + (size_t)(y - own->top) * own->stride + (left - own->left),
                   other->samples + (size_t)(y - other->top) * other->stride + (left - other->left), columns) != 0)
            abort();
}

static void compare(const uint8_t *data, size_t size, const uint8_t *tail, int width, int height)
{
    Part whole = {0, 0, width, height}, part = whole;
    Axis x = axis_from(tail, width), y = axis_from(tail + 5, height);
    int shrink = 1 << (tail[14] & 3), has_part = tail[14] >> 2 & 1;
    Planes own = {0}, other = {0};
    Scratch scratch = scratch_begin();

    if (has_part)
        part = (Part){x.box, y.box, x.box + x.length, y.box + y.length};
    if (decode_baseline(data, size, width, height, shrink, has_part ? &part : NULL, AS_LIBJPEG,
                        (Simd)(tail[13] % (best_simd() + 1)), &own, &scratch) == DONE) {
        if (decode_by_libjpeg(data, size, width, height, shrink, has_part ? &part : NULL, &other, &scratch) != DONE ||
            own.count != other.count)
            abort();
        for (int i = 0; i < own.count; i++)
            compare_plane(&own.plane[i], &other.plane[i], &part);
        if (tail[12] & 1)
            decode_with_little_memory(data, size, width, height, has_part ? &part : NULL);
    }
    scratch_end(&scratch);
}

/* One crop, or two of different places and scales out of one picture. */
static void crop(const uint8_t *data, size_t size, const uint8_t *tail, int width, int height)
{
    static const float SCALE[3] = {0.5f, 1, 2}, SHIFT[3] = {-1, 0, 1};
    Scratch scratch = scratch_begin();
    Shape shape = tail[10] & 1 ? CUBIC : TRIANGLE;
    Crop crops[2] = {{width, height, axis_from(tail, width), axis_from(tail + 5, height), shape, tail[10] >> 1 & 1},
                     {width, height, axis_from(tail + 5, width), axis_from(tail, height), shape, tail[10] >> 1 & 1}};
    Picture picture = {NULL,  (Kind)(tail[11] % 3), tail[10] >> 2 & 1, tail[10] >> 4 & 1 ? 1 : 3, 1 + tail[12] % 64,
                       1 + tail[13] % 64, SCALE, SHIFT};
    Picture pictures[2] = {picture, picture};
    size_t bytes = (size_t)picture.height * (size_t)picture.width * 3 * sizeof(float);

    pictures[0].pixels = malloc(bytes);
    pictures[1].pixels = malloc(bytes);
    if (pictures[0].pixels != NULL && pictures[1].pixels != NULL)
        crop_jpeg(data, size, crops, pictures, 1 + (tail[10] >> 3 & 1), (Simd)(tail[14] % (best_simd() + 1)), &scratch);
    free(pictures[0].pixels);
    free(pictures[1].pixels);
    scratch_end(&scratch);
}

static void transcode(const uint8_t *data, size_t size, int width, int height, int shrink)
{
    Scratch scratch = scratch_begin();
    Planes planes = {0};
    Buffer out = {0};

    if (decode_planes(data, size, width, height, shrink, NULL, best_simd(), &planes, &scratch) == DONE) {
        Plane small = {0};
        if (plane_alloc(&small, 20, 20, 20, 20, &scratch) == DONE)
            resample(&planes.plane[0], &small, planes.plane[0].width / 20.0, planes.plane[0].height / 20.0, best_simd(),
                     &scratch);
        if (shrink == 1)
            encode_planes(&planes, 80, &out);
    }
    free(out.bytes);
    scratch_end(&scratch);
}

static void thumbnail(const uint8_t *data, size_t size, int width, int height, int shortest)
{
    static uint8_t luma[64 * 64], colour[16 * 16 * 3];
    static int32_t levels[LEVELS], edges[LEVELS];
    Scratch scratch = scratch_begin();
    Thumbnail to = {64, 16, luma, colour, levels, edges};

    thumbnail_jpeg(data, size, width, height, shortest, &to, best_simd(), &scratch);
    scratch_end(&scratch);
}

/* The file with restart markers, which libjpeg must read as it reads the original, and the crop of it. */
static void crop_ready(const uint8_t *data, size_t size, const uint8_t *tail, int width, int height)
{
    Buffer out = {0};
    Outcome compared;
    int interval = 0;

    if (make_crop_ready(data, size, tail[11] & 8 ? STRIP : KEEP_ALL, 1 + (tail[12] & 7), &interval, &out) == DONE) {
        if (!have_same_coefficients(data, size, out.bytes, out.size, &compared))
            abort();
        crop(out.bytes, out.size, tail, width, height);
    }
    free(out.bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    int width, height;
    uint8_t *file;

    if (size <= TAIL || !find_size(data, size - TAIL, &width, &height))
        return 0;
    /* In memory of its own, so that reads behind its end are seen; most inputs have lost their end marker. */
    size -= TAIL;
    file = malloc(size + 2);
    if (file == NULL)
        return 0;
    memcpy(file, data, size);
    memcpy(file + size, "\xff\xd9", 2);
    crop(file, size + 2, data + size, width, height);
    compare(file, size + 2, data + size, width, height);
    if (data[size + TAIL - 1] & 16)
        crop_ready(file, size + 2, data + size, width, height);
    if (data[size + TAIL - 1] & 1)
        transcode(file, size + 2, width, height, 1 << (data[size + TAIL - 1] >> 1 & 3));
    else
        thumbnail(file, size + 2, width, height, 1 + (data[size + TAIL - 1] >> 1));
    free(file);
    return 0;
}
