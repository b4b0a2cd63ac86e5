/* A JPEG -> tokens: its symbols in their order, counted, with the bits behind them -> the same picture with restart markers
 * and the shortest Huffman codes. */
#ifndef IMGDATA_TOKENS_H
#define IMGDATA_TOKENS_H

#include "planes.h"
#include "turbo.h"

/* Bits of the numbers behind codes: of a coefficient, and of a difference of two. Baseline JPEG has no codes for more. */
#define AC_BITS 10
#define DC_BITS 11
#define END_OF_BLOCK 0
#define SIXTEEN_ZEROS 0xF0

/* Tables of Huffman codes that are written: one for Y, gray and RGB, one for Cb and Cr; each has codes for DC and AC. */
#define TABLES 2
/* Bits of a scan that are looked up at once. */
#define WINDOW_BITS 10
#define WINDOWS (1 << WINDOW_BITS)
/* Lookups, each of one Huffman code that is read, and of one table that is written. */
#define BOOKS 3

/* What a token stands for, its slot: a symbol of a table; or all symbols of a window of a book, one or two. The last book
 * is for what is read but not written. */
enum {
    DC_SLOTS = 0,
    AC_SLOTS = DC_SLOTS + TABLES * 16,
    WINDOW_SLOTS = AC_SLOTS + TABLES * 256,
    UNUSED_SLOTS = WINDOW_SLOTS + BOOKS * WINDOWS,
    SLOTS = UNUSED_SLOTS + WINDOWS
};
#define SLOT_BITS 16
#define SLOT_MASK ((1 << SLOT_BITS) - 1)

/* The symbols that a window begins with. */
typedef struct {
    uint8_t count; /* 1 or 2; 0: none that is looked up */
    uint8_t first, second;
    uint8_t length; /* bits of the first one, with its number */
    uint8_t known;  /* bits before the number of the last one */
} Window;

/* Blocks of one component. */
typedef struct {
    int across, down;  /* of an MCU */
    int columns, rows; /* of the picture; MCUs may reach beyond */
    int table;         /* that is written */
} Share;

typedef struct {
    int count; /* components */
    Share share[3];
    int columns, rows; /* MCUs of the picture */
    int interval;      /* MCUs from one restart marker that is written to the next */
} Grid;

typedef struct {
    /* Slot | number << SLOT_BITS; the number as it stands behind the last code; of windows, the last 16 bits of all. */
    uint32_t *first, *next;
    uint32_t *ends; /* of segments: tokens before them */
    int segments;
    uint32_t *counts; /* tokens of each slot */
    int books, table_of_book[BOOKS];
    Window (*windows)[WINDOWS]; /* of each book */
} Tokens;

/* Of a JPEG whose header was read, in one scan or in several. `interval`: 0 for the one of `interval_for`. */
Grid grid_of(const struct jpeg_decompress_struct *from, int interval);

/* Blocks of all MCUs. */
size_t blocks_of(const Grid *grid);

/* UNFIT for a file that libjpeg has to read: it is not of one baseline scan, is unusual in any way, or is damaged.
 * `behind`: where the bytes behind the end marker begin. */
Outcome read_scan_tokens(const struct jpeg_decompress_struct *from, const Grid *grid, Tokens *tokens,
                         const uint8_t **behind, Scratch *scratch);

/* The same of coefficients. UNFIT for those that baseline JPEG has no codes for. */
Outcome read_block_tokens(struct jpeg_decompress_struct *from, jvirt_barray_ptr *coefficients, const Grid *grid,
                          Tokens *tokens, Scratch *scratch);

/* From the tables of quantisation to the end marker. UNFIT for a picture that baseline JPEG can't hold. */
Outcome write_tokens(const struct jpeg_decompress_struct *from, const Grid *grid, const Tokens *tokens, Buffer *out,
                     Scratch *scratch);

/* --- For the two that make tokens ------------------------------------------------------------------------ */

/* Room for `most` tokens, fewer than 2^32; all counts are 0. */
Outcome tokens_begin(Tokens *tokens, const Grid *grid, size_t most, Scratch *scratch);

static inline int is_inside(const Share *share, int column, int row)
{
    return column < share->columns && row < share->rows;
}

static inline int is_last_of_segment(const Grid *grid, int column, int row)
{
    int behind = row * grid->columns + column + 1;

    return behind % grid->interval == 0 || behind == grid->columns * grid->rows;
}

static inline void put_token(Tokens *tokens, uint32_t slot, uint32_t number)
{
    tokens->counts[slot]++;
    *tokens->next++ = slot | number << SLOT_BITS;
}

/* 0 where there is no code for it. */
static inline int put_dc(Tokens *tokens, int table, int difference)
{
    int bits = 31 - __builtin_clz(2 * (unsigned)(difference < 0 ? -difference : difference) + 1);

    if (bits > DC_BITS)
        return 0;
    put_token(tokens, (uint32_t)(DC_SLOTS + table * 16 + bits),
              (uint32_t)(difference - (difference < 0)) & ((1u << bits) - 1));
    return 1;
}

static inline void put_ac(Tokens *tokens, int table, int symbol, uint32_t number)
{
    put_token(tokens, (uint32_t)(AC_SLOTS + table * 256 + symbol), number);
}

/* Behind the picture's edge libjpeg repeats the last block without details. */
static inline void put_empty_block(Tokens *tokens, int table)
{
    put_dc(tokens, table, 0);
    put_ac(tokens, table, END_OF_BLOCK, 0);
}

static inline void end_segment(Tokens *tokens)
{
    tokens->ends[tokens->segments++] = (uint32_t)(tokens->next - tokens->first);
}

#endif
