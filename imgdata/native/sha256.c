/* SHA-256 (FIPS 180-4) in Intel's instructions: four words of the message, and two times two rounds, at once. */
#include "sha256.h"
#include "processor.h"

#include <string.h>

#ifdef HAVE_X86
#include <immintrin.h>

static const uint32_t BEGIN[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
static const uint32_t ROUNDS[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

int sha256_is_fast(void)
{
    return processor_has(HAS_SHA);
}

/* The instructions want the words as ABEF and CDGH, each the most significant first. */
__attribute__((target("sha,sse4.1"))) static void add_blocks(uint32_t words[8], const uint8_t *data, size_t blocks)
{
    const __m128i bytes = _mm_set_epi64x(0x0c0d0e0f08090a0b, 0x0405060700010203);
    __m128i cdab = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)words), 0xB1);
    __m128i efgh = _mm_shuffle_epi32(_mm_loadu_si128((const __m128i *)(words + 4)), 0x1B);
    __m128i abef = _mm_alignr_epi8(cdab, efgh, 8), cdgh = _mm_blend_epi16(efgh, cdab, 0xF0);

    for (; blocks > 0; blocks--, data += SHA256_BLOCK) {
        __m128i before[2] = {abef, cdgh}, message[4];
#pragma GCC unroll 16
        for (int i = 0; i < 16; i++) {
            __m128i *four = &message[i & 3], sums;
            if (i < 4)
                *four = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i *)(data + 16 * i)), bytes);
            else
                *four = _mm_sha256msg2_epu32(
                    _mm_add_epi32(_mm_sha256msg1_epu32(*four, message[(i + 1) & 3]),
                                  _mm_alignr_epi8(message[(i + 3) & 3], message[(i + 2) & 3], 4)),
                    message[(i + 3) & 3]);
            sums = _mm_add_epi32(*four, _mm_loadu_si128((const __m128i *)(ROUNDS + 4 * i)));
            cdgh = _mm_sha256rnds2_epu32(cdgh, abef, sums);
            abef = _mm_sha256rnds2_epu32(abef, cdgh, _mm_shuffle_epi32(sums, 0x0E));
        }
        abef = _mm_add_epi32(abef, before[0]);
        cdgh = _mm_add_epi32(cdgh, before[1]);
    }
    abef = _mm_shuffle_epi32(abef, 0x1B);
    cdgh = _mm_shuffle_epi32(cdgh, 0xB1);
    _mm_storeu_si128((__m128i *)words, _mm_blend_epi16(abef, cdgh, 0xF0));
    _mm_storeu_si128((__m128i *)(words + 4), _mm_alignr_epi8(cdgh, abef, 8));
}

void sha256_update(Sha256 *hash, const uint8_t *data, size_t size)
{
    if (hash->length == 0)
        memcpy(hash->words, BEGIN, sizeof BEGIN);
    add_blocks(hash->words, data, size / SHA256_BLOCK);
    hash->length += size;
}

void sha256_digest(const Sha256 *hash, uint8_t digest[32])
{
    uint8_t end[SHA256_BLOCK] = {0x80};
    uint32_t words[8];

    memcpy(words, hash->length == 0 ? BEGIN : hash->words, sizeof words);
    for (int i = 0; i < 8; i++)
        end[SHA256_BLOCK - 1 - i] = (uint8_t)(hash->length * 8 >> 8 * i);
    add_blocks(words, end, 1);
    for (int i = 0; i < 32; i++)
        digest[i] = (uint8_t)(words[i / 4] >> (24 - 8 * (i % 4)));
}
#else
int sha256_is_fast(void)
{
    return 0;
}

void sha256_update(Sha256 *hash, const uint8_t *data, size_t size)
{
    (void)hash, (void)data, (void)size;
}

void sha256_digest(const Sha256 *hash, uint8_t digest[32])
{
    (void)hash, (void)digest;
}
#endif
