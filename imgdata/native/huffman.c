/* Code lengths -> tables; the codes that are too long for a lookup. */
#include "huffman.h"

/* `size` bits -> the number that they stand for: T.81, figure F.12. */
static int extended(int bits, int size)
{
    return size > 0 && bits < 1 << (size - 1) ? bits - (1 << size) + 1 : bits;
}

/* What stands for the byte of a code: how many bits of a number follow, and how many coefficients are passed. */
static int number_bits(uint8_t byte, int is_dc)
{
    return is_dc ? byte : byte & 15;
}

static int skip_of(uint8_t byte, int is_dc)
{
    if (is_dc || (byte & 15) != 0)
        return is_dc ? 1 : (byte >> 4) + 1;
    return byte == 0xF0 ? 16 : BLOCK_END;
}

static void set_symbols(Symbol *symbols, int code, int length, uint8_t byte, int is_dc)
{
    int rest = (is_dc ? LOOKUP_DC : LOOKUP_AC) - length, size = number_bits(byte, is_dc);
    uint8_t skip = (uint8_t)skip_of(byte, is_dc), both = (uint8_t)(length + size);

    symbols += (size_t)code << rest;
    for (int i = 0; i < 1 << rest; i++)
        /* First coefficients have long numbers, at high qualities: they are read from the bits. */
        if (is_dc || size > rest)
            symbols[i] = (Symbol){byte, (uint8_t)length, 0};
        else
            symbols[i] = (Symbol){(int16_t)extended(i >> (rest - size), size), skip, both};
}

static Pair pair_of(const Table *table, int bits)
{
    Symbol one = table->symbols[bits], other = table->symbols[(bits << one.length) & ((1 << LOOKUP_AC) - 1)];
    int both = one.length + other.length;

    if (one.length == 0 && one.skip > 0) {
        uint8_t byte = (uint8_t)one.value, length = (uint8_t)(one.skip + (byte & 15));
        return (Pair){NUMBER_BEHIND, (int16_t)(one.skip << 4 | (byte & 15)), (uint8_t)skip_of(byte, 0), 0, length, length};
    }
    if (one.length > 0 && other.length > 0 && one.skip != BLOCK_END && both <= LOOKUP_AC)
        return (Pair){one.value, other.value, one.skip, other.skip, one.length, (uint8_t)both};
    return (Pair){one.value, one.value, one.skip, 0, one.length, one.length};
}

Outcome set_table(Table *table, const JHUFF_TBL *from, int is_dc)
{
    int code = 0, place = 0;

    if (from == NULL)
        return UNFIT;
    memset(table->symbols, 0, ((size_t)1 << (is_dc ? LOOKUP_DC : LOOKUP_AC)) * sizeof *table->symbols);
    for (int length = 1; length <= 16; length++, code *= 2) {
        table->offset[length] = place - code;
        for (int i = 0; i < from->bits[length]; i++, code++, place++) {
            if (place >= 256 || code >= 1 << length || (is_dc && from->huffval[place] > 15))
                return UNFIT;
            table->bytes[place] = from->huffval[place];
            if (length <= (is_dc ? LOOKUP_DC : LOOKUP_AC))
                set_symbols(table->symbols, code, length, from->huffval[place], is_dc);
        }
        table->limit[length] = (uint32_t)code << (16 - length);
    }
    for (int bits = 0; !is_dc && bits < 1 << LOOKUP_AC; bits++)
        table->pairs[bits] = pair_of(table, bits);
    return DONE;
}

Symbol long_symbol(Reader *reader, const Table *table, Symbol found, int is_dc)
{
    int length = found.skip, size;
    uint8_t byte = (uint8_t)found.value;

    refill(reader);
    if (length == 0) {
        uint32_t code = (uint32_t)(reader->bits >> 48);
        for (length = (is_dc ? LOOKUP_DC : LOOKUP_AC) + 1; length <= 16 && code >= table->limit[length]; length++)
            ;
        if (length > 16)
            return (Symbol){0, 0, 0};
        byte = table->bytes[(int)(code >> (16 - length)) + table->offset[length]];
    }
    drop(reader, length);
    size = number_bits(byte, is_dc);
    found = (Symbol){0, (uint8_t)skip_of(byte, is_dc), (uint8_t)(length + size)};
    if (size > 0) {
        found.value = (int16_t)extended((int)(reader->bits >> (64 - size)), size);
        drop(reader, size);
    }
    return found;
}
