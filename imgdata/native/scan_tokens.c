/* Bits of a baseline scan -> tokens. A lookup of the next bits gives one or two symbols, and how far to go; what the
 * numbers behind the codes are is of no interest, but of DC, which is coded as a difference. */
#include "blocks.h"
#include "coded.h"
#include "header.h"
#include "processor.h"
#include "tokens.h"

/* Behind whatever a block has: a window that is left to `long_code`. */
#define BEYOND 255

typedef struct {
    uint8_t symbol, length; /* bits; 0 for no code */
} Code;

/* What is read, all symbols of a window: bits, with the number behind the last code, | SKIP: coefficients up to the last
 * symbol's, 0 where there is one symbol, | BOTH: and behind it. BEYOND for windows without a symbol. */
typedef uint32_t Entry;
#define LENGTH(entry) ((entry) & 63)
#define SKIP(entry) ((entry) >> 8 & 255)
#define BOTH(entry) ((entry) >> 16)
#define ENTRY(length, skip, both) ((Entry)(length) | (Entry)(skip) << 8 | (Entry)(both) << 16)

typedef struct {
    Entry entries[WINDOWS];
    const Window *windows;
    DcTable dc;
    Codes codes;
    uint32_t window_slots, symbol_slots;
} Book;

/* --- Tables ------------------------------------------------------------------------------------------------ */

static Code long_code(uint64_t bits, const Codes *codes)
{
    uint32_t code = (uint32_t)(bits >> 48);

    for (int length = 1; length <= 16; length++)
        if (code < codes->limit[length])
            return (Code){codes->bytes[(int)(code >> (16 - length)) + codes->offset[length]], (uint8_t)length};
    return (Code){0, 0};
}

/* The code of every window; those that are longer than it are left out. */
static void set_lookup(Code *lookup, const Codes *codes)
{
    int code = 0, place = 0;

    memset(lookup, 0, WINDOWS * sizeof *lookup);
    for (int length = 1; length <= WINDOW_BITS; length++, code *= 2)
        for (int i = 0; i < codes->given[length - 1]; i++, code++, place++) {
            int rest = WINDOW_BITS - length;
            for (int each = code << rest; each < (code + 1) << rest; each++)
                lookup[each] = (Code){codes->bytes[place], (uint8_t)length};
        }
}

/* Whether windows hold it: of symbols without a number, only the end of a block is usual. */
static int is_usual(Code code)
{
    int size = code.symbol & 15;

    return code.length > 0 && size <= AC_BITS && (size > 0 || code.symbol == END_OF_BLOCK);
}

static int skip_of(uint8_t symbol)
{
    return symbol == END_OF_BLOCK ? BLOCK_END : (symbol >> 4) + 1;
}

static void set_window(const Code *lookup, unsigned bits, Entry *entry, Window *window)
{
    Code one = lookup[bits], other;
    int length = one.length + (one.symbol & 15);

    *window = (Window){0};
    *entry = ENTRY(0, BEYOND, BEYOND);
    if (!is_usual(one))
        return;
    *window = (Window){1, one.symbol, 0, (uint8_t)length, one.length};
    *entry = ENTRY(length, 0, skip_of(one.symbol));
    if (length >= WINDOW_BITS || one.symbol == END_OF_BLOCK)
        return;
    other = lookup[bits << length & (WINDOWS - 1)];
    if (!is_usual(other) || length + other.length > WINDOW_BITS)
        return;
    *window = (Window){2, one.symbol, other.symbol, (uint8_t)length, (uint8_t)(length + other.length)};
    *entry = ENTRY(length + other.length + (other.symbol & 15), skip_of(one.symbol),
                   skip_of(one.symbol) + skip_of(other.symbol));
}

static Outcome set_book(Book *book, Window *windows, const JHUFF_TBL *dc, const JHUFF_TBL *ac)
{
    Code lookup[WINDOWS];

    /* As in the file: behind how many codes there are of each length come their symbols. */
    book->dc.codes.is_set = 0;
    if (dc == NULL || ac == NULL || dc_table_set(&book->dc, dc->bits + 1) != DONE ||
        codes_set(&book->codes, ac->bits + 1, 0) != DONE)
        return UNFIT;
    set_lookup(lookup, &book->codes);
    for (unsigned bits = 0; bits < WINDOWS; bits++)
        set_window(lookup, bits, &book->entries[bits], &windows[bits]);
    book->windows = windows;
    return DONE;
}

/* --- Blocks -------------------------------------------------------------------------------------------------- */

/* The first code of a window; length 0 for one that baseline JPEG has not. */
static Code code_of(const Book *book, uint32_t window, uint64_t bits)
{
    Window found = book->windows[window];
    Code code = {found.first, (uint8_t)(found.length - (found.first & 15))};

    if (found.count > 0)
        return code;
    code = long_code(bits, &book->codes);
    return is_usual(code) || code.symbol == SIXTEEN_ZEROS ? code : (Code){0, 0};
}

/* The symbols of a window are passed; the token has their last bits: of the number behind the last code, and before it of
 * the window, which the writer takes out. */
INLINE uint32_t *take_window(Reader *reader, Entry entry, uint32_t slot, uint32_t *counts, uint32_t *to)
{
    counts[slot]++;
    *to = slot | (uint32_t)(reader->bits >> (64 - LENGTH(entry))) << SLOT_BITS;
    drop(reader, LENGTH(entry));
    return to + 1;
}

/* The coefficients behind the first -> tokens; 0 where libjpeg has to look at them. `windows`, `symbols`: the first of
 * their slots. */
INLINE int copy_block(Reader *reader, const Book *book, uint32_t windows, uint32_t symbols, Tokens *tokens)
{
    uint32_t *to = tokens->next, *counts = tokens->counts, window;
    unsigned at = 1, behind_zeros = 0;
    Entry entry;
    Code code;

    for (;;) {
        /* 21 bits each, or 31 for the last one. */
        refill(reader);
        window = (uint32_t)(reader->bits >> (64 - WINDOW_BITS));
        entry = book->entries[window];
        if (LIKELY(at + BOTH(entry) < DCTSIZE2)) {
            to = take_window(reader, entry, windows + window, counts, to);
            at += BOTH(entry);
            window = (uint32_t)(reader->bits >> (64 - WINDOW_BITS));
            entry = book->entries[window];
            if (LIKELY(at + BOTH(entry) < DCTSIZE2)) {
                to = take_window(reader, entry, windows + window, counts, to);
                at += BOTH(entry);
                continue;
            }
        }
        if (LIKELY(at + SKIP(entry) < DCTSIZE2)) {
            to = take_window(reader, entry, windows + window, counts, to);
            at += BOTH(entry);
            break;
        }
        code = code_of(book, window, reader->bits);
        if (code.length == 0)
            return 0;
        counts[symbols + code.symbol]++;
        *to++ = (symbols + code.symbol) |
                (uint32_t)(reader->bits << code.length >> 1 >> (63 - (code.symbol & 15))) << SLOT_BITS;
        drop(reader, code.length + (code.symbol & 15));
        at += (unsigned)skip_of(code.symbol);
        if (code.symbol == SIXTEEN_ZEROS)
            behind_zeros = at;
        if (at >= DCTSIZE2)
            break;
    }
    tokens->next = to;
    /* No coefficient behind zeros: they need not be written. */
    return is_end((int)at) && behind_zeros != (at & (BLOCK_END - 1));
}

/* --- The scan -------------------------------------------------------------------------------------------------- */

typedef struct {
    const uint8_t *from, *end; /* what comes behind the segment */
    uint8_t *bytes;            /* of the segment, without stuffed ones, and SEGMENT_PADDING */
    size_t length;
    uint8_t marker; /* behind it */
    Reader reader;
} Stream;

/* 0 where the file ends before the next marker. */
static int next_segment(Stream *stream)
{
    const uint8_t *marker = find_marker(stream->from, stream->end);

    if (marker == NULL)
        return 0;
    stream->marker = marker[1];
    stream->length = unstuff(stream->from, marker, stream->bytes);
    stream->from = marker + 2;
    stream->reader = (Reader){stream->bytes, 0, 0};
    memset(stream->bytes + stream->length, 0, SEGMENT_PADDING);
    return 1;
}

static int is_used_up(const Stream *stream)
{
    return has_read_all(&stream->reader, stream->bytes, stream->length);
}

INLINE int read_share(Stream *stream, const Book *book, const Share *share, int column, int row, int last[2],
                      Tokens *tokens)
{
    /* What has no address stays in registers. */
    Reader reader = stream->reader;
    const uint8_t *end = stream->bytes + stream->length + 8;

    for (int y = row * share->down; y < (row + 1) * share->down; y++)
        for (int x = column * share->across; x < (column + 1) * share->across; x++) {
            uint32_t *before;
            int value;
            if (reader.next > end || !read_dc(&reader, &book->dc, &value))
                return 0;
            last[0] += value;
            /* Coefficients have 16 bits. */
            if (last[0] != (int16_t)last[0])
                return 0;
            if (LIKELY(is_inside(share, x, y))) {
                if (!put_dc(tokens, share->table, last[0] - last[1]) ||
                    !copy_block(&reader, book, book->window_slots, book->symbol_slots, tokens))
                    return 0;
                last[1] = last[0];
                continue;
            }
            before = tokens->next;
            if (!copy_block(&reader, book, UNUSED_SLOTS, UNUSED_SLOTS, tokens))
                return 0;
            tokens->next = before;
            put_empty_block(tokens, share->table);
        }
    stream->reader = reader;
    return 1;
}

/* `every`: MCUs from marker to marker of the file. */
INLINE int read_mcus_inline(Stream *stream, const Book *books[3], const Grid *grid, unsigned every, Tokens *tokens)
{
    int last[3][2] = {{0}};
    unsigned left = 0, restarts = 0;

    for (int row = 0; row < grid->rows; row++)
        for (int column = 0; column < grid->columns; column++, left--) {
            if (left == 0) {
                if (restarts > 0 && (stream->marker != RST0 + (restarts - 1) % 8 || !is_used_up(stream)))
                    return 0;
                if (!next_segment(stream))
                    return 0;
                restarts++;
                left = every > 0 ? every : UINT32_MAX;
                last[0][0] = last[1][0] = last[2][0] = 0;
            }
            for (int i = 0; i < grid->count; i++)
                if (!read_share(stream, books[i], &grid->share[i], column, row, last[i], tokens))
                    return 0;
            if (is_last_of_segment(grid, column, row)) {
                end_segment(tokens);
                last[0][1] = last[1][1] = last[2][1] = 0;
            }
        }
    return stream->marker == EOI && is_used_up(stream);
}

static int read_mcus_any(Stream *stream, const Book *books[3], const Grid *grid, unsigned every, Tokens *tokens)
{
    return read_mcus_inline(stream, books, grid, every, tokens);
}

#ifdef HAVE_X86
/* Shifts by any register: a twentieth of the time. */
__attribute__((target("avx2,bmi,bmi2"))) static int read_mcus_avx2(Stream *stream, const Book *books[3], const Grid *grid,
                                                                   unsigned every, Tokens *tokens)
{
    return read_mcus_inline(stream, books, grid, every, tokens);
}
#endif

static int read_mcus(Stream *stream, const Book *books[3], const Grid *grid, unsigned every, Tokens *tokens)
{
#ifdef HAVE_X86
    if (best_simd() == AVX2)
        return read_mcus_avx2(stream, books, grid, every, tokens);
#endif
    return read_mcus_any(stream, books, grid, every, tokens);
}

/* --- The picture ------------------------------------------------------------------------------------------------- */

static int is_plain_scan(const struct jpeg_decompress_struct *from)
{
    if (from->progressive_mode || from->arith_code || from->comps_in_scan != from->num_components || from->Ss != 0 ||
        from->Se != DCTSIZE2 - 1 || from->Ah != 0 || from->Al != 0)
        return 0;
    for (int i = 0; i < from->num_components; i++) {
        const jpeg_component_info *component = &from->comp_info[i];
        if (from->cur_comp_info[i] != component || component->dc_tbl_no < 0 || component->dc_tbl_no >= NUM_HUFF_TBLS ||
            component->ac_tbl_no < 0 || component->ac_tbl_no >= NUM_HUFF_TBLS)
            return 0;
    }
    return 1;
}

/* A book of component `i`, or an earlier one's that is the same. */
static Outcome choose_book(const struct jpeg_decompress_struct *from, const Grid *grid, int i, const Book *books[3],
                           Tokens *tokens, Scratch *scratch)
{
    const jpeg_component_info *component = &from->comp_info[i];
    Book *book;

    for (int j = 0; j < i; j++)
        if (from->comp_info[j].dc_tbl_no == component->dc_tbl_no && from->comp_info[j].ac_tbl_no == component->ac_tbl_no &&
            grid->share[j].table == grid->share[i].table) {
            books[i] = books[j];
            return DONE;
        }
    books[i] = book = scratch_take(scratch, 1, sizeof *book);
    if (book == NULL)
        return NO_MEMORY;
    book->window_slots = (uint32_t)(WINDOW_SLOTS + tokens->books * WINDOWS);
    book->symbol_slots = (uint32_t)(AC_SLOTS + grid->share[i].table * 256);
    tokens->table_of_book[tokens->books] = grid->share[i].table;
    return set_book(book, tokens->windows[tokens->books++], from->dc_huff_tbl_ptrs[component->dc_tbl_no],
                    from->ac_huff_tbl_ptrs[component->ac_tbl_no]);
}

Outcome read_scan_tokens(const struct jpeg_decompress_struct *from, const Grid *grid, Tokens *tokens,
                         const uint8_t **behind, Scratch *scratch)
{
    const uint8_t *start = from->src->next_input_byte;
    size_t size = from->src->bytes_in_buffer;
    Stream stream = {.from = start, .end = start + size};
    const Book *books[3];
    /* A block has 64 symbols at most, or fewer and its end; one that is read but not written is behind them for a while.
     * Every token has a bit at least; that the file ends is noticed at the end of a block. */
    size_t most = DCTSIZE2 * (blocks_of(grid) + 1), bits = 8 * (size + SEGMENT_PADDING);
    Outcome outcome;

    if (!is_plain_scan(from))
        return UNFIT;
    outcome = tokens_begin(tokens, grid, most < bits ? most : bits, scratch);
    for (int i = 0; i < grid->count && outcome == DONE; i++)
        outcome = choose_book(from, grid, i, books, tokens, scratch);
    if (outcome != DONE)
        return outcome;
    stream.bytes = scratch_take(scratch, size + SEGMENT_PADDING, 1);
    if (stream.bytes == NULL)
        return NO_MEMORY;
    if (!read_mcus(&stream, books, grid, from->restart_interval, tokens))
        return UNFIT;
    *behind = stream.from;
    return DONE;
}
