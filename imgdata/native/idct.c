/* The methods of jidctint.c and jidctred.c, in the 16 and 32 bits of libjpeg-turbo's vector code, with its short way for
 * blocks of one row: numbers that no encoder writes overflow alike. */
#include "idct.h"
#include "processor.h"

#include <string.h>

#ifdef HAVE_X86
#include <immintrin.h>
#endif

static int16_t saturated(int32_t value)
{
    return (int16_t)(value < INT16_MIN ? INT16_MIN : value > INT16_MAX ? INT16_MAX : value);
}

static uint8_t sample_of(int32_t value)
{
    value += 128;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static int32_t descaled(int32_t value, int bits)
{
    return (value + (1 << (bits - 1))) >> bits;
}

/* --- 8 x 8 ------------------------------------------------------------------------------------------------------ */

/* In the order of the file: these are in the first four rows and columns. */
#define UPPER_COEFFICIENTS 10

/* Every coefficient but the first is 0: all samples are the same. */
static void flat_block(const Block *block, const uint16_t *quant, size_t stride)
{
    int16_t value = (int16_t)((uint16_t)(block->coefficients[0] * quant[0]) << 2);
    uint64_t eight = sample_of(descaled(value, 5)) * UINT64_C(0x0101010101010101);
    uint8_t *to = block->to;

    for (int y = 0; y < 8; y++, to += stride)
        memcpy(to, &eight, sizeof eight);
}

#ifdef HAVE_X86

#define V __m128i
#define P(operation) _mm_##operation
#define ZERO _mm_setzero_si128()
#define NAME(name) name##_sse2
#define TARGET __attribute__((unused))
#include "idct_lanes.h"
#undef V
#undef P
#undef ZERO
#undef NAME
#undef TARGET
#define V __m256i
#define P(operation) _mm256_##operation
#define ZERO _mm256_setzero_si256()
#define NAME(name) name##_avx2
#define TARGET __attribute__((target("avx2"), unused))
#include "idct_lanes.h"

static inline __m128i row_at(const void *from, int i)
{
    return _mm_loadu_si128((const __m128i *)from + i);
}

static void store_rows(const __m128i rows[4], uint8_t *to, size_t stride)
{
    for (int i = 0; i < 4; i++, to += 2 * stride) {
        _mm_storel_epi64((__m128i *)to, rows[i]);
        _mm_storeh_pd((double *)(void *)(to + stride), _mm_castsi128_pd(rows[i]));
    }
}

/* Whether these bits are all 0. */
static inline int is_zero(__m128i bits)
{
    return _mm_movemask_epi8(_mm_cmpeq_epi8(bits, _mm_setzero_si128())) == 0xFFFF;
}

static void eight_sse2(const Block *block, const uint16_t *quant, size_t stride)
{
    __m128i row[8], rows[4], below = _mm_setzero_si128();

    for (int i = 0; i < 8; i++) {
        row[i] = row_at(block->coefficients, i);
        below = i > 0 ? _mm_or_si128(below, row[i]) : below;
        row[i] = _mm_mullo_epi16(row[i], row_at(quant, i));
    }
    if (is_zero(below)) {
        for (int i = 7; i >= 0; i--)
            row[i] = _mm_slli_epi16(row[0], 2);
    } else {
        pass_sse2(row, 11);
    }
    transpose_sse2(row);
    pass_sse2(row, 18);
    bytes_sse2(row, rows);
    store_rows(rows, block->to, stride);
}

#define WITH_AVX2 __attribute__((target("avx2")))

/* Of two blocks the first `count` rows, one in each half of the registers. 0 where one of them has no more than a row. */
WITH_AVX2 static inline int load_two(const Block *block, const uint16_t *quant, int count, __m256i *row)
{
    __m256i below = _mm256_setzero_si256();

    for (int i = 0; i < count; i++) {
        row[i] = _mm256_inserti128_si256(_mm256_castsi128_si256(row_at(block[0].coefficients, i)),
                                         row_at(block[1].coefficients, i), 1);
        below = i > 0 ? _mm256_or_si256(below, row[i]) : below;
        row[i] = _mm256_mullo_epi16(row[i], _mm256_broadcastsi128_si256(row_at(quant, i)));
    }
    return !is_zero(_mm256_castsi256_si128(below)) && !is_zero(_mm256_extracti128_si256(below, 1));
}

WITH_AVX2 static inline void store_two(const Block *block, const __m256i *row, size_t stride)
{
    __m256i rows[4];

    bytes_avx2(row, rows);
    for (int i = 0; i < 4; i++) {
        __m128i first = _mm256_castsi256_si128(rows[i]), second = _mm256_extracti128_si256(rows[i], 1);
        uint8_t *to[2] = {block[0].to + (size_t)(2 * i) * stride, block[1].to + (size_t)(2 * i) * stride};
        _mm_storel_epi64((__m128i *)to[0], first);
        _mm_storeh_pd((double *)(void *)(to[0] + stride), _mm_castsi128_pd(first));
        _mm_storel_epi64((__m128i *)to[1], second);
        _mm_storeh_pd((double *)(void *)(to[1] + stride), _mm_castsi128_pd(second));
    }
}

WITH_AVX2 static void two_eights_avx2(const Block *block, const uint16_t *quant, size_t stride)
{
    __m256i row[8];
    int are_upper = block[0].count <= UPPER_COEFFICIENTS && block[1].count <= UPPER_COEFFICIENTS;

    if (!load_two(block, quant, are_upper ? 4 : 8, row)) {
        eight_sse2(&block[0], quant, stride);
        eight_sse2(&block[1], quant, stride);
        return;
    }
    if (are_upper) {
        upper_first_pass_avx2(row, 11);
        transpose_avx2(row);
        upper_second_pass_avx2(row, 18);
    } else {
        pass_avx2(row, 11);
        transpose_avx2(row);
        pass_avx2(row, 18);
    }
    store_two(block, row, stride);
}

static __m128i weights(int first, int second)
{
    return _mm_set1_epi32((int)((uint32_t)second << 16 | (uint16_t)first));
}

/* Four columns of sums -> four outputs of each; `first` are their first numbers in the upper halves of words. */
static inline void four_pass(__m128i first, __m128i r26, __m128i r15, __m128i r37, int shift, __m128i to[4])
{
    __m128i half = _mm_set1_epi32(1 << (shift - 1)), count = _mm_cvtsi32_si128(shift);
    __m128i one = _mm_srai_epi32(first, 2), two = _mm_madd_epi16(r26, weights(15137, -6270));
    __m128i odd0 = _mm_add_epi32(_mm_madd_epi16(r15, weights(8697, 11893)), _mm_madd_epi16(r37, weights(-17799, -1730)));
    __m128i odd2 = _mm_add_epi32(_mm_madd_epi16(r15, weights(20995, -4926)), _mm_madd_epi16(r37, weights(7373, -4176)));
    __m128i even0 = _mm_add_epi32(_mm_add_epi32(one, two), half), even2 = _mm_add_epi32(_mm_sub_epi32(one, two), half);

    to[0] = _mm_sra_epi32(_mm_add_epi32(even0, odd2), count);
    to[3] = _mm_sra_epi32(_mm_sub_epi32(even0, odd2), count);
    to[1] = _mm_sra_epi32(_mm_add_epi32(even2, odd0), count);
    to[2] = _mm_sra_epi32(_mm_sub_epi32(even2, odd0), count);
}

static void four_sse2(const Block *block, const uint16_t *quant, size_t stride)
{
    __m128i row[8], low[4], high[4], to[4], zero = _mm_setzero_si128(), below = zero;
    uint8_t *at = block->to;

    for (int i = 0; i < 8; i++) {
        row[i] = row_at(block->coefficients, i);
        below = i % 4 > 0 ? _mm_or_si128(below, row[i]) : below;
        row[i] = _mm_mullo_epi16(row[i], row_at(quant, i));
    }
    four_pass(_mm_unpacklo_epi16(zero, row[0]), _mm_unpacklo_epi16(row[2], row[6]), _mm_unpacklo_epi16(row[1], row[5]),
              _mm_unpacklo_epi16(row[3], row[7]), 12, low);
    four_pass(_mm_unpackhi_epi16(zero, row[0]), _mm_unpackhi_epi16(row[2], row[6]), _mm_unpackhi_epi16(row[1], row[5]),
              _mm_unpackhi_epi16(row[3], row[7]), 12, high);
    for (int i = 3; i >= 0; i--)
        row[i] = is_zero(below) ? _mm_slli_epi16(row[0], 2) : _mm_packs_epi32(low[i], high[i]);
    /* Columns 0 and 1, 2 and 3, 4 and 5, 6 and 7. */
    for (int i = 0; i < 2; i++) {
        low[i] = i == 0 ? _mm_unpacklo_epi16(row[0], row[1]) : _mm_unpackhi_epi16(row[0], row[1]);
        high[i] = i == 0 ? _mm_unpacklo_epi16(row[2], row[3]) : _mm_unpackhi_epi16(row[2], row[3]);
        to[2 * i] = _mm_unpacklo_epi32(low[i], high[i]);
        to[2 * i + 1] = _mm_unpackhi_epi32(low[i], high[i]);
    }
    four_pass(_mm_unpacklo_epi16(zero, to[0]), _mm_unpacklo_epi16(to[1], to[3]), _mm_unpackhi_epi16(to[0], to[2]),
              _mm_unpackhi_epi16(to[1], to[3]), 19, low);
    row[0] = _mm_packs_epi16(_mm_packs_epi32(low[0], low[1]), _mm_packs_epi32(low[2], low[3]));
    for (int i = 0; i < 2; i++)
        row[0] = _mm_unpacklo_epi8(row[0], _mm_srli_si128(row[0], 8));
    row[0] = _mm_add_epi8(row[0], _mm_set1_epi8(-128));
    for (int y = 0; y < 4; y++, at += stride, row[0] = _mm_srli_si128(row[0], 4)) {
        int four = _mm_cvtsi128_si32(row[0]);
        memcpy(at, &four, sizeof four);
    }
}

#endif

/* Coefficients that are not 0 in the rows of a block which `rows` has bits of. */
static int has_rows(const int16_t *block, unsigned rows)
{
    for (int i = 0; i < 64; i++)
        if (block[i] != 0 && rows >> i / 8 & 1)
            return 1;
    return 0;
}

/* One column of eight numbers, `apart` from each other. */
static void eight_pass(const int16_t *from, int apart, int shift, int16_t *to)
{
#define AT(i) from[(i) * apart]
    int32_t sum = (int32_t)(int16_t)(AT(0) + AT(4)) * 8192, difference = (int32_t)(int16_t)(AT(0) - AT(4)) * 8192;
    int32_t even3 = AT(2) * (4433 + 6270) + AT(6) * 4433, even2 = AT(2) * 4433 + AT(6) * (4433 - 15137);
    int16_t a = (int16_t)(AT(7) + AT(3)), b = (int16_t)(AT(5) + AT(1));
    int32_t z3 = a * (9633 - 16069) + b * 9633, z4 = a * 9633 + b * (9633 - 3196);
    uint32_t even[4] = {(uint32_t)sum + (uint32_t)even3, (uint32_t)difference + (uint32_t)even2,
                        (uint32_t)difference - (uint32_t)even2, (uint32_t)sum - (uint32_t)even3};
    uint32_t odd[4] = {(uint32_t)(AT(7) * -7373 + AT(1) * (12299 - 7373)) + (uint32_t)z4,
                       (uint32_t)(AT(5) * -20995 + AT(3) * (25172 - 20995)) + (uint32_t)z3,
                       (uint32_t)(AT(5) * (16819 - 20995) + AT(3) * -20995) + (uint32_t)z4,
                       (uint32_t)(AT(7) * (2446 - 7373) + AT(1) * -7373) + (uint32_t)z3};

    for (int i = 0; i < 4; i++) {
        uint32_t rounded = even[i] + (1u << (shift - 1));
        to[i] = saturated((int32_t)(rounded + odd[i]) >> shift);
        to[7 - i] = saturated((int32_t)(rounded - odd[i]) >> shift);
    }
#undef AT
}

static void eight_scalar(const Block *block, const uint16_t *quant, size_t stride)
{
    int16_t values[64], columns[64], row[8];
    uint8_t *to = block->to;

    for (int i = 0; i < 64; i++)
        values[i] = (int16_t)(block->coefficients[i] * quant[i]);
    for (int x = 0; x < 8; x++)
        if (has_rows(block->coefficients, 0xFE))
            eight_pass(values + x, 8, 11, columns + 8 * x);
        else
            for (int i = 0; i < 8; i++)
                columns[8 * x + i] = (int16_t)((uint16_t)values[x] << 2);
    for (int y = 0; y < 8; y++, to += stride) {
        eight_pass(columns + y, 8, 18, row);
        for (int x = 0; x < 8; x++)
            to[x] = sample_of(row[x]);
    }
}

/* --- 4 x 4 ------------------------------------------------------------------------------------------------------ */

static void four_pass_scalar(const int16_t *from, int apart, int shift, int16_t *to)
{
#define AT(i) from[(i) * apart]
    uint32_t one = (uint32_t)(AT(0) * 16384), two = (uint32_t)(AT(2) * 15137 + AT(6) * -6270), half = 1u << (shift - 1);
    uint32_t odd0 = (uint32_t)(AT(1) * 8697 + AT(5) * 11893) + (uint32_t)(AT(3) * -17799 + AT(7) * -1730);
    uint32_t odd2 = (uint32_t)(AT(1) * 20995 + AT(5) * -4926) + (uint32_t)(AT(3) * 7373 + AT(7) * -4176);

    to[0] = saturated((int32_t)(one + two + half + odd2) >> shift);
    to[3] = saturated((int32_t)(one + two + half - odd2) >> shift);
    to[1] = saturated((int32_t)(one - two + half + odd0) >> shift);
    to[2] = saturated((int32_t)(one - two + half - odd0) >> shift);
#undef AT
}

static void four_scalar(const Block *block, const uint16_t *quant, size_t stride)
{
    int16_t values[64], columns[32], row[4];
    uint8_t *to = block->to;

    for (int i = 0; i < 64; i++)
        values[i] = (int16_t)(block->coefficients[i] * quant[i]);
    for (int x = 0; x < 8; x++)
        if (has_rows(block->coefficients, 0xEE))
            four_pass_scalar(values + x, 8, 12, columns + 4 * x);
        else
            for (int i = 0; i < 4; i++)
                columns[4 * x + i] = (int16_t)((uint16_t)values[x] << 2);
    for (int y = 0; y < 4; y++, to += stride) {
        four_pass_scalar(columns + y, 4, 19, row);
        for (int x = 0; x < 4; x++)
            to[x] = sample_of(row[x]);
    }
}

/* --- 2 x 2 and 1 x 1 ---------------------------------------------------------------------------------------------- */

/* Cosines times square roots, in steps of 2^-13, as in jpeg_idct_2x2. */
#define ONE 29692
#define THREE (-10426)
#define FIVE 6967
#define SEVEN (-5906)

/* Columns -> the means of their upper and lower half, in steps of 2^-2; columns 2, 4 and 6 are not used. The first column is
 * not cut to 16 bits, and `firsts` has its means. */
static void quarter_columns_scalar(const int16_t *block, const uint16_t *quant, int16_t halves[2][8], int32_t firsts[2])
{
#define VALUE(row) ((int16_t)(block[8 * (row) + x] * quant[8 * (row) + x]))
    for (int x = 0; x < 8; x++) {
        uint32_t even = (uint32_t)(VALUE(0) * (1 << 15)) + (1 << 12);
        uint32_t odd = (uint32_t)(ONE * VALUE(1) + THREE * VALUE(3)) + (uint32_t)(FIVE * VALUE(5) + SEVEN * VALUE(7));
        int32_t upper = (int32_t)(even + odd) >> 13, lower = (int32_t)(even - odd) >> 13;
        halves[0][x] = saturated(upper);
        halves[1][x] = saturated(lower);
        firsts[0] = x == 0 ? upper : firsts[0];
        firsts[1] = x == 0 ? lower : firsts[1];
    }
#undef VALUE
}

#ifdef HAVE_X86
static inline void quarter_columns_sse2(const int16_t *block, const uint16_t *quant, int16_t halves[2][8],
                                        int32_t firsts[2])
{
#define ROW(i) _mm_mullo_epi16(row_at(block, i), row_at(quant, i))
    const __m128i half = _mm_set1_epi32(1 << 12), zero = _mm_setzero_si128();
    __m128i row[5] = {ROW(0), ROW(1), ROW(3), ROW(5), ROW(7)}, sums[2], differences[2];
    __m128i even[2] = {_mm_unpacklo_epi16(zero, row[0]), _mm_unpackhi_epi16(zero, row[0])};
    __m128i odd[2] = {_mm_add_epi32(_mm_madd_epi16(_mm_unpacklo_epi16(row[1], row[2]), weights(ONE, THREE)),
                                    _mm_madd_epi16(_mm_unpacklo_epi16(row[3], row[4]), weights(FIVE, SEVEN))),
                      _mm_add_epi32(_mm_madd_epi16(_mm_unpackhi_epi16(row[1], row[2]), weights(ONE, THREE)),
                                    _mm_madd_epi16(_mm_unpackhi_epi16(row[3], row[4]), weights(FIVE, SEVEN)))};

    for (int i = 0; i < 2; i++) {
        __m128i rounded = _mm_add_epi32(_mm_srai_epi32(even[i], 1), half);
        sums[i] = _mm_srai_epi32(_mm_add_epi32(rounded, odd[i]), 13);
        differences[i] = _mm_srai_epi32(_mm_sub_epi32(rounded, odd[i]), 13);
    }
    _mm_storeu_si128((__m128i *)halves[0], _mm_packs_epi32(sums[0], sums[1]));
    _mm_storeu_si128((__m128i *)halves[1], _mm_packs_epi32(differences[0], differences[1]));
    firsts[0] = _mm_cvtsi128_si32(sums[0]);
    firsts[1] = _mm_cvtsi128_si32(differences[0]);
#undef ROW
}
#endif

static void two_block(const Block *block, const uint16_t *quant, size_t stride, Simd simd)
{
    int16_t halves[2][8];
    int32_t firsts[2];
    uint8_t *to = block->to;

#ifdef HAVE_X86
    if (simd != SCALAR)
        quarter_columns_sse2(block->coefficients, quant, halves, firsts);
    else
#endif
        quarter_columns_scalar(block->coefficients, quant, halves, firsts);
    (void)simd;
    for (int y = 0; y < 2; y++, to += stride) {
        const int16_t *row = halves[y];
        uint32_t even = ((uint32_t)firsts[y] << 15) + (1 << 19);
        uint32_t odd = (uint32_t)(ONE * row[1] + THREE * row[3]) + (uint32_t)(FIVE * row[5] + SEVEN * row[7]);
        to[0] = sample_of((int32_t)(even + odd) >> 20);
        to[1] = sample_of((int32_t)(even - odd) >> 20);
    }
}

/* jpeg_idct_1x1 has no vector code: numbers are those of C, and what is far beyond a sample begins again. */
static void one_block(const Block *block, const uint16_t *quant)
{
    uint32_t value = (uint32_t)descaled(block->coefficients[0] * (int16_t)quant[0], 3) & 1023;

    block->to[0] = sample_of(value < 512 ? (int32_t)value : (int32_t)value - 1024);
}

/* --- Blocks -------------------------------------------------------------------------------------------------------- */

static void eights(const Block *blocks, int count, const uint16_t *quant, size_t stride, Simd simd)
{
    int i = 0;

    while (i < count) {
        if (blocks[i].count == 1) {
            flat_block(&blocks[i++], quant, stride);
#ifdef HAVE_X86
        } else if (simd == AVX2 && i + 1 < count) {
            two_eights_avx2(&blocks[i], quant, stride);
            i += 2;
        } else if (simd != SCALAR) {
            eight_sse2(&blocks[i++], quant, stride);
#endif
        } else {
            (void)simd;
            eight_scalar(&blocks[i++], quant, stride);
        }
    }
}

void idct_blocks(const Block *blocks, int count, const uint16_t *quant, int side, size_t stride, Simd simd)
{
    if (side == 8) {
        eights(blocks, count, quant, stride, simd);
        return;
    }
    for (int i = 0; i < count; i++)
        if (side == 1)
            one_block(&blocks[i], quant);
        else if (side == 2)
            two_block(&blocks[i], quant, stride, simd);
#ifdef HAVE_X86
        else if (simd != SCALAR)
            four_sse2(&blocks[i], quant, stride);
#endif
        else
            four_scalar(&blocks[i], quant, stride);
}
