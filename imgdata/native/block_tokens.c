/* Quantised coefficients -> tokens, block by block, with a mask of the coefficients that are not 0. */
#include "blocks.h"
#include "tokens.h"

#include <stdint.h>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

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

static int put_block(const JCOEF *block, int last_dc, int table, Tokens *tokens)
{
    JCOEF values[DCTSIZE2];
    int before = 0;

    if (!put_dc(tokens, table, block[0] - last_dc))
        return 0;
    for (int i = 0; i < DCTSIZE2; i++)
        values[i] = block[ORDER[i + 1]];
    for (uint64_t mask = mask_of(values) & ~(uint64_t)1; mask != 0; mask &= mask - 1) {
        int at = __builtin_ctzll(mask), zeros = at - before - 1, value = values[at];
        int bits = 32 - __builtin_clz((unsigned)(value < 0 ? -value : value));
        if (bits > AC_BITS)
            return 0;
        for (; zeros > 15; zeros -= 16)
            put_ac(tokens, table, SIXTEEN_ZEROS, 0);
        put_ac(tokens, table, zeros << 4 | bits, (uint32_t)(value - (value < 0)) & ((1u << bits) - 1));
        before = at;
    }
    if (before < DCTSIZE2 - 1)
        put_ac(tokens, table, END_OF_BLOCK, 0);
    return 1;
}

static int put_share(const Share *share, JBLOCKARRAY lines, int column, int row, int *last_dc, Tokens *tokens)
{
    for (int y = 0; y < share->down; y++)
        for (int x = column * share->across; x < (column + 1) * share->across; x++) {
            if (!is_inside(share, x, row * share->down + y)) {
                put_empty_block(tokens, share->table);
                continue;
            }
            if (!put_block(lines[y][x], *last_dc, share->table, tokens))
                return 0;
            *last_dc = lines[y][x][0];
        }
    return 1;
}

Outcome read_block_tokens(struct jpeg_decompress_struct *from, jvirt_barray_ptr *coefficients, const Grid *grid,
                          Tokens *tokens, Scratch *scratch)
{
    JBLOCKARRAY lines[3];
    int last_dc[3] = {0};
    /* A block has 64 symbols at most, or fewer and its end. */
    Outcome outcome = tokens_begin(tokens, grid, DCTSIZE2 * blocks_of(grid), scratch);

    if (outcome != DONE)
        return outcome;
    for (int row = 0; row < grid->rows; row++) {
        for (int i = 0; i < grid->count; i++)
            lines[i] = from->mem->access_virt_barray((j_common_ptr)from, coefficients[i],
                                                     (JDIMENSION)(row * grid->share[i].down),
                                                     (JDIMENSION)grid->share[i].down, FALSE);
        for (int column = 0; column < grid->columns; column++) {
            for (int i = 0; i < grid->count; i++)
                if (!put_share(&grid->share[i], lines[i], column, row, &last_dc[i], tokens))
                    return UNFIT;
            if (is_last_of_segment(grid, column, row)) {
                end_segment(tokens);
                last_dc[0] = last_dc[1] = last_dc[2] = 0;
            }
        }
    }
    return DONE;
}
