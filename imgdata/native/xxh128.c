/* XXH3 of 128 bits for long inputs, after the specification of xxHash (github.com/Cyan4973/xxHash, doc/xxhash_spec.md).

A stripe is held back until another one follows, since the last one of all is added in its own way. */
#include "xxh128.h"
#include "processor.h"
#include "xxhash.h"

#include <string.h>

#ifdef HAVE_X86
#include <immintrin.h>
#endif

enum { BLOCK_STRIPES = 16, SECRET_BYTES = 192 };

static const uint64_t PRIME_1 = 0x9E3779B185EBCA87u, PRIME_2 = 0xC2B2AE3D27D4EB4Fu, PRIME_32_1 = 0x9E3779B1u;
static const uint64_t BEGIN[8] = {0xC2B2AE3Du,         0x9E3779B185EBCA87u, 0xC2B2AE3D27D4EB4Fu, 0x165667B19E3779F9u,
                                  0x85EBCA77C2B2AE63u, 0x85EBCA77u,         0x27D4EB2F165667C5u, 0x9E3779B1u};
static const uint8_t SECRET[SECRET_BYTES] = {
    0xb8, 0xfe, 0x6c, 0x39, 0x23, 0xa4, 0x4b, 0xbe, 0x7c, 0x01, 0x81, 0x2c, 0xf7, 0x21, 0xad, 0x1c,
    0xde, 0xd4, 0x6d, 0xe9, 0x83, 0x90, 0x97, 0xdb, 0x72, 0x40, 0xa4, 0xa4, 0xb7, 0xb3, 0x67, 0x1f,
    0xcb, 0x79, 0xe6, 0x4e, 0xcc, 0xc0, 0xe5, 0x78, 0x82, 0x5a, 0xd0, 0x7d, 0xcc, 0xff, 0x72, 0x21,
    0xb8, 0x08, 0x46, 0x74, 0xf7, 0x43, 0x24, 0x8e, 0xe0, 0x35, 0x90, 0xe6, 0x81, 0x3a, 0x26, 0x4c,
    0x3c, 0x28, 0x52, 0xbb, 0x91, 0xc3, 0x00, 0xcb, 0x88, 0xd0, 0x65, 0x8b, 0x1b, 0x53, 0x2e, 0xa3,
    0x71, 0x64, 0x48, 0x97, 0xa2, 0x0d, 0xf9, 0x4e, 0x38, 0x19, 0xef, 0x46, 0xa9, 0xde, 0xac, 0xd8,
    0xa8, 0xfa, 0x76, 0x3f, 0xe3, 0x9c, 0x34, 0x3f, 0xf9, 0xdc, 0xbb, 0xc7, 0xc7, 0x0b, 0x4f, 0x1d,
    0x8a, 0x51, 0xe0, 0x4b, 0xcd, 0xb4, 0x59, 0x31, 0xc8, 0x9f, 0x7e, 0xc9, 0xd9, 0x78, 0x73, 0x64,
    0xea, 0xc5, 0xac, 0x83, 0x34, 0xd3, 0xeb, 0xc3, 0xc5, 0x81, 0xa0, 0xff, 0xfa, 0x13, 0x63, 0xeb,
    0x17, 0x0d, 0xdd, 0x51, 0xb7, 0xf0, 0xda, 0x49, 0xd3, 0x16, 0x55, 0x26, 0x29, 0xd4, 0x68, 0x9e,
    0x2b, 0x16, 0xbe, 0x58, 0x7d, 0x47, 0xa1, 0xfc, 0x8f, 0xf8, 0xb8, 0xd1, 0x7a, 0xd0, 0x31, 0xce,
    0x45, 0xcb, 0x3a, 0x8f, 0x95, 0x16, 0x04, 0x28, 0xaf, 0xd7, 0xfb, 0xca, 0xbb, 0x4b, 0x40, 0x7e};

static void add_stripes(uint64_t sums[8], const uint8_t *data, size_t stripes, const uint8_t *secret)
{
    for (; stripes > 0; stripes--, data += STRIPE, secret += 8)
        for (int i = 0; i < 8; i++) {
            uint64_t value = read_64(data + 8 * i), mixed = value ^ read_64(secret + 8 * i);
            sums[i ^ 1] += value;
            sums[i] += (mixed & 0xFFFFFFFFu) * (mixed >> 32);
        }
}

#ifdef HAVE_X86
__attribute__((target("avx2"))) static __m256i added(__m256i sums, const uint8_t *data, const uint8_t *secret)
{
    __m256i value = _mm256_loadu_si256((const __m256i *)data);
    __m256i mixed = _mm256_xor_si256(value, _mm256_loadu_si256((const __m256i *)secret));
    __m256i product = _mm256_mul_epu32(mixed, _mm256_srli_epi64(mixed, 32));

    return _mm256_add_epi64(sums, _mm256_add_epi64(product, _mm256_shuffle_epi32(value, _MM_SHUFFLE(1, 0, 3, 2))));
}

__attribute__((target("avx2"))) static void add_stripes_avx2(uint64_t sums[8], const uint8_t *data, size_t stripes,
                                                             const uint8_t *secret)
{
    __m256i low = _mm256_loadu_si256((const __m256i *)sums), high = _mm256_loadu_si256((const __m256i *)(sums + 4));

    for (; stripes > 0; stripes--, data += STRIPE, secret += 8) {
        low = added(low, data, secret);
        high = added(high, data + 32, secret + 32);
    }
    _mm256_storeu_si256((__m256i *)sums, low);
    _mm256_storeu_si256((__m256i *)(sums + 4), high);
}
#endif

static void scramble(uint64_t sums[8])
{
    for (int i = 0; i < 8; i++)
        sums[i] = (sums[i] ^ sums[i] >> 47 ^ read_64(SECRET + SECRET_BYTES - STRIPE + 8 * i)) * PRIME_32_1;
}

/* Stripes that are not the last ones. */
static void take(Xxh128 *hash, const uint8_t *data, size_t stripes)
{
    void (*add)(uint64_t *, const uint8_t *, size_t, const uint8_t *) = add_stripes;

#ifdef HAVE_X86
    if (processor_has(HAS_AVX2))
        add = add_stripes_avx2;
#endif
    while (stripes > 0) {
        size_t room = BLOCK_STRIPES - hash->stripes, now = stripes < room ? stripes : room;
        add(hash->sums, data, now, SECRET + 8 * hash->stripes);
        data += now * STRIPE;
        stripes -= now;
        hash->stripes += now;
        if (hash->stripes == BLOCK_STRIPES) {
            scramble(hash->sums);
            hash->stripes = 0;
        }
    }
}

void xxh128_update(Xxh128 *hash, const uint8_t *data, size_t size)
{
    if (size == 0)
        return;
    if (hash->length == 0)
        memcpy(hash->sums, BEGIN, sizeof BEGIN);
    else
        take(hash, hash->last, 1);
    take(hash, data, size / STRIPE - 1);
    memcpy(hash->last, data + size - STRIPE, STRIPE);
    hash->length += size;
}

static uint64_t merged(const uint64_t sums[8], const uint8_t *secret, uint64_t hash)
{
    __extension__ typedef unsigned __int128 Wide;

    for (int i = 0; i < 8; i += 2) {
        Wide product = (Wide)(sums[i] ^ read_64(secret + 8 * i)) * (sums[i + 1] ^ read_64(secret + 8 * i + 8));
        hash += (uint64_t)product ^ (uint64_t)(product >> 64);
    }
    hash = (hash ^ hash >> 37) * 0x165667919E3779F9u;
    return hash ^ hash >> 32;
}

void xxh128_digest(const Xxh128 *hash, uint8_t digest[16])
{
    uint64_t sums[8], halves[2];

    memcpy(sums, hash->sums, sizeof sums);
    add_stripes(sums, hash->last, 1, SECRET + SECRET_BYTES - STRIPE - 7);
    halves[0] = merged(sums, SECRET + SECRET_BYTES - STRIPE - 11, ~(hash->length * PRIME_2));
    halves[1] = merged(sums, SECRET + 11, hash->length * PRIME_1);
    for (int i = 0; i < 16; i++)
        digest[i] = (uint8_t)(halves[i / 8] >> (56 - 8 * (i % 8)));
}
