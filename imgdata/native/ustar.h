/* Headers of a USTAR archive's members, as imgdata writes them. */
#ifndef IMGDATA_USTAR_H
#define IMGDATA_USTAR_H

#include <stddef.h>
#include <stdint.h>

/* Bytes of a header, and of the steps in which members follow each other; bytes of a name in it. */
enum { BLOCK = 512, NAME_BYTES = 100 };

/* Bytes of a member's data in the archive. */
static inline size_t padded(size_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

/* The header of the member `key`.`extension`, as imgdata.tar.archive.ustar_header writes it: owner 0, mode 0644, time 0. */
void write_header(uint8_t *header, const char *key, const char *extension, size_t size);

/* Whether a header is that of a regular file of this name and size. */
int is_header(const uint8_t *header, const char *name, int64_t size);

#endif
