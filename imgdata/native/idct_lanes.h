/* The body of the 8x8 transform, for one block or for one in each half of a register. Included by idct.c alone, which says
 * what V (a register), P (the prefix of its operations), ZERO, NAME and TARGET are. */

/* Sums of two products: of the samples in `low`/`high` pairs of `a` and `b`, with two weights. */
#define WEIGHTS(first, second) P(set1_epi32)((int)((uint32_t)(second) << 16 | (uint16_t)(first)))
#define SUMS(pair, first, second) P(madd_epi16)(pair, WEIGHTS(first, second))

/* One half of the columns; `z` and `odd` as in jidctint.c: what is called tmp0 to tmp3 there is r7, r5, r3, r1 here. */
#define HALF(unpack, to)                                                                                               \
    {                                                                                                                  \
        V r26 = P(unpack)(row[2], row[6]), r71 = P(unpack)(row[7], row[1]), r53 = P(unpack)(row[5], row[3]);           \
        V z34 = P(unpack)(z3, z4);                                                                                     \
        V sum = P(srai_epi32)(P(unpack)(ZERO, sum04), 3), difference = P(srai_epi32)(P(unpack)(ZERO, difference04), 3);  \
        V even3 = SUMS(r26, 4433 + 6270, 4433), even2 = SUMS(r26, 4433, 4433 - 15137);                                 \
        V z3_ = SUMS(z34, 9633 - 16069, 9633), z4_ = SUMS(z34, 9633, 9633 - 3196);                                     \
        V odd0 = P(add_epi32)(SUMS(r71, 2446 - 7373, -7373), z3_);                                                     \
        V odd3 = P(add_epi32)(SUMS(r71, -7373, 12299 - 7373), z4_);                                                    \
        V odd1 = P(add_epi32)(SUMS(r53, 16819 - 20995, -20995), z4_);                                                  \
        V odd2 = P(add_epi32)(SUMS(r53, -20995, 25172 - 20995), z3_);                                                  \
        V even[4] = {P(add_epi32)(sum, even3), P(add_epi32)(difference, even2), P(sub_epi32)(difference, even2),       \
                     P(sub_epi32)(sum, even3)};                                                                        \
        V odd[4] = {odd3, odd2, odd1, odd0};                                                                           \
        for (int i = 0; i < 4; i++) {                                                                                  \
            V rounded = P(add_epi32)(even[i], P(set1_epi32)(1 << (shift - 1)));                                        \
            to[i] = P(srai_epi32)(P(add_epi32)(rounded, odd[i]), shift);                                               \
            to[7 - i] = P(srai_epi32)(P(sub_epi32)(rounded, odd[i]), shift);                                           \
        }                                                                                                              \
    }

TARGET static inline __attribute__((always_inline)) void NAME(pass)(V *row, int shift)
{
    V z3 = P(add_epi16)(row[7], row[3]), z4 = P(add_epi16)(row[5], row[1]);
    V sum04 = P(add_epi16)(row[0], row[4]), difference04 = P(sub_epi16)(row[0], row[4]);
    V low[8], high[8];

    HALF(unpacklo_epi16, low)
    HALF(unpackhi_epi16, high)
    for (int i = 0; i < 8; i++)
        row[i] = P(packs_epi32)(low[i], high[i]);
}

/* One half of the columns, where rows 4 to 7 are 0. */
#define UPPER_HALF(unpack, to)                                                                                         \
    {                                                                                                                  \
        V r20 = P(unpack)(row[2], ZERO), r13 = P(unpack)(row[1], row[3]);                                              \
        V first = P(add_epi32)(P(srai_epi32)(P(unpack)(ZERO, row[0]), 3), P(set1_epi32)(1 << (shift - 1)));            \
        V even3 = SUMS(r20, 4433 + 6270, 0), even2 = SUMS(r20, 4433, 0);                                               \
        V odd[4] = {SUMS(r13, 12299 - 7373 + 9633 - 3196, 9633), SUMS(r13, 9633, 25172 - 20995 + 9633 - 16069),        \
                    SUMS(r13, 9633 - 3196, 9633 - 20995), SUMS(r13, 9633 - 7373, 9633 - 16069)};                       \
        V even[4] = {P(add_epi32)(first, even3), P(add_epi32)(first, even2), P(sub_epi32)(first, even2),               \
                     P(sub_epi32)(first, even3)};                                                                      \
        for (int i = 0; i < 4; i++) {                                                                                  \
            to[i] = P(srai_epi32)(P(add_epi32)(even[i], odd[i]), shift);                                               \
            to[7 - i] = P(srai_epi32)(P(sub_epi32)(even[i], odd[i]), shift);                                           \
        }                                                                                                              \
    }

/* Both passes of a block whose coefficients behind the tenth are 0: they are in the upper left quarter. */
TARGET static inline __attribute__((always_inline)) void NAME(upper_first_pass)(V *row, int shift)
{
    V low[8];

    UPPER_HALF(unpacklo_epi16, low)
    for (int i = 0; i < 8; i++)
        row[i] = P(packs_epi32)(low[i], ZERO);
}

TARGET static inline __attribute__((always_inline)) void NAME(upper_second_pass)(V *row, int shift)
{
    V low[8], high[8];

    UPPER_HALF(unpacklo_epi16, low)
    UPPER_HALF(unpackhi_epi16, high)
    for (int i = 0; i < 8; i++)
        row[i] = P(packs_epi32)(low[i], high[i]);
}

TARGET static inline __attribute__((always_inline)) void NAME(transpose)(V *row)
{
    V a[8], b[8];

    for (int i = 0; i < 4; i++) {
        a[2 * i] = P(unpacklo_epi16)(row[i], row[i + 4]);
        a[2 * i + 1] = P(unpackhi_epi16)(row[i], row[i + 4]);
    }
    /* a: rows 0 and 4 (columns 0 to 3), the same (4 to 7), 1 and 5, 2 and 6, 3 and 7. */
    for (int i = 0; i < 2; i++)
        for (int half = 0; half < 2; half++) {
            b[4 * half + 2 * i] = P(unpacklo_epi16)(a[2 * i + half], a[2 * i + 4 + half]);
            b[4 * half + 2 * i + 1] = P(unpackhi_epi16)(a[2 * i + half], a[2 * i + 4 + half]);
        }
    /* b: rows 0, 2, 4, 6 of columns 0 and 1, of 2 and 3, then rows 1, 3, 5, 7; and the other columns. */
    for (int half = 0; half < 2; half++)
        for (int i = 0; i < 2; i++) {
            row[4 * half + 2 * i] = P(unpacklo_epi16)(b[4 * half + i], b[4 * half + 2 + i]);
            row[4 * half + 2 * i + 1] = P(unpackhi_epi16)(b[4 * half + i], b[4 * half + 2 + i]);
        }
}

/* Columns of samples -> two rows in each register: 0 and 1, 2 and 3, 4 and 5, 6 and 7. */
TARGET static inline __attribute__((always_inline)) void NAME(bytes)(const V *column, V *rows)
{
    V a[4], low[2], high[2];

    for (int i = 0; i < 4; i++)
        a[i] = P(packs_epi16)(column[i], column[i + 4]);
    for (int i = 0; i < 2; i++) {
        low[i] = P(unpacklo_epi8)(a[2 * i], a[2 * i + 1]);
        high[i] = P(unpackhi_epi8)(a[2 * i], a[2 * i + 1]);
    }
    for (int i = 0; i < 2; i++) {
        V left = i == 0 ? P(unpacklo_epi16)(low[0], low[1]) : P(unpackhi_epi16)(low[0], low[1]);
        V right = i == 0 ? P(unpacklo_epi16)(high[0], high[1]) : P(unpackhi_epi16)(high[0], high[1]);
        rows[2 * i] = P(add_epi8)(P(unpacklo_epi32)(left, right), P(set1_epi8)(-128));
        rows[2 * i + 1] = P(add_epi8)(P(unpackhi_epi32)(left, right), P(set1_epi8)(-128));
    }
}

#undef WEIGHTS
#undef SUMS
#undef HALF
#undef UPPER_HALF
