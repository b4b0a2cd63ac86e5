/* Tokens -> a JPEG: the best tables of codes, the headers and the coded data; what libjpeg-turbo would write. */
#include "write_tokens.h"
#include "best_tables.h"
#include "sink.h"

#include <string.h>

#ifdef __SSE2__
#include <emmintrin.h>
#endif

/* Bytes of a token: two codes of 16 bits, and numbers. */
#define MOST_BYTES 7
/* Bytes that are written at once. */
#define PADDING 16
/* Blocks of an MCU. */
#define MOST_BLOCKS 10
#define LIKELY(test) __builtin_expect((test), 1)

/* --- Codes ------------------------------------------------------------------------------------------------- */

/* Bits that are written for a slot, with zeros for the number behind them, << LENGTH_BITS | how many. */
typedef uint64_t Word;
#define LENGTH_BITS 6
#define LENGTH_MASK ((1 << LENGTH_BITS) - 1)

typedef struct {
    JHUFF_TBL dc[TABLES], ac[TABLES];
    Word words[SLOTS];
} Codes;

static Word with_number(Word code, int size, uint64_t number)
{
    uint64_t length = (code & LENGTH_MASK) + (uint64_t)size;

    return ((code >> LENGTH_BITS) << size | number) << LENGTH_BITS | length;
}

/* The code of each symbol. */
static void set_words(const JHUFF_TBL *table, Word words[SYMBOLS])
{
    uint64_t code = 0;
    int place = 0;

    for (int length = 1; length <= 16; length++, code *= 2)
        for (int i = 0; i < table->bits[length]; i++, code++)
            words[table->huffval[place++]] = code << LENGTH_BITS | (uint64_t)length;
}

/* The token has the number behind the last code, and before it bits of the window: they are set here as well, and cancel
 * out. */
static Word window_word(const Window *window, unsigned bits, const Word codes[SYMBOLS])
{
    int size = window->first & 15;
    uint64_t known = bits >> (WINDOW_BITS - window->known);
    Word word = codes[window->first];

    if (window->count == 2) {
        uint64_t number = bits >> (WINDOW_BITS - window->length) & ((1u << size) - 1);
        Word second = codes[window->second];
        word = with_number(with_number(word, size, number), (int)(second & LENGTH_MASK), second >> LENGTH_BITS);
        size = window->second & 15;
    }
    word = with_number(word, size, 0);
    return word ^ (known << size & SLOT_MASK) << LENGTH_BITS;
}

static void count_symbols(const Tokens *tokens, int table, uint64_t dc[SYMBOLS + 1], uint64_t ac[SYMBOLS + 1])
{
    memset(dc, 0, (SYMBOLS + 1) * sizeof *dc);
    for (int i = 0; i < 16; i++)
        dc[i] = tokens->counts[DC_SLOTS + table * 16 + i];
    for (int i = 0; i < SYMBOLS; i++)
        ac[i] = tokens->counts[AC_SLOTS + table * SYMBOLS + i];
    for (int book = 0; book < tokens->books; book++) {
        const uint32_t *counts = tokens->counts + WINDOW_SLOTS + book * WINDOWS;
        if (tokens->table_of_book[book] != table)
            continue;
        for (int i = 0; i < WINDOWS; i++) {
            const Window *window = &tokens->windows[book][i];
            if (counts[i] == 0)
                continue;
            ac[window->first] += counts[i];
            if (window->count == 2)
                ac[window->second] += counts[i];
        }
    }
}

static void set_slots(const Tokens *tokens, int table, const Word dc[SYMBOLS], const Word ac[SYMBOLS], Word *words)
{
    for (int i = 0; i < 16; i++)
        words[DC_SLOTS + table * 16 + i] = with_number(dc[i], i, 0);
    for (int i = 0; i < SYMBOLS; i++)
        words[AC_SLOTS + table * SYMBOLS + i] = with_number(ac[i], i & 15, 0);
    for (int book = 0; book < tokens->books; book++) {
        int slots = WINDOW_SLOTS + book * WINDOWS;
        for (unsigned i = 0; i < WINDOWS && tokens->table_of_book[book] == table; i++)
            if (tokens->counts[slots + (int)i] > 0)
                words[slots + (int)i] = window_word(&tokens->windows[book][i], i, ac);
    }
}

static int set_table(const Tokens *tokens, int table, Codes *codes)
{
    uint64_t dc[SYMBOLS + 1], ac[SYMBOLS + 1];
    Word dc_words[SYMBOLS] = {0}, ac_words[SYMBOLS] = {0};

    count_symbols(tokens, table, dc, ac);
    if (!set_best_table(&codes->dc[table], dc) || !set_best_table(&codes->ac[table], ac))
        return 0;
    set_words(&codes->dc[table], dc_words);
    set_words(&codes->ac[table], ac_words);
    set_slots(tokens, table, dc_words, ac_words, codes->words);
    return 1;
}

/* --- Scan ---------------------------------------------------------------------------------------------------- */

static inline void store_bits(uint8_t *to, uint64_t bits)
{
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    bits = __builtin_bswap64(bits);
#endif
    memcpy(to, &bits, sizeof bits);
}

/* Bits that are still to be stored, fewer than eight after each `put_bits`, and where. */
typedef struct {
    uint64_t bits; /* the last ones that were put */
    unsigned count;
    uint8_t *to;
} Writer;

static inline void put_bits(Writer *writer, uint64_t bits, unsigned count)
{
    writer->bits = writer->bits << count | bits;
    writer->count += count;
    store_bits(writer->to, writer->bits << (64 - writer->count));
    writer->to += writer->count >> 3;
    writer->count &= 7;
}

/* Without stuffed bytes; returns the end. */
static uint8_t *put_tokens(const uint32_t *from, const uint32_t *end, const Word *words, uint8_t *to)
{
    Writer writer = {0, 0, to};

    /* Two tokens at once nearly always fit behind the seven bits that are left. */
    while (end - from >= 2) {
        Word one = words[from[0] & SLOT_MASK], other = words[from[1] & SLOT_MASK];
        unsigned length = one & LENGTH_MASK, both = length + (other & LENGTH_MASK);
        uint64_t bits = one >> LENGTH_BITS ^ from[0] >> SLOT_BITS;
        if (LIKELY(both <= 57)) {
            put_bits(&writer, bits << (both - length) | (other >> LENGTH_BITS ^ from[1] >> SLOT_BITS), both);
            from += 2;
        } else {
            put_bits(&writer, bits, length);
            from++;
        }
    }
    if (from < end)
        put_bits(&writer, words[*from & SLOT_MASK] >> LENGTH_BITS ^ *from >> SLOT_BITS,
                 words[*from & SLOT_MASK] & LENGTH_MASK);
    /* Ones fill the last byte. */
    if (writer.count > 0)
        *writer.to++ = (uint8_t)(writer.bits << (8 - writer.count) | 0xFFu >> writer.count);
    return writer.to;
}

/* A zero goes behind every 0xFF. Reads and writes up to PADDING bytes more. */
static uint8_t *stuffed(const uint8_t *from, const uint8_t *end, uint8_t *to)
{
    while (from < end) {
#ifdef __SSE2__
        __m128i bytes = _mm_loadu_si128((const __m128i *)from);
        int found = _mm_movemask_epi8(_mm_cmpeq_epi8(bytes, _mm_set1_epi8(-1))), plain = 16;
        _mm_storeu_si128((__m128i *)to, bytes);
        if (found != 0)
            plain = __builtin_ctz((unsigned)found);
        if (plain >= end - from)
            return to + (end - from);
        from += plain;
        to += plain;
        if (found == 0)
            continue;
#endif
        if ((*to++ = *from++) == 0xFF)
            *to++ = 0;
    }
    return to;
}

static size_t longest_segment(const Tokens *tokens)
{
    uint32_t longest = 0, before = 0;

    for (int i = 0; i < tokens->segments; i++) {
        if (tokens->ends[i] - before > longest)
            longest = tokens->ends[i] - before;
        before = tokens->ends[i];
    }
    return longest;
}

/* Bytes of all segments; those that are stuffed are about one in 256. */
static size_t expected_size(const Tokens *tokens, const Word *words)
{
    uint64_t bits = 0;

    for (int slot = 0; slot < UNUSED_SLOTS; slot++)
        if (tokens->counts[slot] > 0)
            bits += tokens->counts[slot] * (words[slot] & LENGTH_MASK);
    return (size_t)(bits / 8 + bits / 1024) + 3 * (size_t)tokens->segments;
}

static Outcome put_segments(const Tokens *tokens, const Word *words, Buffer *out, Scratch *scratch)
{
    uint8_t *bytes = scratch_take(scratch, longest_segment(tokens) * MOST_BYTES + 2 * PADDING, 1);
    const uint32_t *from = tokens->first;

    if (bytes == NULL)
        return NO_MEMORY;
    for (int i = 0; i < tokens->segments; i++) {
        const uint32_t *until = tokens->first + tokens->ends[i];
        uint8_t *end = put_tokens(from, until, words, bytes), *to;
        if (!buffer_reserve(out, 2 * (size_t)(end - bytes) + PADDING + 2))
            return NO_MEMORY;
        to = stuffed(bytes, end, out->bytes + out->size);
        *to++ = 0xFF;
        *to++ = (uint8_t)(i < tokens->segments - 1 ? JPEG_RST0 + (i & 7) : JPEG_EOI);
        out->size = (size_t)(to - out->bytes);
        from = until;
    }
    return DONE;
}

/* --- The file -------------------------------------------------------------------------------------------------- */

/* Whether a header for the picture can be written. */
static int is_baseline(const struct jpeg_decompress_struct *from, const Grid *grid)
{
    int blocks = 0;

    for (int i = 0; i < grid->count; i++) {
        int number = from->comp_info[i].quant_tbl_no;
        const JQUANT_TBL *table = from->comp_info[i].quant_table;
        if (number < 0 || number >= NUM_QUANT_TBLS || from->quant_tbl_ptrs[number] == NULL)
            return 0;
        /* A file of several scans may have changed it since. */
        if (table != NULL &&
            memcmp(table->quantval, from->quant_tbl_ptrs[number]->quantval, sizeof table->quantval) != 0)
            return 0;
        blocks += grid->share[i].across * grid->share[i].down;
    }
    return blocks <= MOST_BLOCKS;
}

Outcome write_tokens(const struct jpeg_decompress_struct *from, const Grid *grid, const Tokens *tokens, Buffer *out,
                     Scratch *scratch)
{
    Codes *codes = scratch_take(scratch, 1, sizeof *codes);
    int tables = 1;
    uint8_t *to;

    if (codes == NULL)
        return NO_MEMORY;
    for (int i = 0; i < grid->count; i++)
        if (grid->share[i].table == 1)
            tables = 2;
    for (int table = 0; table < tables; table++)
        if (!set_table(tokens, table, codes))
            return UNFIT;
    if (!is_baseline(from, grid))
        return UNFIT;
    if (!buffer_reserve(out, MOST_HEADER + expected_size(tokens, codes->words)))
        return NO_MEMORY;
    to = put_scan_header(put_frame(out->bytes + out->size, from), from, grid, codes->dc, codes->ac);
    out->size = (size_t)(to - out->bytes);
    return put_segments(tokens, codes->words, out, scratch);
}
