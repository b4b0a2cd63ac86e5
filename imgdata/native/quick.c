/* Huffman codes -> the few coefficients that a small picture needs -> samples.
 *
 * libjpeg reads the header. At a high quality, nine tenths of its time then go into Huffman codes. Here stuffed bytes are
 * taken out first, so that eight bytes are read at once, and a table gives for the next bits one or two whole symbols:
 * runs, values and length. What is longer takes a slower way. */
#include "quick.h"
#include "huffman.h"

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* A block reads no more bytes than this: 64 symbols of 31 bits, and a refill. */
#define PADDING 512
#define UNUSED_16 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64

/* Where the coefficients of a scan go; behind the last one to a place that is not used. */
static const uint8_t ORDER[64 + 9 * 16] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45,
    38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16};

/* --- Blocks ---------------------------------------------------------------------------------------------------- */

static inline Outcome read_dc(Reader *reader, const Table *table, int64_t *last)
{
    Symbol symbol;

    refill(reader);
    symbol = table->symbols[reader->bits >> (64 - LOOKUP_DC)];
    if (LIKELY(symbol.skip > 0)) {
        drop(reader, symbol.skip);
        *last += number_at(reader->bits, symbol.value);
        drop(reader, symbol.value);
        return DONE;
    }
    symbol = long_symbol(reader, table, symbol, 1);
    *last += symbol.value;
    return symbol.length > 0 ? DONE : UNFIT;
}

/* The coefficients behind the first -> `block`, if there is one; it has room for 64 and one that is not used. */
static inline Outcome read_block(Reader *reader, const Table *table, int16_t *block)
{
    /* What has no address stays in registers. */
    Reader own = *reader;
    int at = 1;

    for (;;) {
        refill(&own);
        for (int i = 0; i < LOOKUPS_AT_ONCE; i++) {
            Pair pair = table->pairs[own.bits >> (64 - LOOKUP_AC)];
            if (LIKELY(pair.length > 0)) {
                if (block != NULL && !LIKELY(pair.value != NUMBER_BEHIND))
                    pair.value = pair.next_value =
                        (int16_t)number_at(own.bits << (pair.next_value >> 4), pair.next_value & 15);
                at += pair.skip;
                if (block != NULL)
                    block[ORDER[at - 1]] = pair.value;
                if (at >= 64) {
                    drop(&own, pair.length);
                    goto end;
                }
                at += pair.next_skip;
                if (block != NULL)
                    block[ORDER[at - 1]] = pair.next_value;
                drop(&own, pair.both);
            } else {
                Reader copy = own;
                Symbol symbol = long_symbol(&copy, table, (Symbol){pair.value, pair.skip, 0}, 0);
                own = copy;
                if (symbol.length == 0)
                    return UNFIT;
                at += symbol.skip;
                if (block != NULL)
                    block[ORDER[at - 1]] = symbol.value;
                /* It may have taken more bits than a lookup has. */
                i = LOOKUPS_AT_ONCE;
            }
            if (at >= 64)
                goto end;
        }
    }
end:
    *reader = own;
    /* A block that is full has no end; more than full is damaged. */
    return at == 64 || (at > BLOCK_END && at < BLOCK_END + 64) ? DONE : UNFIT;
}

static inline uint8_t sample_of(int64_t value)
{
    value += 128;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static inline int64_t descaled(int64_t value, int bits)
{
    return (value + ((int64_t)1 << (bits - 1))) >> bits;
}

/* Cosines times square roots, in steps of 2^-13. These, the shifts and the 16 bits of a coefficient are those of
 * jpeg_idct_2x2 in libjpeg-turbo. */
#define ONE 29692
#define THREE (-10426)
#define FIVE 6967
#define SEVEN (-5906)

/* Columns -> the means of their upper and lower half, in steps of 2^-2; columns 2, 4 and 6 are not used. */
#ifdef __SSE2__
static inline void quarter_columns(const int16_t *block, const uint16_t *quant, int32_t *upper, int32_t *lower)
{
#define ROW(i) \
    _mm_mullo_epi16(_mm_loadu_si128((const __m128i *)(block + 8 * (i))), _mm_loadu_si128((const __m128i *)(quant + 8 * (i))))
    const __m128i first = _mm_set1_epi32((int)((uint32_t)THREE << 16 | ONE));
    const __m128i second = _mm_set1_epi32((int)((uint32_t)SEVEN << 16 | FIVE));
    const __m128i half = _mm_set1_epi32(1 << 12), zero = _mm_setzero_si128();
    __m128i row[5] = {ROW(0), ROW(1), ROW(3), ROW(5), ROW(7)};
    __m128i even[2] = {_mm_unpacklo_epi16(zero, row[0]), _mm_unpackhi_epi16(zero, row[0])};
    __m128i odd[2] = {_mm_add_epi32(_mm_madd_epi16(_mm_unpacklo_epi16(row[1], row[2]), first),
                                    _mm_madd_epi16(_mm_unpacklo_epi16(row[3], row[4]), second)),
                      _mm_add_epi32(_mm_madd_epi16(_mm_unpackhi_epi16(row[1], row[2]), first),
                                    _mm_madd_epi16(_mm_unpackhi_epi16(row[3], row[4]), second))};

    for (int i = 0; i < 2; i++) {
        __m128i rounded = _mm_add_epi32(_mm_srai_epi32(even[i], 1), half);
        _mm_storeu_si128((__m128i *)upper + i, _mm_srai_epi32(_mm_add_epi32(rounded, odd[i]), 13));
        _mm_storeu_si128((__m128i *)lower + i, _mm_srai_epi32(_mm_sub_epi32(rounded, odd[i]), 13));
    }
#undef ROW
}
#else
static inline void quarter_columns(const int16_t *block, const uint16_t *quant, int32_t *upper, int32_t *lower)
{
#define VALUE(row) ((int64_t)(int16_t)(block[8 * (row) + x] * quant[8 * (row) + x]))
    for (int x = 0; x < 8; x++) {
        int64_t even = VALUE(0) * (1 << 15);
        int64_t odd = ONE * VALUE(1) + THREE * VALUE(3) + FIVE * VALUE(5) + SEVEN * VALUE(7);
        upper[x] = (int32_t)descaled(even + odd, 13);
        lower[x] = (int32_t)descaled(even - odd, 13);
    }
#undef VALUE
}
#endif

/* Of 8 x 8 samples the means of the quarters. */
static void quarter_block(const int16_t *block, const uint16_t *quant, uint8_t *to, size_t stride)
{
    int32_t half[2][8];

    quarter_columns(block, quant, half[0], half[1]);
    for (int y = 0; y < 2; y++, to += stride) {
        const int32_t *row = half[y];
        int64_t even = (int64_t)row[0] * (1 << 15);
        int64_t odd = (int64_t)ONE * row[1] + (int64_t)THREE * row[3] + (int64_t)FIVE * row[5] + (int64_t)SEVEN * row[7];
        to[0] = sample_of(descaled(even + odd, 20));
        to[1] = sample_of(descaled(even - odd, 20));
    }
}

/* --- The scan -------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint16_t *quant;
    Table *dc, *ac;
    int across, down; /* blocks of one MCU */
    int block_side;   /* samples of a block's side: 1 or 2 */
    int64_t last_dc;
} Component;

static Outcome read_component(Reader *reader, const uint8_t *end, Component *component, Plane *plane, int column, int row)
{
    int16_t block[65];
    int side = component->block_side;

    for (int y = 0; y < component->down; y++)
        for (int x = 0; x < component->across; x++) {
            uint8_t *to = plane->samples + (size_t)((row * component->down + y) * side) * plane->stride +
                          (size_t)((column * component->across + x) * side);
            Outcome outcome;
            if (reader->next > end || read_dc(reader, component->dc, &component->last_dc) != DONE)
                return UNFIT;
            if (side == 1) {
                outcome = read_block(reader, component->ac, NULL);
                to[0] = sample_of(descaled((int16_t)component->last_dc * (int64_t)component->quant[0], 3));
            } else {
                memset(block, 0, sizeof block);
                outcome = read_block(reader, component->ac, block);
                block[0] = (int16_t)component->last_dc;
                quarter_block(block, component->quant, to, plane->stride);
            }
            if (outcome != DONE)
                return outcome;
        }
    return DONE;
}

/* Coded bytes up to the next marker -> the same without stuffed ones, and PADDING. Returns what is behind the marker;
 * NULL where the file ends before, or has fill bytes. */
static const uint8_t *next_segment(const uint8_t *from, const uint8_t *end, uint8_t *to, size_t *length, uint8_t *marker)
{
    uint8_t *start = to;

    for (;;) {
        const uint8_t *at = memchr(from, 0xFF, (size_t)(end - from));
        if (at == NULL || at + 1 >= end || at[1] == 0xFF)
            return NULL;
        memcpy(to, from, (size_t)(at - from));
        to += at - from;
        from = at + 2;
        if (at[1] != 0) {
            *marker = at[1];
            *length = (size_t)(to - start);
            memset(to, 0, PADDING);
            return from;
        }
        *to++ = 0xFF;
    }
}

/* Whether all bytes of a segment were used, and none behind. */
static int is_used_up(const Reader *reader, const uint8_t *start, size_t length)
{
    int64_t used = 8 * (int64_t)(reader->next - start) - reader->count, left = 8 * (int64_t)length - used;

    return left >= 0 && left < 8;
}

static Outcome read_scan(const struct jpeg_decompress_struct *cinfo, Component *components, Planes *planes,
                         Scratch *scratch)
{
    const uint8_t *from = cinfo->src->next_input_byte, *end = from + cinfo->src->bytes_in_buffer;
    uint8_t *bytes = scratch_take(scratch, cinfo->src->bytes_in_buffer + PADDING, 1);
    int across = components[0].across * DCTSIZE, down = components[0].down * DCTSIZE;
    int columns = ((int)cinfo->image_width + across - 1) / across, rows = ((int)cinfo->image_height + down - 1) / down;
    unsigned left = 0, restarts = 0;
    uint8_t marker = JPEG_RST0 - 1;
    size_t length = 0;
    Reader reader = {bytes, 0, 0};

    if (bytes == NULL)
        return NO_MEMORY;
    for (int row = 0; row < rows; row++)
        for (int column = 0; column < columns; column++, left--) {
            if (left == 0) {
                if (restarts > 0 && (marker != JPEG_RST0 + (restarts - 1) % 8 || !is_used_up(&reader, bytes, length)))
                    return UNFIT;
                from = next_segment(from, end, bytes, &length, &marker);
                if (from == NULL)
                    return UNFIT;
                reader = (Reader){bytes, 0, 0};
                restarts++;
                left = cinfo->restart_interval > 0 ? cinfo->restart_interval : (unsigned)(rows * columns) + 1;
                for (int i = 0; i < planes->count; i++)
                    components[i].last_dc = 0;
            }
            for (int i = 0; i < planes->count; i++) {
                Outcome outcome =
                    read_component(&reader, bytes + length + 8, &components[i], &planes->plane[i], column, row);
                if (outcome != DONE)
                    return outcome;
            }
        }
    return marker == JPEG_EOI && is_used_up(&reader, bytes, length) ? DONE : UNFIT;
}

/* --- The picture ------------------------------------------------------------------------------------------------- */

static int is_plain_scan(const struct jpeg_decompress_struct *cinfo)
{
    if (cinfo->progressive_mode || cinfo->comps_in_scan != cinfo->num_components || cinfo->Ss != 0 || cinfo->Se != 63 ||
        cinfo->Ah != 0 || cinfo->Al != 0)
        return 0;
    for (int i = 0; i < cinfo->num_components; i++)
        if (cinfo->cur_comp_info[i] != &cinfo->comp_info[i] || cinfo->comp_info[i].dc_tbl_no > 3 ||
            cinfo->comp_info[i].ac_tbl_no > 3 || cinfo->comp_info[i].quant_tbl_no > 3 ||
            cinfo->quant_tbl_ptrs[cinfo->comp_info[i].quant_tbl_no] == NULL)
            return 0;
    return 1;
}

static Outcome set_component(const struct jpeg_decompress_struct *cinfo, int i, int shrink, Table *tables[8],
                             Component *component, Plane *plane, Scratch *scratch)
{
    const jpeg_component_info *c = &cinfo->comp_info[i];
    /* A single component has no MCUs of its own: its blocks stand alone. */
    int across = cinfo->num_components == 1 ? 1 : c->h_samp_factor, down = cinfo->num_components == 1 ? 1 : c->v_samp_factor;
    int most_across = cinfo->num_components == 1 ? 1 : cinfo->max_h_samp_factor;
    int most_down = cinfo->num_components == 1 ? 1 : cinfo->max_v_samp_factor;
    int side = i == 0 ? DCTSIZE / shrink : 1, numbers[2] = {c->dc_tbl_no, 4 + c->ac_tbl_no};
    int pixels_across = DCTSIZE * most_across, pixels_down = DCTSIZE * most_down;
    int columns = ((int)cinfo->image_width + pixels_across - 1) / pixels_across;
    int rows = ((int)cinfo->image_height + pixels_down - 1) / pixels_down;

    for (int which = 0; which < 2; which++) {
        Table **table = &tables[numbers[which]];
        if (*table != NULL)
            continue;
        if ((*table = scratch_take(scratch, 1, sizeof **table)) == NULL)
            return NO_MEMORY;
        if (set_table(*table, (which == 0 ? cinfo->dc_huff_tbl_ptrs : cinfo->ac_huff_tbl_ptrs)[numbers[which] % 4],
                      which == 0) != DONE)
            return UNFIT;
    }
    *component = (Component){cinfo->quant_tbl_ptrs[c->quant_tbl_no]->quantval, tables[numbers[0]], tables[numbers[1]],
                             across, down, side, 0};
    plane->pitch_x = (double)pixels_across / (across * side);
    plane->pitch_y = (double)pixels_down / (down * side);
    return plane_alloc(plane, ((int)cinfo->image_width * across * side + pixels_across - 1) / pixels_across,
                       ((int)cinfo->image_height * down * side + pixels_down - 1) / pixels_down,
                       (size_t)columns * (size_t)(across * side), (size_t)rows * (size_t)(down * side), scratch);
}

/* A function of its own, so that nothing that the jump could spoil lives in its frame. */
static Outcome decode(struct jpeg_decompress_struct *cinfo, Jump *jump, const uint8_t *data, size_t size, int width,
                      int height, int shrink, Planes *planes, Scratch *scratch)
{
    Table *tables[8] = {NULL};
    Component components[3];

    if (setjmp(jump->back))
        return UNFIT;
    jpeg_create_decompress(cinfo);
    jpeg_mem_src(cinfo, (unsigned char *)data, (unsigned long)size);
    jpeg_read_header(cinfo, TRUE);
    if (!has_planes(cinfo) || !is_plain_scan(cinfo) || cinfo->image_width != (JDIMENSION)width ||
        cinfo->image_height != (JDIMENSION)height)
        return UNFIT;
    planes->count = cinfo->num_components;
    planes->width = width;
    planes->height = height;
    for (int i = 0; i < planes->count; i++) {
        Outcome outcome = set_component(cinfo, i, shrink, tables, &components[i], &planes->plane[i], scratch);
        if (outcome != DONE)
            return outcome;
    }
    return read_scan(cinfo, components, planes, scratch);
}

Outcome decode_quick(const uint8_t *data, size_t size, int width, int height, int shrink, Planes *planes,
                     Scratch *scratch)
{
    struct jpeg_decompress_struct cinfo;
    Jump jump;
    Outcome outcome;

    memset(&cinfo, 0, sizeof cinfo);
    cinfo.err = jump_on_faults(&jump);
    outcome = decode(&cinfo, &jump, data, size, width, height, shrink, planes, scratch);
    jpeg_destroy_decompress(&cinfo);
    return outcome;
}
