/* How often symbols occur -> the Huffman codes with which they take the fewest bits. */
#ifndef IMGDATA_BEST_TABLES_H
#define IMGDATA_BEST_TABLES_H

#include "turbo.h"

#include <stdint.h>

#define SYMBOLS 256

/* The table of libjpeg's `optimize_coding`. `counts` has room for one symbol more. 0 for counts whose codes are too long. */
int set_best_table(JHUFF_TBL *table, uint64_t counts[SYMBOLS + 1]);

#endif
