/* Bytes to the end of an open file. */
#ifndef IMGDATA_WRITE_ALL_H
#define IMGDATA_WRITE_ALL_H

#include <stddef.h>
#include <stdint.h>

/* 0, or an errno. */
int write_all(int file, const uint8_t *data, size_t size);

#endif
