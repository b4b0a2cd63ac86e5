/* Samples and weights -> weighted sums, rounded and clipped to 0..255. Exact in 32 bits, so all ways agree. */
#include "kernels.h"
#include "processor.h"

#include <string.h>

#ifdef HAVE_X86
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

static void along_row_fine_scalar(const uint8_t *from, int16_t *to, const Filter *filter)
{
    const int16_t *weights = filter->weights;
    int shift = filter->precision - FINE_BITS;

    for (int x = 0; x < filter->count; x++, weights += filter->taps) {
        const uint8_t *samples = from + filter->start[x];
        int32_t sum = 1 << (shift - 1);
        for (int i = 0; i < filter->taps; i++)
            sum += weights[i] * samples[i];
        to[x] = (int16_t)(sum >> shift);
    }
}

static void across_rows_fine_scalar(const int16_t *const *rows, const int16_t *weights, int taps, int precision,
                                    int16_t *to, int width)
{
    for (int x = 0; x < width; x++) {
        int32_t sum = 1 << (precision - 1);
        for (int i = 0; i < taps; i++)
            sum += weights[i] * rows[i][x];
        to[x] = (int16_t)(sum >> precision);
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

/* Eight results, as words: the sums of 8 windows, divided by 2^shift. */
static inline __m128i eight_sums(const uint8_t *from, const int *start, const int16_t *weights, int taps, int shift)
{
    __m128i half = _mm_set1_epi32(1 << (shift - 1)), count = _mm_cvtsi32_si128(shift);
    __m128i low = four_sums(from, start, weights, taps);
    __m128i high = four_sums(from, start + 4, weights + 4 * (size_t)taps, taps);

    low = _mm_sra_epi32(_mm_add_epi32(low, half), count);
    high = _mm_sra_epi32(_mm_add_epi32(high, half), count);
    return _mm_packs_epi32(low, high);
}

static void along_row_sse2(const uint8_t *from, uint8_t *to, const Filter *filter)
{
    const int16_t *weights = filter->weights;

    for (int x = 0; x < filter->count; x += 8, weights += 8 * (size_t)filter->taps) {
        __m128i words = eight_sums(from, filter->start + x, weights, filter->taps, filter->precision);
        _mm_storel_epi64((__m128i *)(to + x), _mm_packus_epi16(words, words));
    }
}

static void along_row_fine_sse2(const uint8_t *from, int16_t *to, const Filter *filter)
{
    const int16_t *weights = filter->weights;

    for (int x = 0; x < filter->count; x += 8, weights += 8 * (size_t)filter->taps)
        _mm_storeu_si128((__m128i *)(to + x),
                         eight_sums(from, filter->start + x, weights, filter->taps, filter->precision - FINE_BITS));
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

static void across_rows_fine_sse2(const int16_t *const *rows, const int16_t *weights, int taps, int precision,
                                  int16_t *to, int width)
{
    __m128i half = _mm_set1_epi32(1 << (precision - 1)), shift = _mm_cvtsi32_si128(precision);

    for (int x = 0; x < width; x += 8) {
        __m128i low = half, high = half;
        for (int i = 0; i < taps; i += 2) {
            __m128i two = _mm_set1_epi32(two_weights(weights + i));
            __m128i a = _mm_loadu_si128((const __m128i *)(rows[i] + x));
            __m128i b = _mm_loadu_si128((const __m128i *)(rows[i + 1] + x));
            low = _mm_add_epi32(low, _mm_madd_epi16(_mm_unpacklo_epi16(a, b), two));
            high = _mm_add_epi32(high, _mm_madd_epi16(_mm_unpackhi_epi16(a, b), two));
        }
        _mm_storeu_si128((__m128i *)(to + x), _mm_packs_epi32(_mm_sra_epi32(low, shift), _mm_sra_epi32(high, shift)));
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

/* Eight results, as words: the sums of 8 windows, divided by 2^shift. */
WITH_AVX2 static inline __m128i eight_sums_avx2(const uint8_t *from, const int *start, const int16_t *weights, int taps,
                                                int shift)
{
    /* Even results lie in the lower half, odd ones in the upper. */
    __m128i in_order = _mm_setr_epi8(0, 1, 8, 9, 2, 3, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    __m256i a = two_partial_sums(from, start, weights, taps);
    __m256i b = two_partial_sums(from, start + 2, weights + 2 * (size_t)taps, taps);
    __m256i c = two_partial_sums(from, start + 4, weights + 4 * (size_t)taps, taps);
    __m256i d = two_partial_sums(from, start + 6, weights + 6 * (size_t)taps, taps);
    __m256i sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
    __m128i words;

    sums = _mm256_add_epi32(sums, _mm256_set1_epi32(1 << (shift - 1)));
    sums = _mm256_sra_epi32(sums, _mm_cvtsi32_si128(shift));
    words = _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
    return _mm_shuffle_epi8(words, in_order);
}

/* The same with steps: two loads, the samples of each pair of taps put in place by one shuffle. */
WITH_AVX2 static inline __m128i eight_sums_by_steps(const uint8_t *from, const int *base, const Step *step, int steps,
                                                    int shift)
{
    __m256i samples = _mm256_inserti128_si256(
        _mm256_castsi128_si256(_mm_loadu_si128((const __m128i *)(from + base[0]))),
        _mm_loadu_si128((const __m128i *)(from + base[1])), 1);
    __m256i sums = _mm256_set1_epi32(1 << (shift - 1));

    for (int i = 0; i < steps; i++) {
        __m256i pairs = _mm256_shuffle_epi8(samples, _mm256_load_si256((const __m256i *)step[i].places));
        __m256i own = _mm256_load_si256((const __m256i *)step[i].weights);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, own));
    }
    sums = _mm256_sra_epi32(sums, _mm_cvtsi32_si128(shift));
    return _mm_packs_epi32(_mm256_castsi256_si128(sums), _mm256_extracti128_si256(sums, 1));
}

WITH_AVX2 static inline void store_bytes(uint8_t *to, __m128i words)
{
    _mm_storel_epi64((__m128i *)to, _mm_packus_epi16(words, words));
}

WITH_AVX2 static inline void store_words(int16_t *to, __m128i words)
{
    _mm_storeu_si128((__m128i *)to, words);
}

/* `number` is the filter's `steps` where that is known here, so that the loop over them goes away. */
#define LOOP_BY_STEPS(number, store, shift)                                                                            \
    for (int g = 0; 8 * g < filter->count; g++)                                                                        \
    store(to + 8 * g, eight_sums_by_steps(from, filter->bases + 2 * g, filter->table + (number) * g, number, shift))
#define LOOP_ALONG_ROW(store, shift)                                                                                   \
    switch (filter->steps) {                                                                                           \
    case 0:                                                                                                            \
        for (int g = 0; 8 * g < filter->count; g++)                                                                    \
            store(to + 8 * g, eight_sums_avx2(from, filter->start + 8 * g,                                             \
                                              filter->weights + (size_t)(8 * g) * (size_t)filter->taps, filter->taps,  \
                                              shift));                                                                 \
        break;                                                                                                         \
    case 1:                                                                                                            \
        LOOP_BY_STEPS(1, store, shift);                                                                                \
        break;                                                                                                         \
    case 2:                                                                                                            \
        LOOP_BY_STEPS(2, store, shift);                                                                                \
        break;                                                                                                         \
    case 3:                                                                                                            \
        LOOP_BY_STEPS(3, store, shift);                                                                                \
        break;                                                                                                         \
    default:                                                                                                           \
        LOOP_BY_STEPS(filter->steps, store, shift);                                                                    \
    }

WITH_AVX2 static void along_row_avx2(const uint8_t *from, uint8_t *to, const Filter *filter)
{
    LOOP_ALONG_ROW(store_bytes, filter->precision)
}

WITH_AVX2 static void along_row_fine_avx2(const uint8_t *from, int16_t *to, const Filter *filter)
{
    LOOP_ALONG_ROW(store_words, filter->precision - FINE_BITS)
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

WITH_AVX2 static void across_rows_fine_avx2(const int16_t *const *rows, const int16_t *weights, int taps, int precision,
                                            int16_t *to, int width)
{
    __m256i half = _mm256_set1_epi32(1 << (precision - 1));
    __m128i shift = _mm_cvtsi32_si128(precision);

    for (int x = 0; x < width; x += 32) {
        __m256i sum0 = half, sum1 = half, sum2 = half, sum3 = half;
        for (int i = 0; i < taps; i += 2) {
            __m256i two = _mm256_set1_epi32(two_weights(weights + i));
            __m256i a = _mm256_loadu_si256((const __m256i *)(rows[i] + x));
            __m256i b = _mm256_loadu_si256((const __m256i *)(rows[i + 1] + x));
            __m256i c = _mm256_loadu_si256((const __m256i *)(rows[i] + x + 16));
            __m256i d = _mm256_loadu_si256((const __m256i *)(rows[i + 1] + x + 16));
            sum0 = _mm256_add_epi32(sum0, _mm256_madd_epi16(_mm256_unpacklo_epi16(a, b), two));
            sum1 = _mm256_add_epi32(sum1, _mm256_madd_epi16(_mm256_unpackhi_epi16(a, b), two));
            sum2 = _mm256_add_epi32(sum2, _mm256_madd_epi16(_mm256_unpacklo_epi16(c, d), two));
            sum3 = _mm256_add_epi32(sum3, _mm256_madd_epi16(_mm256_unpackhi_epi16(c, d), two));
        }
        sum0 = _mm256_packs_epi32(_mm256_sra_epi32(sum0, shift), _mm256_sra_epi32(sum1, shift));
        sum2 = _mm256_packs_epi32(_mm256_sra_epi32(sum2, shift), _mm256_sra_epi32(sum3, shift));
        _mm256_storeu_si256((__m256i *)(to + x), sum0);
        _mm256_storeu_si256((__m256i *)(to + x + 16), sum2);
    }
}

#endif

Simd best_simd(void)
{
#ifdef HAVE_X86
    return processor_has(HAS_AVX2) ? AVX2 : SSE2;
#else
    return SCALAR;
#endif
}

Kernels kernels_of(Simd simd)
{
    Kernels kernels = {along_row_scalar, across_rows_scalar, along_row_fine_scalar, across_rows_fine_scalar, 0};

#ifdef HAVE_X86
    if (simd == SSE2)
        kernels = (Kernels){along_row_sse2, across_rows_sse2, along_row_fine_sse2, across_rows_fine_sse2, 0};
    else if (simd == AVX2)
        kernels = (Kernels){along_row_avx2, across_rows_avx2, along_row_fine_avx2, across_rows_fine_avx2, 1};
#else
    (void)simd;
#endif
    return kernels;
}
