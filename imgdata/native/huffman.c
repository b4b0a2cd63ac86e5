/* Code lengths -> tables; the codes that are too long for a lookup. Tables are filled run by run, not entry by entry: a
 * crop-ready file has codes of its own, and its crop takes no longer than some ten tables. */
#include "blocks.h"

/* One symbol of an AC table. */
typedef struct {
    int code_bits, number_bits, skip;
} Symbol;

static Symbol symbol_of(uint8_t byte, int code_bits)
{
    int number_bits = byte & 15;
    int skip = number_bits > 0 ? (byte >> 4) + 1 : byte == 0xF0 ? 16 : BLOCK_END;

    return (Symbol){code_bits, number_bits, skip};
}

/* As jpeg_make_d_derived_tbl of libjpeg judges. */
Outcome codes_set(Codes *codes, const uint8_t *given, int is_dc)
{
    int code = 0, place = 0, total = 0;

    codes->is_set = 0;
    for (int i = 0; i < 16; i++)
        total += given[i];
    if (total > 256)
        return UNFIT;
    memset(codes->given, 0, sizeof codes->given);
    memcpy(codes->given, given, 16 + (size_t)total);
    memset(codes->bytes, 0, sizeof codes->bytes);
    memcpy(codes->bytes, given + 16, (size_t)total);
    for (int i = 0; is_dc && i < total; i++)
        if (codes->bytes[i] > 15)
            return UNFIT;
    for (int length = 1; length <= 16; length++) {
        codes->offset[length] = place - code;
        code += given[length - 1];
        place += given[length - 1];
        /* No code is all ones. */
        if (given[length - 1] > 0 && code >= 1 << length)
            return UNFIT;
        codes->limit[length] = (uint32_t)code << (16 - length);
        code *= 2;
    }
    return DONE;
}

static int is_same(const Codes *codes, const uint8_t *given)
{
    size_t total = 0;

    for (int i = 0; i < 16; i++)
        total += given[i];
    return codes->is_set && memcmp(codes->given, given, 16 + total) == 0;
}

/* What is added to the bits of a negative number. */
static int lowest(int number_bits)
{
    return -(1 << number_bits) + 1;
}

/* --- DC ------------------------------------------------------------------------------------------------------ */

static void set_numbers(uint32_t *numbers, int code, int length, int size)
{
    int rest = LOOKUP_DC - length;
    uint32_t form = (uint32_t)(length + size) | (uint32_t)size << 8;

    numbers += code << rest;
    /* The first bit of the number tells whether it is negative. */
    if (size == 0)
        for (int i = 0; i < 1 << rest; i++)
            numbers[i] = form;
    else
        for (int i = 0; i < 1 << rest && rest > 0; i++)
            numbers[i] = i < 1 << (rest - 1) ? form | (uint32_t)lowest(size) << 16 : form;
}

Outcome dc_table_set(DcTable *table, const uint8_t *given)
{
    int code = 0, place = 0;

    if (is_same(&table->codes, given))
        return DONE;
    if (codes_set(&table->codes, given, 1) != DONE)
        return UNFIT;
    memset(table->numbers, 0, sizeof table->numbers);
    for (int length = 1; length <= LOOKUP_DC; length++, code *= 2)
        for (int i = 0; i < given[length - 1]; i++, code++)
            set_numbers(table->numbers, code, length, table->codes.bytes[place++]);
    table->codes.is_set = 1;
    return DONE;
}

/* --- AC, one or two -------------------------------------------------------------------------------------------- */

#define FIRST_SKIP(places) ((uint64_t)(places) << 16)
#define SECOND_SKIP(places) ((uint64_t)(places) << 24)
#define FIRST_VALUE(value) ((uint64_t)(uint16_t)(value) << 32)
#define SECOND_VALUE(value) ((uint64_t)(uint16_t)(value) << 48)

/* The symbol as the second one of a pair, for `rest` bits of which its code is the first; 0 where it has not even the first
 * bit of its number. */
static void set_seconds(uint64_t *seconds, Symbol symbol, int rest)
{
    int behind = rest - symbol.code_bits, size = symbol.number_bits;
    uint64_t form = (uint64_t)(symbol.code_bits + size) | SECOND_SKIP(symbol.skip);

    if (size == 0) {
        for (int i = 0; i < 1 << behind; i++)
            seconds[i] = form;
    } else if (size <= behind) {
        int same = 1 << (behind - size);
        for (int number = 0; number < 1 << size; number++, seconds += same) {
            uint64_t second = form | SECOND_VALUE(number < 1 << (size - 1) ? number + lowest(size) : number);
            for (int i = 0; i < same; i++)
                seconds[i] = second;
        }
    } else {
        form |= (uint64_t)size << 8;
        for (int i = 0; i < 1 << behind; i++)
            seconds[i] = behind == 0 ? 0 : i < 1 << (behind - 1) ? form | SECOND_VALUE(lowest(size)) : form;
    }
}

/* What the bits behind a symbol of `LOOKUP_AC - rest` bits may be: for each number of bits that remain. */
static void set_all_seconds(uint64_t *seconds, const Codes *codes, int rest)
{
    int code = 0, place = 0;

    memset(seconds, 0, ((size_t)1 << rest) * sizeof *seconds);
    for (int length = 1; length <= rest; length++, code *= 2)
        for (int i = 0; i < codes->given[length - 1]; i++, code++)
            set_seconds(seconds + ((size_t)code << (rest - length)), symbol_of(codes->bytes[place++], length), rest);
}

/* Bits of the shortest symbol that another one of its block may follow; more than a lookup has where there is none. */
static int shortest(const Codes *codes)
{
    int least = LOOKUP_AC + 1, place = 0;

    for (int length = 1; length <= 16; length++)
        for (int i = 0; i < codes->given[length - 1]; i++) {
            Symbol symbol = symbol_of(codes->bytes[place++], length);
            if (symbol.skip != BLOCK_END && length + symbol.number_bits < least)
                least = length + symbol.number_bits;
        }
    return least;
}

/* A second symbol alone -> the entry of a first one alone, which is its own second. */
static uint64_t alone(uint64_t second)
{
    uint64_t value = second >> 48, places = second >> 24 & 255;

    return (second & 0xFFFF) | FIRST_SKIP(places) | FIRST_VALUE(value) | SECOND_VALUE(value);
}

/* Where the number of `first` ends before the lookup does: the pairs of it and each of what may follow. */
static void set_pairs(uint64_t *pairs, uint64_t first, const uint64_t *seconds, int count)
{
    uint64_t single = first & ~SECOND_VALUE(0xFFFF), again = first & SECOND_VALUE(0xFFFF);

    for (int i = 0; i < count; i++)
        pairs[i] = single + (seconds[i] != 0 ? seconds[i] : again);
}

Outcome ac_table_set(AcTable *table, const uint8_t *given)
{
    uint64_t seconds[(1 << LOOKUP_AC)], *rests[LOOKUP_AC];
    uint64_t *pairs = table->pairs;

    if (is_same(&table->codes, given))
        return DONE;
    table->has_skips = 0;
    if (codes_set(&table->codes, given, 0) != DONE)
        return UNFIT;
    for (int rest = 0; rest <= LOOKUP_AC - shortest(&table->codes); rest++) {
        rests[rest] = seconds + ((size_t)1 << rest);
        set_all_seconds(rests[rest], &table->codes, rest);
    }
    set_all_seconds(pairs, &table->codes, LOOKUP_AC);
    for (int i = 0; i < 1 << LOOKUP_AC;) {
        uint64_t first = pairs[i];
        int bits = (int)(first & 255), rest = LOOKUP_AC - bits;
        if (first == 0) {
            pairs[i++] = FIRST_SKIP(NO_SYMBOL);
        } else if (rest <= 0 || (first >> 24 & 255) == BLOCK_END) {
            pairs[i++] = alone(first);
        } else {
            set_pairs(pairs + i, alone(first), rests[rest], 1 << rest);
            i += 1 << rest;
        }
    }
    table->codes.is_set = 1;
    return DONE;
}

/* --- AC, passed over -------------------------------------------------------------------------------------------- */

/* `rests[n]`: what n bits say. Those of a symbol, and of what follows where that stays within a block. */
static void set_skips(uint16_t *skips, Symbol symbol, int rest, uint16_t *const rests[])
{
    int behind = rest - symbol.code_bits, size = symbol.number_bits, left = behind - size;
    uint16_t own = (uint16_t)(symbol.code_bits + size + (symbol.skip << 8));

    if (left <= 0 || symbol.skip == BLOCK_END) {
        for (int i = 0; i < 1 << behind; i++)
            skips[i] = own;
        return;
    }
    for (int i = 0; i < 1 << left; i++) {
        uint16_t more = rests[left][i];
        int fits = more >> 8 != NO_SYMBOL && symbol.skip + (more >> 8 & (BLOCK_END - 1)) < 64;
        skips[i] = (uint16_t)(own + (fits ? more : 0));
    }
    for (int number = 1; number < 1 << size; number++)
        memcpy(skips + ((size_t)number << left), skips, sizeof *skips << left);
}

void ac_table_add_skips(AcTable *table)
{
    uint16_t shorter[1 << LOOKUP_SKIP], *rests[LOOKUP_SKIP + 1];

    if (table->has_skips)
        return;
    for (int rest = 0; rest <= LOOKUP_SKIP; rest++) {
        int code = 0, place = 0;
        rests[rest] = rest < LOOKUP_SKIP ? shorter + ((size_t)1 << rest) : table->skips;
        for (int i = 0; i < 1 << rest; i++)
            rests[rest][i] = NO_SYMBOL << 8;
        for (int length = 1; length <= rest; length++, code *= 2)
            for (int i = 0; i < table->codes.given[length - 1]; i++, code++)
                set_skips(rests[rest] + ((size_t)code << (rest - length)), symbol_of(table->codes.bytes[place++], length),
                          rest, rests);
    }
    table->has_skips = 1;
}

/* --- One code ----------------------------------------------------------------------------------------------------- */

int read_code(Reader *reader, const Codes *codes)
{
    uint32_t bits;
    int length = 1;

    refill(reader);
    bits = (uint32_t)(reader->bits >> 48);
    while (length <= 16 && bits >= codes->limit[length])
        length++;
    if (length > 16)
        return -1;
    drop(reader, length);
    return codes->bytes[(int)(bits >> (16 - length)) + codes->offset[length]];
}

int read_alone(Reader *reader, const Codes *codes, int at, int16_t *block)
{
    int value;

    at = read_symbol(reader, codes, at, &value);
    if (block != NULL && 0 < at && at <= 64)
        block[ORDER[at]] = (int16_t)value;
    return at;
}
