/* Bytes that come piece by piece -> XXH128, the hash of a shard. */
#ifndef IMGDATA_XXH128_H
#define IMGDATA_XXH128_H

#include <stddef.h>
#include <stdint.h>

enum { STRIPE = 64 };

/* All that is known of the bytes so far; zeros before the first one. */
typedef struct {
    uint64_t sums[8];
    uint64_t length;
    uint64_t stripes; /* of the block of 16 that is under way */
    uint8_t last[STRIPE];
} Xxh128;

/* Takes the next bytes: a multiple of STRIPE. */
void xxh128_update(Xxh128 *hash, const uint8_t *data, size_t size);

/* The hash of all bytes, of which there must be more than 240, the most significant byte first. */
void xxh128_digest(const Xxh128 *hash, uint8_t digest[16]);

#endif
