/* Bytes of a shard -> the hash of its kind; the state lies in memory that Python owns. */
#ifndef IMGDATA_TAR_HASH_H
#define IMGDATA_TAR_HASH_H

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include "sha256.h"
#include "xxh128.h"

/* The order is that of imgdata.native.copying.TAR_HASHES. */
typedef enum { HASH_NONE, HASH_XXH128, HASH_SHA256, HASH_KINDS } HashKind;

typedef union {
    Xxh128 xxh128;
    Sha256 sha256;
} TarHash;

enum { HASHED_BYTES = 64 }; /* bytes come in multiples of it */

/* Adds `size` bytes, a multiple of HASHED_BYTES. */
void tar_hash_update(HashKind kind, TarHash *hash, const uint8_t *data, size_t size);

/* Whether `state` is memory for a hash of this kind, which this processor can make. */
int is_tar_hash(int kind, const Py_buffer *state);

int tar_hash_add_functions(PyObject *module);

#endif
