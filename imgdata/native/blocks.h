/* Codes -> the coefficients of a block. Inline: compiled once for every processor, and once for those whose shifts take any
 * register. */
#ifndef IMGDATA_BLOCKS_H
#define IMGDATA_BLOCKS_H

#include "huffman.h"

/* A block reads no more bytes than this: 65 symbols of 31 bits, and a refill. */
#define BLOCK_BYTES 272
/* Zeros behind a segment: whether it has ended is asked once a block. */
#define SEGMENT_PADDING (BLOCK_BYTES + 8)
_Static_assert(2 * MOST_BITS <= 56, "a refill is enough for two lookups");
#define INLINE static inline __attribute__((always_inline))

/* Where the coefficient behind `at` of them goes in a block; what is behind the last one goes to a place that is not used. */
#define UNUSED_16 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64
static const uint8_t ORDER[1 + 64 + 13 * 16] = {
    0,  0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33, 40, 48, 41, 34, 27, 20,
    13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36, 29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45,
    38, 31, 39, 46, 53, 60, 61, 54, 47, 55, 62, 63,
    UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16, UNUSED_16,
    UNUSED_16, UNUSED_16, UNUSED_16};

/* The last `size` of the next `count` bits. */
INLINE int last_bits(uint64_t bits, unsigned count, unsigned size)
{
    return (int)((uint32_t)(bits >> (-count & 63)) & ((1u << size) - 1));
}

INLINE int is_end(int at)
{
    /* Behind the last coefficient, or at the end of a block that is full. */
    return (unsigned)(at - BLOCK_END - 1) < 63 || at == 64;
}

/* What the next bits add to the first coefficient. 0 for bits that are no code. */
INLINE int read_dc(Reader *reader, const DcTable *table, int *value)
{
    uint32_t number;

    refill(reader);
    number = table->numbers[reader->bits >> (64 - LOOKUP_DC)];
    if (LIKELY(number != 0)) {
        *value = (int16_t)(number >> 16) + last_bits(reader->bits, number & 255, number >> 8 & 255);
        drop(reader, (int)(number & 255));
    } else {
        Reader copy = *reader;
        int size = read_code(&copy, &table->codes);
        if (size < 0)
            return 0;
        *value = size > 0 ? number_at(copy.bits, size) : 0;
        drop(&copy, size);
        *reader = copy;
    }
    return 1;
}

/* One symbol by its code: the place behind it, and its value. 0 for bits that are no code. */
INLINE int read_symbol(Reader *reader, const Codes *codes, int at, int *value)
{
    int byte = read_code(reader, codes), size = byte & 15;

    if (byte < 0)
        return 0;
    *value = size > 0 ? number_at(reader->bits, size) : 0;
    drop(reader, size);
    return at + (size > 0 ? (byte >> 4) + 1 : byte == 0xF0 ? 16 : BLOCK_END);
}

/* Bits of a lookup that was one too many are given back, and its first symbol is read alone. Not inline: it is rare, and
 * registers are few. */
int read_alone(Reader *reader, const Codes *codes, int at, int16_t *block);

/* The coefficients behind the first -> `block`, whose 64 are 0, and which has room for one more. Returns how many there are
 * up to the last one, the first included; 0 for bits that are none. */
INLINE int read_block(Reader *reader, const AcTable *table, int16_t *block)
{
    /* What has no address stays in registers. */
    Reader own = *reader;
    uint64_t bits_before;
    int count_before, before, at = 1;

    for (;;) {
        refill(&own);
#define TAKE_PAIR                                                                                                      \
    {                                                                                                                  \
        uint64_t pair = table->pairs[own.bits >> (64 - LOOKUP_AC)];                                                    \
        int number = last_bits(own.bits, pair & 255, pair >> 8 & 255);                                                 \
        bits_before = own.bits;                                                                                        \
        count_before = own.count;                                                                                      \
        before = at;                                                                                                   \
        own.bits <<= pair & 63;                                                                                        \
        own.count -= (int)(pair & 255);                                                                                \
        at += (int)(pair >> 16 & 255);                                                                                 \
        block[ORDER[at]] = (int16_t)(pair >> 32);                                                                      \
        at += (int)(pair >> 24 & 255);                                                                                 \
        block[ORDER[at]] = (int16_t)((int)(pair >> 48) + number);                                                      \
    }
        TAKE_PAIR
        if (LIKELY(at < 64)) {
            TAKE_PAIR
            if (LIKELY(at < 64))
                continue;
        }
        if (LIKELY(is_end(at)))
            break;
        {
            Reader copy = {own.next, bits_before, count_before};
            at = read_alone(&copy, &table->codes, before, block);
            own = copy;
        }
        if (at >= 64 || at == 0)
            break;
    }
    *reader = own;
    return is_end(at) ? at & (BLOCK_END - 1) : 0;
}

/* The same without a block. */
INLINE int skip_block(Reader *reader, const AcTable *table)
{
    Reader own = *reader;
    uint64_t bits_before;
    int count_before, before, at = 1;

    for (;;) {
        refill(&own);
#define SKIP_SOME                                                                                                      \
    {                                                                                                                  \
        unsigned some = table->skips[own.bits >> (64 - LOOKUP_SKIP)];                                                  \
        bits_before = own.bits;                                                                                        \
        count_before = own.count;                                                                                      \
        before = at;                                                                                                   \
        own.bits <<= some & 63;                                                                                        \
        own.count -= (int)(some & 255);                                                                                \
        at += (int)(some >> 8);                                                                                        \
    }
        SKIP_SOME
        if (LIKELY(at < 64)) {
            SKIP_SOME
            if (LIKELY(at < 64))
                continue;
        }
        if (LIKELY(is_end(at)))
            break;
        {
            Reader copy = {own.next, bits_before, count_before};
            at = read_alone(&copy, &table->codes, before, NULL);
            own = copy;
        }
        if (at >= 64 || at == 0)
            break;
    }
    *reader = own;
    return is_end(at);
}

#endif
