/* Plain loops for the compiler to turn into vector code, once for every processor and once with AVX2. */
#include "pixels.h"
#include "kernels.h"
#include "processor.h"

#include <string.h>

#ifdef HAVE_X86
#include <immintrin.h>
#define WITH_AVX2 __attribute__((target("avx2,f16c")))
#endif
#define INLINE static inline __attribute__((always_inline))

/* --- Colour: JFIF, ITU-T T.871, section 7 --------------------------------------------------------------- */

/* (a * b / 2^15), rounded. */
INLINE int16_t times(int16_t a, int16_t b)
{
    return (int16_t)((a * b + (1 << 14)) >> 15);
}

INLINE uint8_t to_byte(int value)
{
    value = (value + (1 << (FINE_BITS - 1))) >> FINE_BITS;
    return (uint8_t)(value < 0 ? 0 : value > 255 ? 255 : value);
}

#define Q15(value) ((int16_t)((value) * 32768 + 0.5))

INLINE void rgb_loop(const int16_t *restrict y, const int16_t *restrict cb, const int16_t *restrict cr,
                     uint8_t *restrict red, uint8_t *restrict green, uint8_t *restrict blue, int width)
{
    for (int x = 0; x < width; x++) {
        int16_t u = (int16_t)(cb[x] - (128 << FINE_BITS)), v = (int16_t)(cr[x] - (128 << FINE_BITS));
        /* 1.402, 1.772, 0.344136 and 0.714136; the part above 1 is added by itself. */
        red[x] = to_byte(y[x] + v + times(v, Q15(0.402)));
        green[x] = to_byte(y[x] - times(u, Q15(0.344136)) - times(v, Q15(0.714136)));
        blue[x] = to_byte(y[x] + u + times(u, Q15(0.772)));
    }
}

/* --- Types ------------------------------------------------------------------------------------------------ */

INLINE void floats_loop(const uint8_t *restrict from, float *restrict to, float scale, float shift, int width)
{
    for (int x = 0; x < width; x++)
        to[x] = from[x] * scale + shift;
}

/* IEEE 754 binary16, ties to even: what F16C does. */
static uint16_t half_of(float value)
{
    uint32_t bits, sign, kept, rest, shift;
    int exponent;

    memcpy(&bits, &value, sizeof bits);
    sign = bits >> 16 & 0x8000;
    exponent = (int)(bits >> 23 & 0xFF) - 127 + 15;
    if (exponent >= 31)
        return (uint16_t)(sign | 0x7C00 | ((bits & 0x7FFFFFFF) > 0x7F800000 ? 0x200 : 0));
    if (exponent < -10)
        return (uint16_t)sign;
    kept = (bits & 0x7FFFFF) | 0x800000;
    shift = exponent > 0 ? 13 : (uint32_t)(14 - exponent);
    rest = kept & ((1u << shift) - 1);
    kept >>= shift;
    kept += rest > 1u << (shift - 1) || (rest == 1u << (shift - 1) && (kept & 1));
    /* The leading 1 of a normal number adds one to the exponent; so does a carry out of the fraction. */
    return (uint16_t)(sign | (exponent > 0 ? ((uint32_t)(exponent - 1) << 10) + kept : kept));
}

#ifdef HAVE_X86
WITH_AVX2 static void halves_avx2(const uint8_t *from, uint16_t *to, float scale, float shift, int width)
{
    __m256 times = _mm256_set1_ps(scale), plus = _mm256_set1_ps(shift);
    int x = 0;

    for (; x + 8 <= width; x += 8) {
        __m256i whole = _mm256_cvtepu8_epi32(_mm_loadl_epi64((const __m128i *)(from + x)));
        __m256 values = _mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(whole), times), plus);
        _mm_storeu_si128((__m128i *)(to + x), _mm256_cvtps_ph(values, _MM_FROUND_TO_NEAREST_INT));
    }
    for (; x < width; x++)
        to[x] = half_of(from[x] * scale + shift);
}

/* 32 pixels at a time; saturated sums are clipped to the same bytes. Reads and writes behind the end, as all rows may. */
WITH_AVX2 static inline __m256i bytes_avx2(__m256i first, __m256i second)
{
    __m256i half = _mm256_set1_epi16(1 << (FINE_BITS - 1));
    __m256i low = _mm256_srai_epi16(_mm256_adds_epi16(first, half), FINE_BITS);
    __m256i high = _mm256_srai_epi16(_mm256_adds_epi16(second, half), FINE_BITS);
    return _mm256_permute4x64_epi64(_mm256_packus_epi16(low, high), 0xD8);
}

WITH_AVX2 static void rgb_avx2(const int16_t *y, const int16_t *cb, const int16_t *cr, const Rows *rows, int width)
{
    __m256i middle = _mm256_set1_epi16(128 << FINE_BITS);

    for (int x = 0; x < width; x += 32) {
        __m256i red[2], green[2], blue[2];
        for (int i = 0; i < 2; i++) {
            __m256i luma = _mm256_loadu_si256((const __m256i *)(y + x + 16 * i));
            __m256i u = _mm256_sub_epi16(_mm256_loadu_si256((const __m256i *)(cb + x + 16 * i)), middle);
            __m256i v = _mm256_sub_epi16(_mm256_loadu_si256((const __m256i *)(cr + x + 16 * i)), middle);
            red[i] = _mm256_adds_epi16(_mm256_adds_epi16(luma, v), _mm256_mulhrs_epi16(v, _mm256_set1_epi16(Q15(0.402))));
            green[i] = _mm256_subs_epi16(
                _mm256_subs_epi16(luma, _mm256_mulhrs_epi16(u, _mm256_set1_epi16(Q15(0.344136)))),
                _mm256_mulhrs_epi16(v, _mm256_set1_epi16(Q15(0.714136))));
            blue[i] = _mm256_adds_epi16(_mm256_adds_epi16(luma, u), _mm256_mulhrs_epi16(u, _mm256_set1_epi16(Q15(0.772))));
        }
        _mm256_storeu_si256((__m256i *)(rows->rgb[0] + x), bytes_avx2(red[0], red[1]));
        _mm256_storeu_si256((__m256i *)(rows->rgb[1] + x), bytes_avx2(green[0], green[1]));
        _mm256_storeu_si256((__m256i *)(rows->rgb[2] + x), bytes_avx2(blue[0], blue[1]));
    }
}

WITH_AVX2 static void floats_avx2(const uint8_t *from, float *to, float scale, float shift, int width)
{
    floats_loop(from, to, scale, shift, width);
}

/* 16 pixels at a time: byte i of the result comes from channel i % 3. */
WITH_AVX2 static int interleave_avx2(const Rows *rows, uint8_t *to, int width)
{
    static const int8_t PLACES[3][3][16] = {
        {{0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1, 5},
         {-1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1, -1},
         {-1, -1, 0, -1, -1, 1, -1, -1, 2, -1, -1, 3, -1, -1, 4, -1}},
        {{-1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10, -1},
         {5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1, 10},
         {-1, 5, -1, -1, 6, -1, -1, 7, -1, -1, 8, -1, -1, 9, -1, -1}},
        {{-1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1, -1},
         {-1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15, -1},
         {10, -1, -1, 11, -1, -1, 12, -1, -1, 13, -1, -1, 14, -1, -1, 15}}};
    int x = 0;

    for (; x + 16 <= width; x += 16) {
        __m128i channel[3];
        for (int c = 0; c < 3; c++)
            channel[c] = _mm_loadu_si128((const __m128i *)(rows->rgb[c] + x));
        for (int part = 0; part < 3; part++) {
            __m128i bytes = _mm_setzero_si128();
            for (int c = 0; c < 3; c++)
                bytes = _mm_or_si128(
                    bytes, _mm_shuffle_epi8(channel[c], _mm_loadu_si128((const __m128i *)PLACES[part][c])));
            _mm_storeu_si128((__m128i *)(to + 3 * (size_t)x + 16 * part), bytes);
        }
    }
    return x;
}
#endif

static void to_floats(const uint8_t *from, float *to, float scale, float shift, int width, Simd simd)
{
#ifdef HAVE_X86
    if (simd == AVX2) {
        floats_avx2(from, to, scale, shift, width);
        return;
    }
#endif
    (void)simd;
    floats_loop(from, to, scale, shift, width);
}

static void to_halves(const uint8_t *from, uint16_t *to, float scale, float shift, int width, Simd simd)
{
#ifdef HAVE_X86
    if (simd == AVX2) {
        halves_avx2(from, to, scale, shift, width);
        return;
    }
#endif
    (void)simd;
    for (int x = 0; x < width; x++)
        to[x] = half_of(from[x] * scale + shift);
}

static void interleave(const Rows *rows, uint8_t *to, int width, Simd simd)
{
    int x = 0;

#ifdef HAVE_X86
    if (simd == AVX2)
        x = interleave_avx2(rows, to, width);
#endif
    (void)simd;
    for (; x < width; x++)
        for (int c = 0; c < 3; c++)
            to[3 * x + c] = rows->rgb[c][x];
}

/* --- Rows ------------------------------------------------------------------------------------------------- */

void row_to_rgb(const int16_t *y, const int16_t *cb, const int16_t *cr, const Rows *rows, int width, Simd simd)
{
    if (cb == NULL) {
        for (int x = 0; x < width; x++)
            rows->rgb[0][x] = rows->rgb[1][x] = rows->rgb[2][x] = to_byte(y[x]);
        return;
    }
#ifdef HAVE_X86
    if (simd == AVX2) {
        rgb_avx2(y, cb, cr, rows, width);
        return;
    }
#endif
    (void)simd;
    rgb_loop(y, cb, cr, rows->rgb[0], rows->rgb[1], rows->rgb[2], width);
}

void row_to_gray(const int16_t *y, const Rows *rows, int width)
{
    for (int x = 0; x < width; x++)
        rows->rgb[0][x] = to_byte(y[x]);
}

/* The row of one colour, in the picture's type. */
static void to_type(const uint8_t *from, void *to, const Picture *picture, int c, Simd simd)
{
    if (picture->kind == BYTES)
        memcpy(to, from, (size_t)picture->width);
    else if (picture->kind == FLOATS)
        to_floats(from, to, picture->scale[c], picture->shift[c], picture->width, simd);
    else
        to_halves(from, to, picture->scale[c], picture->shift[c], picture->width, simd);
}

static void interleave_typed(const Rows *rows, uint8_t *to, size_t size, int width)
{
    for (int x = 0; x < width; x++)
        for (int c = 0; c < 3; c++, to += size)
            memcpy(to, (const uint8_t *)rows->typed[c] + (size_t)x * size, size);
}

Outcome rows_alloc(Rows *rows, const Picture *picture, Scratch *scratch)
{
    size_t room = (size_t)picture->width + ROW_PADDING;

    for (int c = 0; c < 3; c++) {
        rows->rgb[c] = scratch_take(scratch, room, 1);
        rows->typed[c] = scratch_take(scratch, room, sizeof(float));
        if (rows->rgb[c] == NULL || rows->typed[c] == NULL)
            return NO_MEMORY;
    }
    return DONE;
}

void row_store(const Rows *rows, const Picture *picture, int y, Simd simd)
{
    size_t size = picture->kind == BYTES ? 1 : picture->kind == HALVES ? 2 : 4;
    size_t row = (size_t)y * (size_t)picture->width, plane = (size_t)picture->height * (size_t)picture->width;
    uint8_t *pixels = picture->pixels;

    /* One channel has the same order of memory either way. */
    if (picture->planar || picture->channels == 1) {
        for (size_t c = 0; c < (size_t)picture->channels; c++)
            to_type(rows->rgb[c], pixels + (c * plane + row) * size, picture, (int)c, simd);
    } else if (picture->kind == BYTES) {
        interleave(rows, pixels + 3 * row, picture->width, simd);
    } else {
        for (int c = 0; c < 3; c++)
            to_type(rows->rgb[c], rows->typed[c], picture, c, simd);
        if (size == 2)
            interleave_typed(rows, pixels + 3 * row * 2, 2, picture->width);
        else
            interleave_typed(rows, pixels + 3 * row * 4, 4, picture->width);
    }
}
