/* Symbols are counted block by block, with a mask of the coefficients that are not 0; lengths follow from the counts as in
 * ITU-T T.81, annex K.2. */
#include "best_tables.h"

#include <stdint.h>
#include <string.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

#define SYMBOLS 256
/* One more symbol keeps the code of ones alone free. */
#define RESERVED SYMBOLS
#define LONGEST_BASELINE 16
#define LONGEST 32
/* Bits of a coefficient and of a difference of two that there are codes for. */
#define AC_BITS 10
#define DC_BITS 11
#define SIXTEEN_ZEROS 0xF0
#define END_OF_BLOCK 0

typedef struct {
    long dc[NUM_HUFF_TBLS][SYMBOLS + 1], ac[NUM_HUFF_TBLS][SYMBOLS + 1];
} Counts;

/* Zigzag position -> place in a block. */
static const uint8_t PLACES[DCTSIZE2] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28,
    35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63};

/* --- Counting ------------------------------------------------------------------------------------------- */

static int bits_of(int value)
{
    unsigned size = (unsigned)(value < 0 ? -value : value);

    return size == 0 ? 0 : 32 - __builtin_clz(size);
}

/* Bit i is set where value i is not 0. */
static uint64_t mask_of(const JCOEF values[DCTSIZE2])
{
    uint64_t mask = 0;

#if defined(__SSE2__)
    for (int i = 0; i < DCTSIZE2; i += 16) {
        __m128i low = _mm_loadu_si128((const __m128i *)(values + i));
        __m128i high = _mm_loadu_si128((const __m128i *)(values + i + 8));
        __m128i zero = _mm_cmpeq_epi8(_mm_packs_epi16(low, high), _mm_setzero_si128());
        mask |= (uint64_t)(uint16_t)~_mm_movemask_epi8(zero) << i;
    }
#else
    for (int i = 0; i < DCTSIZE2; i++)
        mask |= (uint64_t)(values[i] != 0) << i;
#endif
    return mask;
}

static int count_block(const JCOEF *block, int last_dc, long *dc, long *ac)
{
    JCOEF values[DCTSIZE2];
    int bits = bits_of(block[0] - last_dc), before = 0;
    uint64_t mask;

    if (bits > DC_BITS)
        return 0;
    dc[bits]++;
    for (int i = 0; i < DCTSIZE2; i++)
        values[i] = block[PLACES[i]];
    for (mask = mask_of(values) & ~(uint64_t)1; mask != 0; mask &= mask - 1) {
        int at = __builtin_ctzll(mask), zeros = at - before - 1;
        bits = bits_of(values[at]);
        if (bits > AC_BITS)
            return 0;
        for (; zeros > 15; zeros -= 16)
            ac[SIXTEEN_ZEROS]++;
        ac[zeros << 4 | bits]++;
        before = at;
    }
    if (before < DCTSIZE2 - 1)
        ac[END_OF_BLOCK]++;
    return 1;
}

/* Blocks of one component in one MCU; a component alone has one. */
typedef struct {
    JDIMENSION across, down;     /* blocks of an MCU */
    JDIMENSION columns, rows;    /* MCUs of the picture */
} Grid;

static Grid grid_of(const struct jpeg_decompress_struct *from, const jpeg_component_info *component)
{
    JDIMENSION width = (JDIMENSION)(from->max_h_samp_factor * DCTSIZE), height = (JDIMENSION)(from->max_v_samp_factor * DCTSIZE);

    if (from->num_components == 1)
        return (Grid){1, 1, component->width_in_blocks, component->height_in_blocks};
    return (Grid){(JDIMENSION)component->h_samp_factor, (JDIMENSION)component->v_samp_factor,
                  (from->image_width + width - 1) / width, (from->image_height + height - 1) / height};
}

static int count_component(struct jpeg_decompress_struct *from, int i, jvirt_barray_ptr blocks, unsigned interval,
                           long *dc, long *ac)
{
    const jpeg_component_info *component = &from->comp_info[i];
    Grid grid = grid_of(from, component);
    int last_dc = 0;
    unsigned to_go = interval;

    for (JDIMENSION row = 0; row < grid.rows; row++) {
        JBLOCKARRAY lines =
            from->mem->access_virt_barray((j_common_ptr)from, blocks, row * grid.down, grid.down, FALSE);
        for (JDIMENSION column = 0; column < grid.columns; column++, to_go--) {
            if (to_go == 0) {
                last_dc = 0;
                to_go = interval;
            }
            for (JDIMENSION y = 0; y < grid.down; y++)
                for (JDIMENSION x = column * grid.across; x < (column + 1) * grid.across; x++) {
                    if (x < component->width_in_blocks && row * grid.down + y < component->height_in_blocks) {
                        if (!count_block(lines[y][x], last_dc, dc, ac))
                            return 0;
                        last_dc = lines[y][x][0];
                    } else {
                        /* Behind the picture's edge libjpeg repeats the last one without details. */
                        dc[0]++;
                        ac[END_OF_BLOCK]++;
                    }
                }
        }
    }
    return 1;
}

/* --- Tables --------------------------------------------------------------------------------------------- */

/* Of `present`, the symbol that occurs least and is not `but`; of several, the last. -1: there is none. */
static int rarest(const long *counts, const int *present, int number, int but)
{
    int found = -1;

    for (int i = 0; i < number; i++) {
        int symbol = present[i];
        if (symbol != but && counts[symbol] > 0 && (found < 0 || counts[symbol] <= counts[found]))
            found = symbol;
    }
    return found;
}

/* The two rarest trees become one, until one is left; `counts` is used up. 0 where a code is too long. */
static int set_lengths(long *counts, int *lengths)
{
    int next[SYMBOLS + 1], present[SYMBOLS + 1], number = 0;

    for (int symbol = 0; symbol <= SYMBOLS; symbol++) {
        lengths[symbol] = 0;
        next[symbol] = -1;
        if (counts[symbol] > 0)
            present[number++] = symbol;
    }
    for (;;) {
        int one = rarest(counts, present, number, -1), other = rarest(counts, present, number, one), end;
        if (other < 0)
            return 1;
        counts[one] += counts[other];
        counts[other] = 0;
        for (end = one; next[end] >= 0; end = next[end])
            ;
        next[end] = other;
        for (int symbol = one; symbol >= 0; symbol = next[symbol])
            if (++lengths[symbol] > LONGEST)
                return 0;
    }
}

static int set_table(JHUFF_TBL *table, long *counts)
{
    int lengths[SYMBOLS + 1], codes[LONGEST + 1] = {0}, number = 0, length;

    counts[RESERVED] = 1;
    if (!set_lengths(counts, lengths))
        return 0;
    for (int symbol = 0; symbol <= SYMBOLS; symbol++)
        codes[lengths[symbol]]++;
    /* Two of the longest codes go: one takes the place of their prefix, the other shares one of a shorter code. */
    for (length = LONGEST; length > LONGEST_BASELINE; length--)
        while (codes[length] > 0) {
            int shorter = length - 2;
            while (codes[shorter] == 0)
                shorter--;
            codes[length] -= 2;
            codes[length - 1]++;
            codes[shorter + 1] += 2;
            codes[shorter]--;
        }
    while (codes[length] == 0)
        length--;
    codes[length]--; /* the reserved one */
    memset(table->bits, 0, sizeof table->bits);
    for (length = 1; length <= LONGEST_BASELINE; length++)
        table->bits[length] = (UINT8)codes[length];
    for (length = 1; length <= LONGEST; length++)
        for (int symbol = 0; symbol < SYMBOLS; symbol++)
            if (lengths[symbol] == length)
                table->huffval[number++] = (UINT8)symbol;
    table->sent_table = FALSE;
    return 1;
}

static int set_table_at(struct jpeg_compress_struct *to, JHUFF_TBL **table, long *counts)
{
    if (*table == NULL)
        *table = jpeg_alloc_huff_table((j_common_ptr)to);
    return set_table(*table, counts);
}

int set_best_tables(struct jpeg_compress_struct *to, struct jpeg_decompress_struct *from, jvirt_barray_ptr *coefficients)
{
    Counts counts;

    memset(&counts, 0, sizeof counts);
    for (int i = 0; i < from->num_components; i++) {
        const jpeg_component_info *component = &to->comp_info[i];
        if (!count_component(from, i, coefficients[i], to->restart_interval, counts.dc[component->dc_tbl_no],
                             counts.ac[component->ac_tbl_no]))
            return 0;
    }
    for (int i = 0; i < from->num_components; i++) {
        int dc = to->comp_info[i].dc_tbl_no, ac = to->comp_info[i].ac_tbl_no, is_set = 0;
        for (int j = 0; j < i; j++)
            is_set |= to->comp_info[j].dc_tbl_no == dc;
        if (is_set)
            continue;
        if (!set_table_at(to, &to->dc_huff_tbl_ptrs[dc], counts.dc[dc]) ||
            !set_table_at(to, &to->ac_huff_tbl_ptrs[ac], counts.ac[ac]))
            return 0;
    }
    return 1;
}
