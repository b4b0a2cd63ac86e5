/* Bits -> the symbols and numbers of a JPEG's Huffman codes (T.81, annex F): a table gives one or two at once. */
#ifndef IMGDATA_HUFFMAN_H
#define IMGDATA_HUFFMAN_H

#include "planes.h"

#include <string.h>

/* Bits of a lookup: for the first coefficient of a block (DC), for the others (AC), and for others that are only passed
 * over. With more, the tables of luma and chroma grow out of the first cache. */
#define LOOKUP_DC 9
#define LOOKUP_AC 11
#define LOOKUP_SKIP 12
/* Added to the place of a coefficient behind the last one of a block. */
#define BLOCK_END 128
/* Added where bits are no code within a lookup: never where a block ends. */
#define NO_SYMBOL 200
/* Bits that a lookup takes at most: the last number may lie behind what was looked up. */
#define MOST_BITS (LOOKUP_SKIP + 15)
#define LIKELY(test) __builtin_expect((test), 1)

/* A code's bits are compared with the first number of this length that is no code. */
typedef struct {
    uint8_t given[16 + 256]; /* as in the file: how many codes have 1 to 16 bits, and their bytes */
    int is_set;
    uint32_t limit[17]; /* of the codes of each length, at the upper end of 16 bits: the first that is none */
    int offset[17];     /* from a code of this length to its place in `bytes` */
    uint8_t bytes[256];
} Codes;

/* The number of a first coefficient. From the lowest bit on: 8 bits for the bits that it takes in all, 8 for those of the
 * number that are added to the value, 16 for the value. 0: the code is beyond the lookup. */
typedef struct {
    Codes codes;
    uint32_t numbers[1 << LOOKUP_DC];
} DcTable;

/* `pairs`: one or two coefficients. From the lowest byte on: the bits that they take in all; those of the last number that
 * are added to the last value; how many places on the first one lies, and the second; two values of 16 bits. Where there is
 * no second one, it is the first again. With NO_SYMBOL the code is beyond the lookup.
 *
 * `skips`: as many as a lookup has, the bits in the lower and the places in the upper byte. */
typedef struct {
    Codes codes;
    int has_skips;
    uint64_t pairs[1 << LOOKUP_AC];
    uint16_t skips[1 << LOOKUP_SKIP];
} AcTable;

typedef struct {
    const uint8_t *next;
    uint64_t bits; /* the next ones, at the upper end */
    int count;     /* bits that are valid */
} Reader;

/* Bits of `length` bytes from `start` on that were not read; negative where there were too few. */
static inline int64_t bits_left(const Reader *reader, const uint8_t *start, size_t length)
{
    return 8 * ((int64_t)length - (reader->next - start)) + reader->count;
}

/* Whether all those bytes were used, and none behind. */
static inline int has_read_all(const Reader *reader, const uint8_t *start, size_t length)
{
    int64_t left = bits_left(reader, start, length);

    return left >= 0 && left < 8;
}

/* `given`: as in the file. UNFIT for codes that libjpeg does not take. Nothing is done where the table is of the same ones. */
Outcome dc_table_set(DcTable *table, const uint8_t *given);
Outcome ac_table_set(AcTable *table, const uint8_t *given);

/* Fill in `skips`. */
void ac_table_add_skips(AcTable *table);

/* The codes alone, without a table. */
Outcome codes_set(Codes *codes, const uint8_t *given, int is_dc);

/* One symbol by its code alone: its byte, and behind it `reader`; -1 for bits that are no code. */
int read_code(Reader *reader, const Codes *codes);

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

/* The number that the next `size` bits stand for, 0 to 15 of them: T.81, figure F.12, without a branch. */
static inline int number_at(uint64_t bits, int size)
{
    int number = (int)(bits >> 1 >> (63 - size)), negative = (int)(bits >> 63) - 1;

    return number - (negative & ((1 << size) - 1));
}

#endif
