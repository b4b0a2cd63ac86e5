/* Bytes at a place of an open file. */
#ifndef IMGDATA_READ_ALL_H
#define IMGDATA_READ_ALL_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define FILE_ENDS (-1)

/* `size` bytes at `offset`: 0, FILE_ENDS where there are fewer, or an errno. */
int read_all(int file, uint8_t *to, size_t size, off_t offset);

#endif
