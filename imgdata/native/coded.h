/* The coded bytes of a JPEG, between its markers. */
#ifndef IMGDATA_CODED_H
#define IMGDATA_CODED_H

#include <stddef.h>
#include <stdint.h>

/* Bytes that may be written behind what `unstuff` returns. */
#define UNSTUFF_ROOM 16

/* The first marker from `at` on: a byte 0xFF, and one that is not 0. NULL where there is none before `end`. */
const uint8_t *find_marker(const uint8_t *at, const uint8_t *end);

/* Bytes without a marker -> `to`, without the zeros that are stuffed behind each 0xFF; how many. */
size_t unstuff(const uint8_t *from, const uint8_t *end, uint8_t *to);

#endif
