/* Coefficients -> the Huffman tables with which they take the fewest bytes. */
#ifndef IMGDATA_BEST_TABLES_H
#define IMGDATA_BEST_TABLES_H

#include "turbo.h"

/* Sets the tables of `to`, whose components, tables' numbers and restart interval are set: those of libjpeg's
 * `optimize_coding`, which takes four times as long to count. 0 for coefficients that baseline JPEG has no codes for. */
int set_best_tables(struct jpeg_compress_struct *to, struct jpeg_decompress_struct *from, jvirt_barray_ptr *coefficients);

#endif
