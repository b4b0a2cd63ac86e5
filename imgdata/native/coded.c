/* 16 bytes at a time: a picture of 70 KB has 300 bytes of 0xFF, and a call for each takes longer than all the rest. */
#include "coded.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>

/* A bit for each of 16 bytes. */
static inline unsigned equal_bytes(__m128i bytes, int value)
{
    return (unsigned)_mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8((char)value)));
}

static inline __m128i sixteen(const uint8_t *from)
{
    return _mm_loadu_si128((const __m128i *)from);
}
#endif

const uint8_t *find_marker(const uint8_t *at, const uint8_t *end)
{
#ifdef __SSE2__
    for (; end - at > 16; at += 16) {
        unsigned found = equal_bytes(sixteen(at), 0xFF);
        if (found != 0 && (found &= ~equal_bytes(sixteen(at + 1), 0)) != 0)
            return at + __builtin_ctz(found);
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
        unsigned found = equal_bytes(bytes, 0xFF);
        _mm_storeu_si128((__m128i *)to, bytes);
        if (found == 0) {
            from += 16;
            to += 16;
        } else {
            int kept = __builtin_ctz(found) + 1;
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
