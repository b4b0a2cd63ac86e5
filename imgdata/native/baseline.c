/* Header -> tables -> coefficients of a few MCUs -> samples. Blocks outside of the part are only passed over; at a high
 * quality nine tenths of libjpeg's time go into Huffman codes. */
#include "baseline.h"
#include "bands.h"
#include "blocks.h"
#include "coded.h"
#include "idct.h"
#include "kept_tables.h"
#include "processor.h"

/* Blocks that are passed over from which on tables for that pay. */
#define BLOCKS_TO_SKIP 1000
/* libjpeg gives up where a first coefficient is beyond 32 bits: a row of MCUs adds no more than a quarter of that. */
#define LARGEST_DC (1 << 30)

/* --- Coefficients ---------------------------------------------------------------------------------------------- */

/* `count` MCUs; their coefficients go to `scan->coefficients` if `stored`, of luma alone if `luma_only`. 0 for what is no
 * code. */
INLINE int read_mcus_inline(Scan *scan, int count, int stored, int luma_only)
{
    const uint8_t *end = scan->start + scan->length + 8;
    int16_t *block = scan->coefficients + 64 * scan->held * scan->blocks;
    int16_t *unused = scan->coefficients + 64 * MOST_BLOCKS;
    uint8_t *counts = scan->counts + scan->held * scan->blocks;
    Reader reader = scan->reader;

    for (int i = 0; i < count; i++)
        for (int c = 0; c < scan->header.components; c++) {
            Component *component = &scan->components[c];
            int kept = stored && !(luma_only && c > 0), has_ac = kept && component->side > 1;
            for (int b = 0; b < component->across * component->down; b++) {
                int value, found;
                if (reader.next > end || !read_dc(&reader, component->dc, &value))
                    return 0;
                component->last_dc += value;
                found = !has_ac && component->ac->has_skips ? skip_block(&reader, component->ac)
                                                            : read_block(&reader, component->ac,
                                                                         luma_only && c > 0 ? unused : block);
                if (kept) {
                    *block = (int16_t)component->last_dc;
                    block += 64;
                    *counts++ = (uint8_t)found;
                }
                if (!found)
                    return 0;
            }
        }
    scan->reader = reader;
    return 1;
}

INLINE int read_mcus_of(Scan *scan, int count, int stored)
{
    if (!stored)
        return read_mcus_inline(scan, count, 0, 0);
    return scan->planes->luma_only ? read_mcus_inline(scan, count, 1, 1) : read_mcus_inline(scan, count, 1, 0);
}

static int read_mcus_any(Scan *scan, int count, int stored)
{
    return read_mcus_of(scan, count, stored);
}

#ifdef HAVE_X86
/* Shifts by any register, without a flag: a sixth of the time. */
__attribute__((target("avx2,bmi,bmi2"))) static int read_mcus_avx2(Scan *scan, int count, int stored)
{
    return read_mcus_of(scan, count, stored);
}
#endif

static int read_mcus(Scan *scan, int count, int stored)
{
#ifdef HAVE_X86
    if (scan->simd == AVX2)
        return read_mcus_avx2(scan, count, stored);
#endif
    return read_mcus_any(scan, count, stored);
}

/* --- Samples ------------------------------------------------------------------------------------------------------- */

/* The coefficients of the MCUs that are held, from `column` of `row` on -> the planes. */
static void transform_mcus(Scan *scan, int row, int column)
{
    Block blocks[MOST_BLOCKS];
    int first = 0;

    for (int c = 0; c < scan->planes->count; c++) {
        const Component *component = &scan->components[c];
        const Plane *plane = &scan->planes->plane[c];
        for (int y = 0; y < component->down; y++) {
            size_t line = (size_t)((row - scan->wanted.top) * component->down + y) * (size_t)component->side;
            uint8_t *to = plane->samples + line * plane->stride +
                          (size_t)((column - scan->wanted.left) * component->across * component->side);
            int found = 0;
            for (int i = 0; i < scan->held; i++)
                for (int x = 0; x < component->across; x++, to += component->side) {
                    int block = i * scan->blocks + first + y * component->across + x;
                    blocks[found++] = (Block){scan->coefficients + 64 * block, scan->counts[block], to};
                }
            idct_blocks(blocks, found, component->quant, component->side, plane->stride, scan->simd);
        }
        first += component->across * component->down;
    }
    scan->held = 0;
}

/* `count` MCUs from `column` of `row` on, of which the wanted ones become samples. */
static Outcome read_columns(Scan *scan, int row, int column, int count)
{
    const Range *wanted = &scan->wanted;

    while (count > 0) {
        int has_wanted = row >= wanted->top && row < wanted->bottom, at_once = count;
        int stored = has_wanted && column >= wanted->left && column < wanted->right;
        if (stored) {
            at_once = at_once < wanted->right - column ? at_once : wanted->right - column;
            at_once = at_once < MCUS_AT_ONCE - scan->held ? at_once : MCUS_AT_ONCE - scan->held;
            memset(scan->coefficients + 64 * scan->held * scan->blocks, 0,
                   (size_t)(at_once * scan->blocks) * 64 * sizeof *scan->coefficients);
        } else if (has_wanted && column < wanted->left) {
            at_once = at_once < wanted->left - column ? at_once : wanted->left - column;
        }
        if (!read_mcus(scan, at_once, stored))
            return UNFIT;
        column += at_once;
        count -= at_once;
        /* Segments may be shorter than what is best transformed at once. */
        scan->held += stored ? at_once : 0;
        if (stored && (scan->held == MCUS_AT_ONCE || column == wanted->right))
            transform_mcus(scan, row, column - scan->held);
    }
    for (int c = 0; c < scan->header.components; c++)
        if (scan->components[c].last_dc > LARGEST_DC || scan->components[c].last_dc < -LARGEST_DC)
            return UNFIT;
    return DONE;
}

/* --- Segments ------------------------------------------------------------------------------------------------------- */

static void begin_segment(Scan *scan, uint8_t *bytes, const uint8_t *from, const uint8_t *end)
{
    scan->start = bytes;
    scan->length = unstuff(from, end, bytes);
    memset(bytes + scan->length, 0, SEGMENT_PADDING);
    scan->reader = (Reader){bytes, 0, 0};
    for (int c = 0; c < scan->header.components; c++)
        scan->components[c].last_dc = 0;
}

static int is_used_up(const Scan *scan)
{
    return has_read_all(&scan->reader, scan->start, scan->length);
}

Outcome alloc_scan(Scan *scan, Scratch *scratch)
{
    scan->coefficients = scratch_take(scratch, MOST_BLOCKS + 2, 64 * sizeof *scan->coefficients);
    scan->counts = scratch_take(scratch, MOST_BLOCKS, 1);
    return scan->coefficients == NULL || scan->counts == NULL ? NO_MEMORY : DONE;
}

Outcome read_segments(Scan *scan, const Segments *segments, uint8_t *bytes)
{
    const Place *place = segments->places;
    int interval = scan->header.interval;

    for (int row = segments->top; row < segments->bottom; row++)
        for (int column = segments->left; column < segments->right; column++, place++) {
            begin_segment(scan, bytes, place->begin, place->end);
            if (read_columns(scan, row, column * interval, interval) != DONE || !is_used_up(scan))
                return UNFIT;
        }
    return DONE;
}

/* All rows down to the last one that is wanted; of the whole picture also what is behind it. */
static Outcome read_rows(Scan *scan, const uint8_t *from, const uint8_t *end, int is_whole, uint8_t *bytes)
{
    int interval = scan->header.interval, left = 0, restarts = 0;
    const uint8_t *marker = NULL;

    for (int row = 0; row < scan->wanted.bottom; row++)
        for (int column = 0; column < scan->columns;) {
            int count = scan->columns - column;
            if (left == 0) {
                if (marker != NULL && (!is_used_up(scan) || marker[1] != RST0 + restarts++ % 8))
                    return UNFIT;
                from = marker != NULL ? marker + 2 : from;
                marker = find_marker(from, end);
                if (marker == NULL)
                    return UNFIT;
                begin_segment(scan, bytes, from, marker);
                left = interval > 0 ? interval : scan->columns * scan->rows;
            }
            count = count < left ? count : left;
            if (read_columns(scan, row, column, count) != DONE)
                return UNFIT;
            column += count;
            left -= count;
        }
    if (is_whole)
        return marker != NULL && marker[1] == EOI && is_used_up(scan) ? DONE : UNFIT;
    return bits_left(&scan->reader, scan->start, scan->length) >= 0 ? DONE : UNFIT;
}

/* --- The picture -------------------------------------------------------------------------------------------------- */

/* As in jdmaster.c: chroma at half resolution in both directions is divided by half as much. */
static int chroma_side(const Header *header, int side)
{
    return header->across == 2 && header->down == 2 && side < 8 ? 2 * side : side;
}

/* In the order of a block, not of the file. */
static void set_quant(uint16_t *quant, const uint8_t *from, int bytes)
{
    for (int i = 0; i < 64; i++)
        quant[ORDER[i + 1]] = (uint16_t)(bytes == 1 ? from[i] : word(from + 2 * i));
}

/* Whether numbers of tables say no more than two: that of luma, and another one. */
static int are_two(const uint8_t numbers[3])
{
    return numbers[1] == numbers[0] || numbers[2] == numbers[0] || numbers[2] == numbers[1];
}

static Outcome set_component(Scan *scan, int c, int shrink, Chroma chroma, Tables *tables, Scratch *scratch)
{
    const Header *header = &scan->header;
    Component *component = &scan->components[c];
    Plane *plane = &scan->planes->plane[c];
    int dc = header->dc_of[c] != header->dc_of[0], ac = header->ac_of[c] != header->ac_of[0];
    int number = header->quant_of[c], side = 8 / shrink, across, down;

    if (dc_table_set(&tables->dc[dc], header->codes[0][header->dc_of[c]]) != DONE ||
        ac_table_set(&tables->ac[ac], header->codes[1][header->ac_of[c]]) != DONE)
        return UNFIT;
    component->dc = &tables->dc[dc];
    component->ac = &tables->ac[ac];
    component->across = c == 0 ? header->across : 1;
    component->down = c == 0 ? header->down : 1;
    component->side = c > 0 && chroma == AS_LIBJPEG ? chroma_side(header, side) : side;
    if (c >= scan->planes->count)
        return DONE;
    set_quant(component->quant, header->quant[number], header->quant_bytes[number]);
    across = component->across * component->side;
    down = component->down * component->side;
    plane->pitch_x = (double)header->mcu_width / across;
    plane->pitch_y = (double)header->mcu_height / down;
    if (plane_alloc(plane, units(header->width * across, header->mcu_width),
                    units(header->height * down, header->mcu_height),
                    (size_t)(scan->wanted.right - scan->wanted.left) * (size_t)across,
                    (size_t)(scan->wanted.bottom - scan->wanted.top) * (size_t)down, scratch) != DONE)
        return NO_MEMORY;
    plane->left = scan->wanted.left * across;
    plane->top = scan->wanted.top * down;
    return DONE;
}

static void add_skips(const Scan *scan, Tables *tables, const Segments *segments)
{
    const Range *wanted = &scan->wanted;
    int64_t stored = (int64_t)(wanted->right - wanted->left) * (wanted->bottom - wanted->top);
    int blocks = scan->header.components == 1 ? 1 : scan->header.across * scan->header.down + 2;
    int64_t read = segments != NULL ? (int64_t)(segments->right - segments->left) * scan->header.interval *
                                          (segments->bottom - segments->top)
                                    : (int64_t)scan->columns * wanted->bottom;

    if (read * blocks - stored * scan->blocks < BLOCKS_TO_SKIP && scan->components[0].side > 1)
        return;
    for (int i = 0; i < 2; i++)
        if (tables->ac[i].codes.is_set)
            ac_table_add_skips(&tables->ac[i]);
}

static Outcome decode(Scan *scan, const uint8_t *data, size_t size, int shrink, const Part *part, Chroma chroma,
                      Tables *tables, Scratch *scratch)
{
    const Header *header = &scan->header;
    Segments segments;
    Outcome outcome = UNFIT;
    uint8_t *bytes;

    scan->columns = units(header->width, header->mcu_width);
    scan->rows = units(header->height, header->mcu_height);
    scan->blocks = header->components == 1 ? 1 : header->across * header->down + scan->planes->count - 1;
    scan->wanted = range_of(part, shrink, (Side){header->width, header->mcu_width, header->across > 1},
                            (Side){header->height, header->mcu_height, header->down > 1});
    for (int c = 0; c < header->components; c++) {
        outcome = set_component(scan, c, shrink, chroma, tables, scratch);
        if (outcome != DONE)
            return outcome;
    }
    bytes = scratch_take(scratch, size - header->scan + SEGMENT_PADDING, 1);
    if (bytes == NULL || alloc_scan(scan, scratch) != DONE)
        return NO_MEMORY;
    outcome = part != NULL ? find_segments(data, size, header, shrink, part, &segments, scratch) : UNFIT;
    if (outcome == NO_MEMORY)
        return outcome;
    add_skips(scan, tables, outcome == DONE ? &segments : NULL);
    if (outcome == DONE) {
        int bands = count_bands(scan, &segments);
        return bands > 1 ? share_segments(scan, &segments, bands) : read_segments(scan, &segments, bytes);
    }
    outcome = share_all(scan, data, size, scratch);
    return outcome != UNFIT ? outcome : read_rows(scan, data + header->scan, data + size, part == NULL, bytes);
}

Outcome decode_baseline(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part,
                        Chroma chroma, Simd simd, Planes *planes, Scratch *scratch)
{
    Scan scan = {.planes = planes, .simd = simd};
    Tables *tables;
    Outcome outcome;

    if (!header_read(data, size, &scan.header) || !scan.header.is_clear || scan.header.width != width ||
        scan.header.height != height)
        return UNFIT;
    if (scan.header.components == 3 && !(are_two(scan.header.dc_of) && are_two(scan.header.ac_of)))
        return UNFIT;
    tables = tables_take();
    if (tables == NULL)
        return NO_MEMORY;
    planes->count = planes->luma_only ? 1 : scan.header.components;
    planes->width = width;
    planes->height = height;
    outcome = decode(&scan, data, size, shrink, part, chroma, tables, scratch);
    tables_give(tables);
    return outcome;
}
