/* The header is read and copied segment by segment, and the markers of the scan are looked for: ITU-T T.81, annex B. What
 * is unusual in any way is left to libjpeg. */
#include "slice.h"
#include "turbo.h"

#include <string.h>

enum { SOI = 0xD8, EOI = 0xD9, SOS = 0xDA, SOF0 = 0xC0, SOF1 = 0xC1, DHT = 0xC4, DQT = 0xDB, DRI = 0xDD, COM = 0xFE };
enum { APP0 = 0xE0, APP14 = 0xEE, APP15 = 0xEF, RST0 = 0xD0 };

/* What the header says. */
typedef struct {
    int width, height, components;
    int mcu_width, mcu_height; /* pixels */
    int subsampled;
    int interval;
    size_t scan;       /* where the coded data begin */
    size_t copied;     /* bytes of the header that decide the pixels */
    size_t size_at;    /* of the height in what was copied */
} Header;

/* Rows and columns of segments: those of the picture, and those that are wanted. */
typedef struct {
    int per_row, rows;
    int left, top, right, bottom;
} Segments;

static int word(const uint8_t *at)
{
    return at[0] << 8 | at[1];
}

/* --- Header --------------------------------------------------------------------------------------------- */

static int read_frame(const uint8_t *at, int length, Header *header)
{
    int h, v;

    if (header->components != 0 || length < 8 || at[0] != 8 || length != 8 + 3 * at[5] || (at[5] != 1 && at[5] != 3))
        return 0;
    header->height = word(at + 1);
    header->width = word(at + 3);
    header->components = at[5];
    h = at[7] >> 4;
    v = at[7] & 15;
    header->mcu_width = 8 * h;
    header->mcu_height = 8 * v;
    header->subsampled = h > 1 || v > 1;
    if (header->width == 0 || header->height == 0)
        return 0;
    if (header->components == 1)
        return h == 1 && v == 1;
    return h >= 1 && h <= 2 && v >= 1 && v <= 2 && at[10] == 0x11 && at[13] == 0x11;
}

static int is_application_data(int marker)
{
    return (APP0 <= marker && marker <= APP15) || marker == COM;
}

/* 0 for a header that is not plain. Copies to `out`, unless that is NULL, what the pixels depend on. */
static int read_header(const uint8_t *data, size_t size, Header *header, uint8_t *out)
{
    size_t at = 2;

    *header = (Header){.copied = 2};
    if (size < 4 || data[0] != 0xFF || data[1] != SOI)
        return 0;
    if (out != NULL)
        memcpy(out, data, 2);
    for (;;) {
        int marker, length;
        const uint8_t *payload;

        if (size - at < 4 || data[at] != 0xFF)
            return 0;
        marker = data[at + 1];
        length = word(data + at + 2);
        payload = data + at + 4;
        if (length < 2 || size - at - 2 < (size_t)length)
            return 0;
        if (marker == SOF0 || marker == SOF1) {
            if (!read_frame(payload, length, header))
                return 0;
            header->size_at = header->copied + 5;
        } else if (marker == DRI) {
            if (length != 4)
                return 0;
            header->interval = word(payload);
        } else if (marker == SOS) {
            if (header->components == 0 || length != 6 + 2 * header->components || payload[0] != header->components)
                return 0;
        } else if (marker != DHT && marker != DQT && !is_application_data(marker)) {
            return 0;
        }
        if (!is_application_data(marker) || marker == APP0 || marker == APP14) {
            if (out != NULL)
                memcpy(out + header->copied, data + at, (size_t)length + 2);
            header->copied += (size_t)length + 2;
        }
        at += (size_t)length + 2;
        if (marker == SOS)
            break;
    }
    header->scan = at;
    return 1;
}

static int units(int pixels, int unit)
{
    return (pixels + unit - 1) / unit;
}

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

/* --- Scan ------------------------------------------------------------------------------------------------ */

/* Follow the scan from marker to marker up to its end; the segments that are wanted go to `out`, unless that is NULL,
 * with markers that count from 0 again. 0 where a marker is not the one that must come. */
static int copy_segments(const uint8_t *at, const uint8_t *end, const Segments *segments, uint8_t *out, size_t *written)
{
    const uint8_t *begin = at;
    uint8_t *to = out;
    unsigned seen = 0, copied = 0;
    int column = 0, row = 0;

    while (at < end && (at = memchr(at, 0xFF, (size_t)(end - at))) != NULL && at + 1 < end) {
        int is_last = row == segments->rows - 1 && column == segments->per_row - 1;

        if (at[1] == 0) {
            at += 2;
            continue;
        }
        if (at[1] != (is_last ? EOI : RST0 + (seen++ & 7)))
            return 0;
        if (out != NULL && row >= segments->top && row < segments->bottom && column >= segments->left &&
            column < segments->right) {
            memcpy(to, begin, (size_t)(at - begin));
            to += at - begin;
            *to++ = 0xFF;
            *to++ = (uint8_t)(RST0 + (copied++ & 7));
        }
        if (is_last) {
            if (out != NULL)
                to[-1] = EOI;
            *written = (size_t)(to - out);
            return 1;
        }
        begin = at += 2;
        if (++column == segments->per_row) {
            column = 0;
            row++;
        }
    }
    return 0;
}

/* The segments that cover the part; 0 where that are all. */
static int choose_segments(const Header *header, const Part *part, int shrink, Segments *segments)
{
    int reach = header->subsampled ? 2 * shrink : 0, segment = header->interval * header->mcu_width;
    int left = part->left - reach, top = part->top - reach;

    segments->left = left > 0 ? left / segment : 0;
    segments->top = top > 0 ? top / header->mcu_height : 0;
    segments->right = units(part->right + reach, segment);
    segments->bottom = units(part->bottom + reach, header->mcu_height);
    if (segments->right > segments->per_row)
        segments->right = segments->per_row;
    if (segments->bottom > segments->rows)
        segments->bottom = segments->rows;
    return segments->left > 0 || segments->top > 0 || segments->right < segments->per_row ||
           segments->bottom < segments->rows;
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
    uint8_t *out;
    size_t written;

    if (!read_header(data, size, &header, NULL) || header.width != width || header.height != height)
        return UNFIT;
    if (!count_segments(&header, &segments) || !choose_segments(&header, part, shrink, &segments))
        return UNFIT;
    /* The last marker becomes the end marker: never more than the file. */
    out = scratch_take(scratch, size, 1);
    if (out == NULL)
        return NO_MEMORY;
    if (!copy_segments(data + header.scan, data + size, &segments, out + header.copied, &written))
        return UNFIT;
    read_header(data, size, &header, out);
    set_place(&header, &segments, slice);
    out[header.size_at] = (uint8_t)(slice->height >> 8);
    out[header.size_at + 1] = (uint8_t)slice->height;
    out[header.size_at + 2] = (uint8_t)(slice->width >> 8);
    out[header.size_at + 3] = (uint8_t)slice->width;
    slice->data = out;
    slice->size = header.copied + written;
    return DONE;
}

int slice_interval(const uint8_t *data, size_t size)
{
    Header header;
    Segments segments;
    size_t written;

    if (!read_header(data, size, &header, NULL) || !count_segments(&header, &segments))
        return 0;
    return copy_segments(data + header.scan, data + size, &segments, NULL, &written) ? header.interval : 0;
}
