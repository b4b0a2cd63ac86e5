/* Bytes that come piece by piece -> SHA-256, by the processor's own instructions. */
#ifndef IMGDATA_SHA256_H
#define IMGDATA_SHA256_H

#include <stddef.h>
#include <stdint.h>

enum { SHA256_BLOCK = 64 };

/* All that is known of the bytes so far; zeros before the first one. */
typedef struct {
    uint32_t words[8];
    uint64_t length;
} Sha256;

/* Whether the processor has instructions for it; Python's hashlib is as good elsewhere. */
int sha256_is_fast(void);

/* Takes the next bytes: a multiple of SHA256_BLOCK. Only where `sha256_is_fast`. */
void sha256_update(Sha256 *hash, const uint8_t *data, size_t size);

void sha256_digest(const Sha256 *hash, uint8_t digest[32]);

#endif
