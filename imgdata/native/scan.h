/* A baseline scan that is being decoded into planes. */
#ifndef IMGDATA_SCAN_H
#define IMGDATA_SCAN_H

#include "header.h"
#include "huffman.h"
#include "slice.h"

/* MCUs whose coefficients are held at once: they stay in the first cache, and have long left the processor's queue of
 * writes when they are read. */
#define MCUS_AT_ONCE 8
/* Of 4:2:0. */
#define MOST_BLOCKS (6 * MCUS_AT_ONCE)

typedef struct {
    uint16_t quant[64];
    const DcTable *dc;
    const AcTable *ac;
    int across, down; /* blocks in an MCU */
    int side;         /* samples of a block's side: 1, 2, 4 or 8 */
    int last_dc;
} Component;

typedef struct {
    Header header;
    Component components[3];
    int columns, rows; /* MCUs */
    int blocks;        /* of an MCU, of planes that are made */
    Range wanted;      /* MCUs */
    Reader reader;
    const uint8_t *start; /* coded bytes of a segment, without stuffed ones */
    size_t length;
    Planes *planes;
    Simd simd;
    int held;              /* MCUs that are read, but not transformed */
    int16_t *coefficients; /* theirs: MOST_BLOCKS, and two that are not used */
    uint8_t *counts;       /* coefficients of each block */
} Scan;

/* Room for coefficients. */
Outcome alloc_scan(Scan *scan, Scratch *scratch);

/* The segments of a crop-ready file that cover the part; `bytes` has room for the longest, and SEGMENT_PADDING more. */
Outcome read_segments(Scan *scan, const Segments *segments, uint8_t *bytes);

#endif
