/* Huffman tables, kept from picture to picture: most files of a dataset have the same. */
#ifndef IMGDATA_KEPT_TABLES_H
#define IMGDATA_KEPT_TABLES_H

#include "huffman.h"

/* Of luma, and of chroma where it has others. */
typedef struct {
    DcTable dc[2];
    AcTable ac[2];
} Tables;

/* Tables of an earlier picture, or empty ones; NULL when there is no memory. For the caller alone, until given back. */
Tables *tables_take(void);
void tables_give(Tables *tables);

#endif
