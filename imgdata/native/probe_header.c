/* Headers of usual pictures, by the rules of imgdata/images/{jpeg,png,webp,exif}.py: the same verdict, or none. */
#define _GNU_SOURCE
#include "probe_header.h"

#include <string.h>

enum { SOS = 0xDA, EOI = 0xD9, APP1 = 0xE1, APP14 = 0xEE, MAX_SCANS = 100, ORIENTATION = 0x0112 };

static uint32_t big_16(const uint8_t *data)
{
    return (uint32_t)data[0] << 8 | data[1];
}

static uint32_t big_32(const uint8_t *data)
{
    return big_16(data) << 16 | big_16(data + 2);
}

static uint32_t little_16(const uint8_t *data)
{
    return (uint32_t)data[1] << 8 | data[0];
}

static uint32_t little_32(const uint8_t *data)
{
    return little_16(data + 2) << 16 | little_16(data);
}

/* The orientation in the first directory of a TIFF structure; 1 where there is none that is valid. */
static int exif_orientation(const uint8_t *tiff, size_t size)
{
    uint32_t (*number_16)(const uint8_t *), (*number_32)(const uint8_t *);
    size_t directory, count;

    if (size < 8)
        return 1;
    if (memcmp(tiff, "II*\0", 4) == 0) {
        number_16 = little_16;
        number_32 = little_32;
    } else if (memcmp(tiff, "MM\0*", 4) == 0) {
        number_16 = big_16;
        number_32 = big_32;
    } else
        return 1;
    directory = number_32(tiff + 4);
    if (directory + 2 > size)
        return 1;
    count = number_16(tiff + directory);
    for (size_t entry = directory + 2; count > 0 && entry + 12 <= size; entry += 12, count--)
        if (number_16(tiff + entry) == ORIENTATION) {
            uint32_t kind = number_16(tiff + entry + 2);
            uint32_t value = kind == 3 ? number_16(tiff + entry + 8) : number_32(tiff + entry + 8);
            return (kind == 3 || kind == 4) && 1 <= value && value <= 8 ? (int)value : 1;
        }
    return 1;
}

static int has_many_scans(const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size, *at = data;
    int scans = 0;

    while (scans <= MAX_SCANS && (at = memmem(at, (size_t)(end - at), "\xff\xda", 2)) != NULL) {
        scans++;
        at += 2;
    }
    return scans > MAX_SCANS;
}

static int is_frame(uint8_t marker)
{
    return 0xC0 <= marker && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC;
}

static int has_no_length(uint8_t marker)
{
    return marker <= 0x01 || (0xD0 <= marker && marker <= 0xD8);
}

/* `frame` is the payload of the frame's segment; `transform` is -1 where no segment of Adobe's says one. */
static int of_frame(const uint8_t *frame, int orientation, int transform, Probed *header)
{
    int components = frame[5];

    header->height = (int)big_16(frame + 1);
    header->width = (int)big_16(frame + 3);
    header->orientation = orientation;
    if (frame[0] != 8 || header->width == 0 || header->height == 0)
        return 0;
    if (components == 1)
        header->kind = JPEG_L;
    else if (components == 3)
        header->kind = JPEG_RGB;
    else if (components == 4)
        header->kind = transform == 2 ? JPEG_YCCK : JPEG_CMYK;
    else
        return 0;
    return 1;
}

static int probe_jpeg(const uint8_t *data, size_t size, Probed *header)
{
    size_t position = 2;
    const uint8_t *frame = NULL;
    int orientation = 1, exif_seen = 0, transform = -1;

    for (;;) {
        const uint8_t *found = position < size ? memchr(data + position, 0xFF, size - position) : NULL;
        const uint8_t *payload;
        size_t length;
        uint8_t marker;

        if (found == NULL || (position = (size_t)(found - data)) + 1 >= size)
            return 0;
        marker = data[position + 1];
        if (marker == 0xFF) {
            position++;
            continue;
        }
        position += 2;
        if (has_no_length(marker))
            continue;
        if (marker == EOI || position + 2 > size)
            return 0;
        length = big_16(data + position);
        if (length < 2 || position + length > size)
            return 0;
        payload = data + position + 2;
        position += length;
        length -= 2;
        if (is_frame(marker) && frame == NULL) {
            if (length < 6)
                return 0;
            frame = payload;
            if (marker > 0xC1 && has_many_scans(data, size))
                return 0;
            if (frame[5] != 4 || transform >= 0)
                break;
        } else if (marker == APP1 && length < 6) {
            return 0;
        } else if (marker == APP1 && !exif_seen && memcmp(payload, "Exif\0\0", 6) == 0) {
            exif_seen = 1;
            orientation = exif_orientation(payload + 6, length - 6);
        } else if (marker == APP14 && length >= 12 && memcmp(payload, "Adobe", 5) == 0) {
            transform = payload[11];
            if (frame != NULL)
                break;
        }
        if (marker == SOS)
            break;
    }
    return frame != NULL && of_frame(frame, orientation, transform, header);
}

static int probe_png(const uint8_t *data, size_t size, Probed *header)
{
    static const int KINDS[7] = {PNG_L, -1, PNG_RGB, PNG_P, PNG_LA, -1, PNG_RGBA};
    int seen = 0, transparent = 0;

    for (size_t position = 8; position + 8 <= size;) {
        size_t length = big_32(data + position);
        const uint8_t *kind = data + position + 4, *payload = kind + 4;

        if (memcmp(kind, "IDAT", 4) == 0) {
            if (transparent && header->kind == PNG_P)
                header->kind = PNG_PA;
            header->orientation = 1;
            return seen;
        }
        if (length > size - position - 8)
            return 0;
        if (!seen) {
            if (memcmp(kind, "IHDR", 4) != 0 || length != 13 || payload[8] != 8 || payload[9] > 6 ||
                KINDS[payload[9]] < 0 || big_32(payload) > INT32_MAX || big_32(payload + 4) > INT32_MAX)
                return 0;
            header->width = (int)big_32(payload);
            header->height = (int)big_32(payload + 4);
            header->kind = (PictureKind)KINDS[payload[9]];
            if (header->width == 0 || header->height == 0)
                return 0;
            seen = 1;
        } else if (memcmp(kind, "tRNS", 4) == 0)
            transparent = 1;
        else if (memcmp(kind, "acTL", 4) == 0 || memcmp(kind, "eXIf", 4) == 0 || memcmp(kind, "IEND", 4) == 0)
            return 0;
        position += 12 + length;
    }
    return 0;
}

static int probe_webp(const uint8_t *data, size_t size, Probed *header)
{
    int alpha = 0;

    if (size < 30)
        return 0;
    if (memcmp(data + 12, "VP8 ", 4) == 0) {
        if ((data[20] & 1) != 0 || memcmp(data + 23, "\x9d\x01\x2a", 3) != 0)
            return 0;
        header->width = (int)(little_16(data + 26) & 0x3FFF);
        header->height = (int)(little_16(data + 28) & 0x3FFF);
    } else if (memcmp(data + 12, "VP8L", 4) == 0) {
        uint32_t packed = little_32(data + 21);
        if (data[20] != 0x2F)
            return 0;
        header->width = (int)(packed & 0x3FFF) + 1;
        header->height = (int)(packed >> 14 & 0x3FFF) + 1;
        alpha = (int)(packed >> 28 & 1);
    } else
        return 0;
    header->kind = alpha ? WEBP_RGBA : WEBP_RGB;
    header->orientation = 1;
    return header->width > 0 && header->height > 0;
}

int probe_header(const uint8_t *data, size_t size, Probed *header)
{
    if (size >= 2 && data[0] == 0xFF && data[1] == 0xD8)
        return probe_jpeg(data, size, header);
    if (size >= 8 && memcmp(data, "\x89PNG\r\n\x1a\n", 8) == 0)
        return probe_png(data, size, header);
    if (size >= 12 && memcmp(data, "RIFF", 4) == 0 && memcmp(data + 8, "WEBP", 4) == 0)
        return probe_webp(data, size, header);
    return 0;
}
