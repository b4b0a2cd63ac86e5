/* Bits -> the symbols and numbers of a JPEG's Huffman codes (T.81, annex F): a table gives one or two at once. */
#ifndef IMGDATA_HUFFMAN_H
#define IMGDATA_HUFFMAN_H

#include "planes.h"
#include "turbo.h"

#include <string.h>

/* Bits of a lookup, for the first coefficient of a block (DC) and for the others (AC). Of 8 to 13 these were the
 * fastest, on 500x375 pixels of quality 96: tables grow out of the first cache, or more symbols are too long. */
#define LOOKUP_DC 8
#define LOOKUP_AC 11
/* Lookups for which the 56 bits are enough that a refill gives at least: a code in it, and the number behind. */
#define LOOKUPS_AT_ONCE 2
#define BLOCK_END 128
#define LIKELY(test) __builtin_expect((test), 1)

/* The symbol that the next bits begin with: a code and the number behind it. `length` 0: the number is to be read from
 * the bits; then `value` is the code's byte, and `skip` the code's length, or 0 where even that is beyond the lookup. */
typedef struct {
    int16_t value;
    uint8_t skip;   /* coefficients up to the next one; BLOCK_END behind the last */
    uint8_t length; /* bits */
} Symbol;

/* A value that no number within a lookup has: `next_value` is the code's length << 4 | the bits of the number. */
#define NUMBER_BEHIND INT16_MIN

/* A symbol and the one behind it, where both are within the lookup; else that repeats the first one's value in the same
 * place. `length` 0 as in a symbol, but only where the code is beyond the lookup. */
typedef struct {
    int16_t value, next_value;
    uint8_t skip, next_skip;
    uint8_t length, both; /* bits of the first, and of both */
} Pair;

typedef struct {
    Symbol symbols[1 << LOOKUP_AC];
    Pair pairs[1 << LOOKUP_AC]; /* for coefficients behind the first */
    uint32_t limit[17];         /* of the codes of each length, at the upper end of 16 bits: the first that is none */
    int offset[17];             /* from a code of this length to its place in `bytes` */
    uint8_t bytes[256];
} Table;

typedef struct {
    const uint8_t *next;
    uint64_t bits; /* the next ones, at the upper end */
    int count;     /* bits that are valid */
} Reader;

/* UNFIT for a table that is none. */
Outcome set_table(Table *table, const JHUFF_TBL *from, int is_dc);

/* What a lookup did not find; length 0 for bits that are no code. */
Symbol long_symbol(Reader *reader, const Table *table, Symbol found, int is_dc);

static inline uint64_t eight_bytes(const uint8_t *from)
{
    uint64_t value;

    memcpy(&value, from, sizeof value);
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

/* Afterwards 56 bits at least are valid. */
static inline void refill(Reader *reader)
{
    reader->bits |= eight_bytes(reader->next) >> reader->count;
    reader->next += (63 - reader->count) >> 3;
    reader->count |= 56;
}

static inline void drop(Reader *reader, int count)
{
    reader->bits <<= count;
    reader->count -= count;
}

/* The number that the next `size` bits stand for, 0 to 15 of them; as `extended`, without a branch. */
static inline int number_at(uint64_t bits, int size)
{
    int number = (int)(bits >> 1 >> (63 - size)), negative = (int)(bits >> 63) - 1;

    return number - (negative & ((1 << size) - 1));
}

#endif
