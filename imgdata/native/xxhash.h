/* Bytes -> XXH64 with seed 0, and the XXH3 hash of 24 bytes: what the index and the state of a file have. */
#ifndef IMGDATA_XXHASH_H
#define IMGDATA_XXHASH_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* A number of 8 bytes, lowest first. */
static inline uint64_t read_64(const uint8_t *data)
{
    uint64_t value;

    memcpy(&value, data, sizeof value);
#if defined(__BYTE_ORDER__) && __BYTE_ORDER__ == __ORDER_BIG_ENDIAN__
    value = __builtin_bswap64(value);
#endif
    return value;
}

uint64_t xxh64(const uint8_t *data, size_t size);

/* XXH3 of 64 bits, of exactly 24 bytes. */
uint64_t xxh3_of_24(const uint8_t data[24]);

#endif
