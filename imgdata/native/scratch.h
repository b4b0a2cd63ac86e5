/* Memory for one image: taken piece by piece, given back as a whole, and kept for the next image. */
#ifndef IMGDATA_SCRATCH_H
#define IMGDATA_SCRATCH_H

#include <stddef.h>

typedef struct {
    struct Chunk *newest;
} Scratch;

Scratch scratch_begin(void);

/* `count` x `size` bytes at a multiple of 64, not cleared; NULL when there is no memory. */
void *scratch_take(Scratch *scratch, size_t count, size_t size);

/* Everything taken is gone. */
void scratch_end(Scratch *scratch);

#endif
