/* Samples and weights -> weighted sums, rounded and clipped to 0..255. Exact in 32 bits, so all ways agree. */
#include "kernels.h"

#include <string.h>

#if defined(__x86_64__) && defined(__GNUC__)
#define HAVE_X86 1
#include <immintrin.h>
#endif

static uint8_t clipped(int32_t sum, int precision)
{
    /* A right shift of negative numbers keeps the sign in every compiler that Python is built with. */
    int32_t value = sum >> precision;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

static void along_row_scalar(const uint8_t *from, uint8_t *to, const Filter *filter)
{
    const int16_t *weights = filter->weights;

    for (int x = 0; x < filter->count; x++, weights += filter->taps) {
        const uint8_t *samples = from + filter->start[x];
        int32_t sum = 1 << (filter->precision - 1);
        for (int i = 0; i < filter->taps; i++)
            sum += weights[i] * samples[i];
        to[x] = clipped(sum, filter->precision);
    }
}

static void across_rows_scalar(const uint8_t *const *rows, const int16_t *weights, int taps, int precision,
                               uint8_t *to, int width)
{
    for (int x = 0; x < width; x++) {
        int32_t sum = 1 << (precision - 1);
        for (int i = 0; i < taps; i++)
            sum += weights[i] * rows[i][x];
        to[x] = clipped(sum, precision);
    }
}

#ifdef HAVE_X86

static int32_t two_weights(const int16_t *weights)
{
    int32_t two;
    memcpy(&two, weights, sizeof two);
    return two;
}

/* --- SSE2: every x86-64 has it ----------------------------------------------------------------------- */

/* The products of one result, in four partial sums. */
static inline __m128i partial_sums(const uint8_t *samples, const int16_t *weights, int taps)
{
    __m128i sum = _mm_setzero_si128(), zero = _mm_setzero_si128();

    for (int i = 0; i < taps; i += TAPS_AT_ONCE) {
        __m128i wide = _mm_unpacklo_epi8(_mm_loadl_epi64((const __m128i *)(samples + i)), zero);
        sum = _mm_add_epi32(sum, _mm_madd_epi16(wide, _mm_loadu_si128((const __m128i *)(weights + i))));
    }
    return sum;
}

static inline __m128i four_sums(const uint8_t *from, const int *start, const int16_t *weights, int taps)
{
    __m128i a = partial_sums(from + start[0], weights, taps);
    __m128i b = partial_sums(from + start[1], weights + taps, taps);
    __m128i c = partial_sums(from + start[2], weights + 2 * taps, taps);
    __m128i d = partial_sums(from + start[3], weights + 3 * taps, taps);
    __m128i ab = _mm_add_epi32(_mm_unpacklo_epi32(a, b), _mm_unpackhi_epi32(a, b));
    __m128i cd = _mm_add_epi32(_mm_unpacklo_epi32(c, d), _mm_unpackhi_epi32(c, d));
    return _mm_add_epi32(_mm_unpacklo_epi64(ab, cd), _mm_unpackhi_epi64(ab, cd));
}

static inline void along_row_taps_sse2(const uint8_t *from, uint8_t *to, const Filter *filter, int taps)
{
    const int16_t *weights = filter->weights;
    __m128i half = _mm_set1_epi32(1 << (filter->precision - 1)), shift = _mm_cvtsi32_si128(filter->precision);

    for (int x = 0; x < filter->count; x += 8, weights += 8 * (size_t)taps) {
        __m128i low = four_sums(from, filter->start + x, weights, taps);
        __m128i high = four_sums(from, filter->start + x + 4, weights + 4 * (size_t)taps, taps);
        low = _mm_sra_epi32(_mm_add_epi32(low, half), shift);
        high = _mm_sra_epi32(_mm_add_epi32(high, half), shift);
        low = _mm_packs_epi32(low, high);
        _mm_storel_epi64((__m128i *)(to + x), _mm_packus_epi16(low, low));
    }
}

static void along_row_sse2(const uint8_t *from, uint8_t *to, const Filter *filter)
{
    /* Up to a scale of 1.75, and often up to 2, one group of weights is enough; the loop over groups goes away. */
    if (filter->taps == TAPS_AT_ONCE)
        along_row_taps_sse2(from, to, filter, TAPS_AT_ONCE);
    else
        along_row_taps_sse2(from, to, filter, filter->taps);
}

static void across_rows_sse2(const uint8_t *const *rows, const int16_t *weights, int taps, int precision, uint8_t *to,
                             int width)
{
    __m128i half = _mm_set1_epi32(1 << (precision - 1)), shift = _mm_cvtsi32_si128(precision);
    __m128i zero = _mm_setzero_si128();

    for (int x = 0; x < width; x += 16) {
        __m128i sum0 = half, sum1 = half, sum2 = half, sum3 = half;
        for (int i = 0; i < taps; i += 2) {
            __m128i two = _mm_set1_epi32(two_weights(weights + i));
            __m128i a = _mm_loadu_si128((const __m128i *)(rows[i] + x));
            __m128i b = _mm_loadu_si128((const __m128i *)(rows[i + 1] + x));
            __m128i low = _mm_unpacklo_epi8(a, b), high = _mm_unpackhi_epi8(a, b);
            sum0 = _mm_add_epi32(sum0, _mm_madd_epi16(_mm_unpacklo_epi8(low, zero), two));
            sum1 = _mm_add_epi32(sum1, _mm_madd_epi16(_mm_unpackhi_epi8(low, zero), two));
            sum2 = _mm_add_epi32(sum2, _mm_madd_epi16(_mm_unpacklo_epi8(high, zero), two));
            sum3 = _mm_add_epi32(sum3, _mm_madd_epi16(_mm_unpackhi_epi8(high, zero), two));
        }
        sum0 = _mm_packs_epi32(_mm_sra_epi32(sum0, shift), _mm_sra_epi32(sum1, shift));
        sum2 = _mm_packs_epi32(_mm_sra_epi32(sum2, shift), _mm_sra_epi32(sum3, shift));
        _mm_storeu_si128((__m128i *)(to + x), _mm_packus_epi16(sum0, sum2));
    }
}

/* --- AVX2 --------------------------------------------------------------------------------------------- */

#define WITH_AVX2 __attribute__((target("avx2")))

/* The products of two results, in four partial sums each. */
WITH_AVX2 static inline __m256i two_partial_sums(const uint8_t *from, const int *start, const int16_t *weights,
                                                 int taps)
{
    __m256i sum = _mm256_setzero_si256();

    for (int i = 0; i < taps; i += TAPS_AT_ONCE) {
        __m128i first = _mm_loadl_epi64((const __m128i *)(from + start[0] + i));
        __m128i both = _mm_castps_si128(
            _mm_loadh_pi(_mm_castsi128_ps(first), (const __m64 *)(const void *)(from + start[1] + i)));
        __m256i own = _mm256_inserti128_si256(
            _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(weights + i))),
            _mm_loadu_si128((const __m128i *)(weights + taps + i)), 1);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_cvtepu8_epi16(both), own));
    }
    return sum;
}

WITH_AVX2 static inline void along_row_taps_avx2(const uint8_t *from, uint8_t *to, const Filter *filter, int taps)
{
    const int16_t *weights = filter->weights;
    const int *start = filter->start;
    __m256i half = _mm256_set1_epi32(1 << (filter->precision - 1));
    __m128i shift = _mm_cvtsi32_si128(filter->precision);
    /* Even results lie in the lower half, odd ones in the upper. */
    __m128i in_order = _mm_setr_epi8(0, 4, 1, 5, 2, 6, 3, 7, -1, -1, -1, -1, -1, -1, -1, -1);

    for (int x = 0; x < filter->count; x += 8, start += 8, weights += 8 * (size_t)taps) {
        __m256i a = two_partial_sums(from, start, weights, taps);
        __m256i b = two_partial_sums(from, start + 2, weights + 2 * (size_t)taps, taps);
        __m256i c = two_partial_sums(from, start + 4, weights + 4 * (size_t)taps, taps);
        __m256i d = two_partial_sums(from, start + 6, weights + 6 * (size_t)taps, taps);
        __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
        __m128i packed;
        sums = _mm256_sra_epi32(_mm256_add_epi32(sums, half), shift);
        packed = _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
        packed = _mm_shuffle_epi8(_mm_packus_epi16(packed, packed), in_order);
        _mm_storel_epi64((__m128i *)(to + x), packed);
    }
}

WITH_AVX2 static void along_row_avx2(const uint8_t *from, uint8_t *to, const Filter *filter)
{
    if (filter->taps == TAPS_AT_ONCE)
        along_row_taps_avx2(from, to, filter, TAPS_AT_ONCE);
    else
        along_row_taps_avx2(from, to, filter, filter->taps);
}

WITH_AVX2 static void across_rows_avx2(const uint8_t *const *rows, const int16_t *weights, int taps, int precision,
                                       uint8_t *to, int width)
{
    __m256i half = _mm256_set1_epi32(1 << (precision - 1)), zero = _mm256_setzero_si256();
    __m128i shift = _mm_cvtsi32_si128(precision);

    for (int x = 0; x < width; x += 32) {
        __m256i sum0 = half, sum1 = half, sum2 = half, sum3 = half;
        for (int i = 0; i < taps; i += 2) {
            __m256i two = _mm256_set1_epi32(two_weights(weights + i));
            __m256i a = _mm256_loadu_si256((const __m256i *)(rows[i] + x));
            __m256i b = _mm256_loadu_si256((const __m256i *)(rows[i + 1] + x));
            __m256i low = _mm256_unpacklo_epi8(a, b), high = _mm256_unpackhi_epi8(a, b);
            sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(_mm256_unpacklo_epi8(low, zero), two));
            sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(_mm256_unpackhi_epi8(low, zero), two));
            sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(_mm256_unpacklo_epi8(high, zero), two));
            sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(_mm256_unpackhi_epi8(high, zero), two));
        }
        sum0 = _mm256_packs_epi32(_mm256_sra_epi32(sum0, shift), _mm256_sra_epi32(sum1, shift));
        sum2 = _mm256_packs_epi32(_mm256_sra_epi32(sum2, shift), _mm256_sra_epi32(sum3, shift));
        _mm256_storeu_si256((__m256i *)(to + x), _mm256_packus_epi16(sum0, sum2));
    }
}

#endif

Simd best_simd(void)
{
#ifdef HAVE_X86
    return __builtin_cpu_supports("avx2") ? AVX2 : SSE2;
#else
    return SCALAR;
#endif
}

Kernels kernels_of(Simd simd)
{
    Kernels kernels = {along_row_scalar, across_rows_scalar};

#ifdef HAVE_X86
    if (simd == SSE2)
        kernels = (Kernels){along_row_sse2, across_rows_sse2};
    else if (simd == AVX2)
        kernels = (Kernels){along_row_avx2, across_rows_avx2};
#else
    (void)simd;
#endif
    return kernels;
}
