/* The markers of the scan are looked for, and the header is copied segment by segment: ITU-T T.81, annex B. */
#include "slice.h"
#include "coded.h"

#include <string.h>

/* --- Segments -------------------------------------------------------------------------------------------- */

/* 0 where segments don't end with the rows. */
static int count_segments(const Header *header, Segments *segments)
{
    int across = units(header->width, header->mcu_width);

    if (header->interval == 0 || across % header->interval != 0)
        return 0;
    *segments = (Segments){.per_row = across / header->interval, .rows = units(header->height, header->mcu_height)};
    segments->right = segments->per_row;
    segments->bottom = segments->rows;
    return 1;
}

/* Follow the scan from marker to marker up to its end; where the wanted segments lie goes to `places`, unless that is
 * NULL. 0 where a marker is not the one that must come. */
static int find_places(const uint8_t *at, const uint8_t *end, const Segments *segments, Place *places)
{
    const uint8_t *begin = at;
    unsigned seen = 0;

    for (int row = 0; row < segments->rows; row++)
        for (int column = 0; column < segments->per_row; column++) {
            int is_last = row == segments->rows - 1 && column == segments->per_row - 1;
            at = find_marker(begin, end);
            if (at == NULL || at[1] != (is_last ? EOI : RST0 + (seen++ & 7)))
                return 0;
            if (places != NULL && row >= segments->top && row < segments->bottom && column >= segments->left &&
                column < segments->right)
                *places++ = (Place){begin, at};
            begin = at + 2;
        }
    return 1;
}

/* The segments that cover the part; 0 where that are all. */
static int choose_segments(const Header *header, const Part *part, int shrink, Segments *segments)
{
    Range range = range_of(part, shrink, (Side){header->width, header->interval * header->mcu_width, header->across > 1},
                           (Side){header->height, header->mcu_height, header->down > 1});

    segments->left = range.left;
    segments->top = range.top;
    segments->right = range.right;
    segments->bottom = range.bottom;
    return segments->left > 0 || segments->top > 0 || segments->right < segments->per_row ||
           segments->bottom < segments->rows;
}

static Outcome find_chosen(const uint8_t *data, size_t size, const Header *header, Segments *segments, Scratch *scratch)
{
    size_t count = (size_t)(segments->right - segments->left) * (size_t)(segments->bottom - segments->top);

    /* Each ends with a marker: a header that says more is not worth memory. */
    if ((size_t)segments->per_row * (size_t)segments->rows > size / 2)
        return UNFIT;
    segments->places = scratch_take(scratch, count, sizeof *segments->places);
    if (segments->places == NULL)
        return NO_MEMORY;
    return find_places(data + header->scan, data + size, segments, segments->places) ? DONE : UNFIT;
}

Outcome find_segments(const uint8_t *data, size_t size, const Header *header, int shrink, const Part *part,
                      Segments *segments, Scratch *scratch)
{
    if (!count_segments(header, segments) || !choose_segments(header, part, shrink, segments))
        return UNFIT;
    return find_chosen(data, size, header, segments, scratch);
}

Outcome find_all_segments(const uint8_t *data, size_t size, const Header *header, Segments *segments, Scratch *scratch)
{
    return count_segments(header, segments) ? find_chosen(data, size, header, segments, scratch) : UNFIT;
}

/* --- The small JPEG ---------------------------------------------------------------------------------------- */

/* The segments of the header that decide the pixels -> `out`; how many bytes, and where in them the height is. */
static size_t copy_header(const uint8_t *data, const Header *header, uint8_t *out, size_t *height_at)
{
    size_t copied = 2;

    memcpy(out, data, 2);
    for (size_t at = 2; at < header->scan;) {
        size_t length = (size_t)word(data + at + 2) + 2;
        int marker = data[at + 1];
        if (marker == SOF0 || marker == SOF1)
            *height_at = copied + 5;
        if (marker <= APP0 || marker == APP14) {
            memcpy(out + copied, data + at, length);
            copied += length;
        }
        at += length;
    }
    return copied;
}

/* The segments, with markers that count from 0 again; the last one becomes the end marker. Returns what is behind it. */
static uint8_t *copy_segments(const Segments *segments, uint8_t *to)
{
    int count = (segments->right - segments->left) * (segments->bottom - segments->top);

    for (int i = 0; i < count; i++) {
        size_t length = (size_t)(segments->places[i].end - segments->places[i].begin);
        memcpy(to, segments->places[i].begin, length);
        to += length;
        *to++ = 0xFF;
        *to++ = (uint8_t)(i == count - 1 ? EOI : RST0 + (i & 7));
    }
    return to;
}

static void set_place(const Header *header, const Segments *segments, Slice *slice)
{
    int segment = header->interval * header->mcu_width, right = segments->right * segment;
    int bottom = segments->bottom * header->mcu_height;

    slice->left = segments->left * segment;
    slice->top = segments->top * header->mcu_height;
    slice->width = (right < header->width ? right : header->width) - slice->left;
    slice->height = (bottom < header->height ? bottom : header->height) - slice->top;
}

Outcome slice_jpeg(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part, Slice *slice,
                   Scratch *scratch)
{
    Header header;
    Segments segments;
    Outcome outcome;
    uint8_t *out;
    size_t copied, height_at = 0;

    if (!header_read(data, size, &header) || header.width != width || header.height != height)
        return UNFIT;
    outcome = find_segments(data, size, &header, shrink, part, &segments, scratch);
    if (outcome != DONE)
        return outcome;
    /* Never more than the file. */
    out = scratch_take(scratch, size, 1);
    if (out == NULL)
        return NO_MEMORY;
    copied = copy_header(data, &header, out, &height_at);
    set_place(&header, &segments, slice);
    out[height_at] = (uint8_t)(slice->height >> 8);
    out[height_at + 1] = (uint8_t)slice->height;
    out[height_at + 2] = (uint8_t)(slice->width >> 8);
    out[height_at + 3] = (uint8_t)slice->width;
    slice->data = out;
    slice->size = (size_t)(copy_segments(&segments, out + copied) - out);
    return DONE;
}

int slice_interval(const uint8_t *data, size_t size)
{
    Header header;
    Segments segments;

    if (!header_read(data, size, &header) || !count_segments(&header, &segments))
        return 0;
    return find_places(data + header.scan, data + size, &segments, NULL) ? header.interval : 0;
}
