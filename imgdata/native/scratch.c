/* Chunks of memory that wait in a few slots between images: fresh pages cost 8 % of the time of a small image. */
#include "scratch.h"

#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#define ALIGNMENT 64
/* Bytes. More is given back to the system after each image. */
#define KEPT_CAPACITY ((size_t)8 << 20)
#define SLOTS 16

typedef struct Chunk {
    struct Chunk *older;
    size_t used, capacity; /* bytes, this header included */
} Chunk;

static _Atomic(Chunk *) kept[SLOTS];

static size_t rounded_up(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

static Chunk *chunk_make(size_t capacity)
{
    Chunk *chunk = aligned_alloc(ALIGNMENT, capacity);

    if (chunk != NULL)
        *chunk = (Chunk){NULL, rounded_up(sizeof *chunk), capacity};
    return chunk;
}

static void free_all(Chunk *chunk)
{
    while (chunk != NULL) {
        Chunk *older = chunk->older;
        free(chunk);
        chunk = older;
    }
}

Scratch scratch_begin(void)
{
    Scratch scratch = {NULL};

    for (int i = 0; i < SLOTS && scratch.newest == NULL; i++)
        scratch.newest = atomic_exchange(&kept[i], NULL);
    return scratch;
}

void *scratch_take(Scratch *scratch, size_t count, size_t size)
{
    Chunk *chunk = scratch->newest;
    size_t bytes;
    void *piece;

    if (size != 0 && count > (SIZE_MAX / 2) / size)
        return NULL;
    bytes = rounded_up(count * size);
    if (chunk == NULL || bytes > chunk->capacity - chunk->used) {
        chunk = chunk_make(rounded_up(sizeof *chunk) + bytes);
        if (chunk == NULL)
            return NULL;
        chunk->older = scratch->newest;
        scratch->newest = chunk;
    }
    piece = (char *)chunk + chunk->used;
    chunk->used += bytes;
    return piece;
}

void scratch_end(Scratch *scratch)
{
    Chunk *chunk = scratch->newest;
    size_t used = 0;

    for (const Chunk *each = chunk; each != NULL; each = each->older)
        used += each->used;
    /* What came in pieces comes as one the next time. */
    if (chunk != NULL && chunk->older != NULL) {
        free_all(chunk);
        chunk = used <= KEPT_CAPACITY ? chunk_make(used) : NULL;
    }
    scratch->newest = NULL;
#ifdef __SANITIZE_ADDRESS__
    /* Every piece a chunk of its own, so that the sanitizer sees where each ends. */
    free_all(chunk);
    return;
#endif
    if (chunk == NULL)
        return;
    chunk->used = rounded_up(sizeof *chunk);
    for (int i = 0; i < SLOTS && chunk->capacity <= KEPT_CAPACITY; i++) {
        Chunk *none = NULL;
        if (atomic_compare_exchange_strong(&kept[i], &none, chunk))
            return;
    }
    free(chunk);
}
