/* What libjpeg-turbo writes before the coded data: ITU-T T.81, annex B. */
#include "blocks.h"
#include "header.h"
#include "write_tokens.h"

#include <string.h>

static uint8_t *put_word(uint8_t *to, unsigned value)
{
    *to++ = (uint8_t)(value >> 8);
    *to++ = (uint8_t)value;
    return to;
}

static uint8_t *put_marker(uint8_t *to, int marker, unsigned length)
{
    *to++ = 0xFF;
    *to++ = (uint8_t)marker;
    return put_word(to, length);
}

/* `is_wide` where a step has 16 bits: baseline JPEG has not. */
static uint8_t *put_steps(uint8_t *to, const JQUANT_TBL *table, int number, int *is_wide)
{
    int wide = 0;

    for (int i = 0; i < DCTSIZE2; i++)
        wide |= table->quantval[i] > 255;
    to = put_marker(to, DQT, wide ? 3 + 2 * DCTSIZE2 : 3 + DCTSIZE2);
    *to++ = (uint8_t)(number | wide << 4);
    for (int i = 0; i < DCTSIZE2; i++) {
        unsigned step = table->quantval[ORDER[i + 1]];
        if (wide)
            to = put_word(to, step);
        else
            *to++ = (uint8_t)step;
    }
    *is_wide |= wide;
    return to;
}

uint8_t *put_frame(uint8_t *to, const struct jpeg_decompress_struct *from)
{
    int is_wide = 0, put[NUM_QUANT_TBLS] = {0};

    for (int i = 0; i < from->num_components; i++) {
        int number = from->comp_info[i].quant_tbl_no;
        if (!put[number])
            to = put_steps(to, from->quant_tbl_ptrs[number], number, &is_wide);
        put[number] = 1;
    }
    to = put_marker(to, is_wide ? SOF1 : SOF0, 8 + 3 * (unsigned)from->num_components);
    *to++ = 8; /* bits */
    to = put_word(to, from->image_height);
    to = put_word(to, from->image_width);
    *to++ = (uint8_t)from->num_components;
    for (int i = 0; i < from->num_components; i++) {
        const jpeg_component_info *component = &from->comp_info[i];
        *to++ = (uint8_t)component->component_id;
        *to++ = (uint8_t)(component->h_samp_factor << 4 | component->v_samp_factor);
        *to++ = (uint8_t)component->quant_tbl_no;
    }
    return to;
}

static uint8_t *put_codes(uint8_t *to, const JHUFF_TBL *table, int number)
{
    unsigned symbols = 0;

    for (int length = 1; length <= 16; length++)
        symbols += table->bits[length];
    to = put_marker(to, DHT, 19 + symbols);
    *to++ = (uint8_t)number;
    memcpy(to, table->bits + 1, 16);
    memcpy(to + 16, table->huffval, symbols);
    return to + 16 + symbols;
}

uint8_t *put_scan_header(uint8_t *to, const struct jpeg_decompress_struct *from, const Grid *grid,
                         const JHUFF_TBL dc[TABLES], const JHUFF_TBL ac[TABLES])
{
    int put[TABLES] = {0};

    for (int i = 0; i < grid->count; i++) {
        int table = grid->share[i].table;
        if (!put[table]) {
            to = put_codes(to, &dc[table], table);
            to = put_codes(to, &ac[table], table | 0x10);
        }
        put[table] = 1;
    }
    to = put_marker(to, DRI, 4);
    to = put_word(to, (unsigned)grid->interval);
    to = put_marker(to, SOS, 6 + 2 * (unsigned)grid->count);
    *to++ = (uint8_t)grid->count;
    for (int i = 0; i < grid->count; i++) {
        *to++ = (uint8_t)from->comp_info[i].component_id;
        *to++ = (uint8_t)(grid->share[i].table << 4 | grid->share[i].table);
    }
    *to++ = 0;
    *to++ = DCTSIZE2 - 1;
    *to++ = 0;
    return to;
}
