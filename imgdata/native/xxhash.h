/* Bytes -> XXH64 with seed 0, and the XXH3 hash of 24 bytes: what the index and the state of a file have. */
#ifndef IMGDATA_XXHASH_H
#define IMGDATA_XXHASH_H

#include <stddef.h>
#include <stdint.h>

uint64_t xxh64(const uint8_t *data, size_t size);

/* XXH3 of 64 bits, of exactly 24 bytes. */
uint64_t xxh3_of_24(const uint8_t data[24]);

#endif
