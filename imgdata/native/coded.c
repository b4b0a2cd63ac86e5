/* 16 bytes at a time: a picture of 70 KB has 300 bytes of 0xFF, and a call for each takes longer than all the rest. */
#include "coded.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

static inline __m128i sixteen(const uint8_t *from)
{
    return _mm_loadu_si128((const __m128i *)from);
}
#endif

const uint8_t *find_marker(const uint8_t *at, const uint8_t *end)
{
#ifdef __SSE2__
    const __m128i zero = _mm_setzero_si128();
    for (; end - at > 16; at += 16) {
        /* One test: whether there is a stuffed byte can't be foreseen. */
        __m128i stuffed = _mm_cmpeq_epi8(sixteen(at + 1), zero);
        __m128i first = _mm_cmpeq_epi8(sixteen(at), _mm_set1_epi8((char)0xFF));
        int found = _mm_movemask_epi8(_mm_andnot_si128(stuffed, first));
        if (found != 0)
            return at + __builtin_ctz((unsigned)found);
    }
#endif
    for (; end - at > 1; at++)
        if (at[0] == 0xFF && at[1] != 0)
            return at;
    return NULL;
}

size_t unstuff(const uint8_t *from, const uint8_t *end, uint8_t *to)
{
    uint8_t *start = to;

#ifdef __SSE2__
    while (end - from >= 16) {
        __m128i bytes = sixteen(from);
        int found = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)0xFF)));
        _mm_storeu_si128((__m128i *)to, bytes);
        if (found == 0) {
            from += 16;
            to += 16;
        } else {
            int kept = __builtin_ctz((unsigned)found) + 1;
            from += kept + 1;
            to += kept;
        }
    }
#endif
    while (from < end) {
        *to++ = *from;
        from += *from == 0xFF ? 2 : 1;
    }
    return (size_t)(to - start);
}
