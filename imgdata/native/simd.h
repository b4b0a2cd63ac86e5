/* How sums are made: for each kind of processor; all ways give the same bytes. */
#ifndef IMGDATA_SIMD_H
#define IMGDATA_SIMD_H

typedef enum { SCALAR, SSE2, AVX2 } Simd;

/* The fastest that this processor has. */
Simd best_simd(void);

#endif
