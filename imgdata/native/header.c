/* The header, segment by segment: ITU-T T.81, annex B. What is unusual in any way is left to libjpeg. */
#include "header.h"

#include <string.h>

/* libjpeg takes no more. */
#define MOST_PIXELS 65500

/* What decides the colours of three components. */
typedef struct {
    uint8_t ids[3];
    int is_jfif, is_adobe, transform;
} Colours;

static int read_frame(const uint8_t *at, int length, Header *header, Colours *colours)
{
    if (header->components != 0 || length < 8 || at[0] != 8 || length != 8 + 3 * at[5] || (at[5] != 1 && at[5] != 3))
        return 0;
    header->height = word(at + 1);
    header->width = word(at + 3);
    header->components = at[5];
    header->across = at[7] >> 4;
    header->down = at[7] & 15;
    header->mcu_width = 8 * header->across;
    header->mcu_height = 8 * header->down;
    for (int i = 0; i < header->components; i++) {
        colours->ids[i] = at[6 + 3 * i];
        header->quant_of[i] = at[8 + 3 * i];
    }
    if (header->width == 0 || header->height == 0)
        return 0;
    if (header->components == 1)
        return header->across == 1 && header->down == 1;
    return header->across >= 1 && header->across <= 2 && header->down >= 1 && header->down <= 2 && at[10] == 0x11 &&
           at[13] == 0x11;
}

static void read_quant(const uint8_t *at, int length, Header *header)
{
    while (length > 0) {
        int bytes = 1 + (at[0] >> 4), number = at[0] & 15;
        if (bytes > 2 || number > 3 || length < 1 + 64 * bytes) {
            header->is_clear = 0;
            return;
        }
        header->quant[number] = at + 1;
        header->quant_bytes[number] = bytes;
        at += 1 + 64 * bytes;
        length -= 1 + 64 * bytes;
    }
}

static void read_codes(const uint8_t *at, int length, Header *header)
{
    while (length > 0) {
        int count = 0;
        for (int i = 1; i <= 16 && length > 16; i++)
            count += at[i];
        if (length < 17 || count > 256 || length < 17 + count || at[0] >> 4 > 1 || (at[0] & 15) > 3) {
            header->is_clear = 0;
            return;
        }
        header->codes[at[0] >> 4][at[0] & 15] = at + 1;
        at += 17 + count;
        length -= 17 + count;
    }
}

static int read_scan(const uint8_t *at, int length, Header *header, const Colours *colours)
{
    if (header->components == 0 || length != 6 + 2 * header->components || at[0] != header->components)
        return 0;
    for (int i = 0; i < header->components; i++) {
        int tables = at[2 + 2 * i];
        if (at[1 + 2 * i] != colours->ids[i] || tables >> 4 > 3 || (tables & 15) > 3)
            header->is_clear = 0;
        header->dc_of[i] = (uint8_t)(tables >> 4 & 3);
        header->ac_of[i] = (uint8_t)(tables & 3);
    }
    at += 1 + 2 * header->components;
    if (at[0] != 0 || at[1] != 63 || at[2] != 0)
        header->is_clear = 0;
    return 1;
}

static void read_application(const uint8_t *at, int marker, int length, Header *header, Colours *colours)
{
    if (marker == APP0 && length >= 14 && memcmp(at, "JFIF", 5) == 0) {
        colours->is_jfif = 1;
        /* libjpeg warns of others. */
        if (at[5] != 1)
            header->is_clear = 0;
    } else if (marker == APP14 && length >= 12 && memcmp(at, "Adobe", 5) == 0) {
        colours->is_adobe = 1;
        colours->transform = at[11];
    }
}

/* As in default_decompress_parms of libjpeg. */
static int has_clear_colours(const Header *header, const Colours *colours)
{
    const uint8_t *ids = colours->ids;

    if (header->components == 1)
        return 1;
    if (ids[0] == ids[1] || ids[0] == ids[2] || ids[1] == ids[2])
        return 0;
    if (colours->is_jfif || colours->is_adobe)
        return colours->is_jfif || colours->transform == 1;
    return memcmp(ids, "RGB", 3) != 0;
}

static int has_tables(const Header *header)
{
    for (int i = 0; i < header->components; i++)
        if (header->quant_of[i] > 3 || header->quant[header->quant_of[i]] == NULL ||
            header->codes[0][header->dc_of[i]] == NULL || header->codes[1][header->ac_of[i]] == NULL)
            return 0;
    return header->width <= MOST_PIXELS && header->height <= MOST_PIXELS;
}

int header_read(const uint8_t *data, size_t size, Header *header)
{
    Colours colours = {.is_jfif = 0};
    size_t at = 2;
    int marker = SOI;

    *header = (Header){.is_clear = 1};
    if (size < 4 || data[0] != 0xFF || data[1] != SOI)
        return 0;
    while (marker != SOS) {
        const uint8_t *payload;
        int length;

        if (size - at < 4 || data[at] != 0xFF)
            return 0;
        marker = data[at + 1];
        length = word(data + at + 2);
        payload = data + at + 4;
        if (length < 2 || size - at - 2 < (size_t)length)
            return 0;
        if (marker == SOF0 || marker == SOF1) {
            if (!read_frame(payload, length, header, &colours))
                return 0;
        } else if (marker == DRI) {
            if (length != 4)
                return 0;
            header->interval = word(payload);
        } else if (marker == SOS) {
            if (!read_scan(payload, length, header, &colours))
                return 0;
        } else if (marker == DHT) {
            read_codes(payload, length - 2, header);
        } else if (marker == DQT) {
            read_quant(payload, length - 2, header);
        } else if (APP0 <= marker && marker <= APP15) {
            read_application(payload, marker, length - 2, header, &colours);
        } else if (marker != COM) {
            return 0;
        }
        at += (size_t)length + 2;
    }
    header->scan = at;
    header->is_clear = header->is_clear && has_clear_colours(header, &colours) && has_tables(header);
    return 1;
}
