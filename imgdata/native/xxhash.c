/* XXH64 and one case of XXH3, after the specification of xxHash (github.com/Cyan4973/xxHash, doc/xxhash_spec.md). */
#include "xxhash.h"

static const uint64_t PRIME_1 = 0x9E3779B185EBCA87u, PRIME_2 = 0xC2B2AE3D27D4EB4Fu, PRIME_3 = 0x165667B19E3779F9u,
                      PRIME_4 = 0x85EBCA77C2B2AE63u, PRIME_5 = 0x27D4EB2F165667C5u;

static uint64_t read_32(const uint8_t *data)
{
    return (uint64_t)data[0] | (uint64_t)data[1] << 8 | (uint64_t)data[2] << 16 | (uint64_t)data[3] << 24;
}

static uint64_t rotated(uint64_t value, int bits)
{
    return value << bits | value >> (64 - bits);
}

static uint64_t one_round(uint64_t lane, uint64_t value)
{
    return rotated(lane + value * PRIME_2, 31) * PRIME_1;
}

uint64_t xxh64(const uint8_t *data, size_t size)
{
    const uint8_t *end = data + size;
    uint64_t hash = PRIME_5;

    if (size >= 32) {
        uint64_t a = PRIME_1 + PRIME_2, b = PRIME_2, c = 0, d = 0 - PRIME_1;
        for (; end - data >= 32; data += 32) {
            a = one_round(a, read_64(data));
            b = one_round(b, read_64(data + 8));
            c = one_round(c, read_64(data + 16));
            d = one_round(d, read_64(data + 24));
        }
        hash = rotated(a, 1) + rotated(b, 7) + rotated(c, 12) + rotated(d, 18);
        hash = (hash ^ one_round(0, a)) * PRIME_1 + PRIME_4;
        hash = (hash ^ one_round(0, b)) * PRIME_1 + PRIME_4;
        hash = (hash ^ one_round(0, c)) * PRIME_1 + PRIME_4;
        hash = (hash ^ one_round(0, d)) * PRIME_1 + PRIME_4;
    }
    hash += size;
    for (; end - data >= 8; data += 8)
        hash = rotated(hash ^ one_round(0, read_64(data)), 27) * PRIME_1 + PRIME_4;
    if (end - data >= 4) {
        hash = rotated(hash ^ read_32(data) * PRIME_1, 23) * PRIME_2 + PRIME_3;
        data += 4;
    }
    for (; data < end; data++)
        hash = rotated(hash ^ *data * PRIME_5, 11) * PRIME_1;
    hash = (hash ^ hash >> 33) * PRIME_2;
    hash = (hash ^ hash >> 29) * PRIME_3;
    return hash ^ hash >> 32;
}

/* The halves of the product of 128 bits, one over the other. */
static uint64_t folded(uint64_t left, uint64_t right)
{
    __extension__ typedef unsigned __int128 Wide;
    Wide product = (Wide)left * right;

    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

uint64_t xxh3_of_24(const uint8_t data[24])
{
    /* The first 32 bytes of the secret of XXH3, as numbers. */
    static const uint64_t SECRET[4] = {0xBE4BA423396CFEB8u, 0x1CAD21F72C81017Cu, 0xDB979083E96DD4DEu,
                                       0x1F67B3B7A4A44072u};
    uint64_t hash = 24 * PRIME_1;

    hash += folded(read_64(data) ^ SECRET[0], read_64(data + 8) ^ SECRET[1]);
    hash += folded(read_64(data + 8) ^ SECRET[2], read_64(data + 16) ^ SECRET[3]);
    hash = (hash ^ hash >> 37) * 0x165667919E3779F9u;
    return hash ^ hash >> 32;
}
