/* The parts of a baseline JPEG before its coded data. */
#ifndef IMGDATA_WRITE_TOKENS_H
#define IMGDATA_WRITE_TOKENS_H

#include "tokens.h"

/* Bytes of both headers: never more. */
#define MOST_HEADER 4096

/* Tables of quantisation, and the frame; returns where they end. */
uint8_t *put_frame(uint8_t *to, const struct jpeg_decompress_struct *from);

/* Tables of codes, the restart interval, and the scan. */
uint8_t *put_scan_header(uint8_t *to, const struct jpeg_decompress_struct *from, const Grid *grid,
                         const JHUFF_TBL dc[TABLES], const JHUFF_TBL ac[TABLES]);

#endif
