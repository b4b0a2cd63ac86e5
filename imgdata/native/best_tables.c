/* Lengths of codes follow from the counts as in ITU-T T.81, annex K.2. */
#include "best_tables.h"

#include <stdint.h>
#include <string.h>

/* One more symbol keeps the code of ones alone free. */
#define RESERVED SYMBOLS
#define LONGEST_BASELINE 16
#define LONGEST 32

/* A tree of symbols: its count, and of those with the same count the last symbol comes first. */
typedef uint64_t Tree;

static Tree tree_of(uint64_t count, int symbol)
{
    return count << 9 | (uint64_t)(RESERVED - symbol);
}

static int symbol_of(Tree tree)
{
    return RESERVED - (int)(tree & 511);
}

/* A heap of trees, the least one first. */
typedef struct {
    Tree trees[SYMBOLS + 1];
    int count;
} Heap;

static void sink_down(Heap *heap, int at)
{
    Tree tree = heap->trees[at];

    for (;;) {
        int below = 2 * at + 1;
        if (below + 1 < heap->count && heap->trees[below + 1] < heap->trees[below])
            below++;
        if (below >= heap->count || tree <= heap->trees[below])
            break;
        heap->trees[at] = heap->trees[below];
        at = below;
    }
    heap->trees[at] = tree;
}

/* The two rarest trees become one, until one is left. 0 where a code is too long. */
static int set_lengths(const uint64_t *counts, int *lengths)
{
    /* Of a tree, which goes by one of its symbols: those it was joined to, one after the other. */
    int joined[SYMBOLS + 1], to[SYMBOLS + 1], joins = 0;
    Heap heap = {.count = 0};

    for (int symbol = 0; symbol <= SYMBOLS; symbol++) {
        lengths[symbol] = 0;
        if (counts[symbol] > 0)
            heap.trees[heap.count++] = tree_of(counts[symbol], symbol);
    }
    for (int i = heap.count / 2; i-- > 0;)
        sink_down(&heap, i);
    while (heap.count > 1) {
        Tree one = heap.trees[0], other;
        heap.trees[0] = heap.trees[--heap.count];
        sink_down(&heap, 0);
        other = heap.trees[0];
        to[joins] = symbol_of(one);
        joined[joins++] = symbol_of(other);
        heap.trees[0] = tree_of((one >> 9) + (other >> 9), symbol_of(one));
        sink_down(&heap, 0);
    }
    /* From the last join on, a symbol's length is that of its tree, and both are one longer. */
    while (joins-- > 0) {
        lengths[joined[joins]] = ++lengths[to[joins]];
        if (lengths[to[joins]] > LONGEST)
            return 0;
    }
    return 1;
}

int set_best_table(JHUFF_TBL *table, uint64_t counts[SYMBOLS + 1])
{
    int lengths[SYMBOLS + 1], codes[LONGEST + 1] = {0}, places[LONGEST + 1], length;

    counts[RESERVED] = 1;
    if (!set_lengths(counts, lengths))
        return 0;
    for (int symbol = 0; symbol <= SYMBOLS; symbol++)
        codes[lengths[symbol]]++;
    /* Symbols are written from the shortest code to the longest, as they are before codes are made shorter. */
    places[0] = places[1] = 0;
    for (length = 2; length <= LONGEST; length++)
        places[length] = places[length - 1] + codes[length - 1];
    /* Two of the longest codes go: one takes the place of their prefix, the other shares one of a shorter code. */
    for (length = LONGEST; length > LONGEST_BASELINE; length--)
        while (codes[length] > 0) {
            int shorter = length - 2;
            while (codes[shorter] == 0)
                shorter--;
            codes[length] -= 2;
            codes[length - 1]++;
            codes[shorter + 1] += 2;
            codes[shorter]--;
        }
    while (codes[length] == 0)
        length--;
    codes[length]--; /* the reserved one */
    memset(table->bits, 0, sizeof table->bits);
    for (length = 1; length <= LONGEST_BASELINE; length++)
        table->bits[length] = (UINT8)codes[length];
    for (int symbol = 0; symbol < SYMBOLS; symbol++)
        if (lengths[symbol] > 0)
            table->huffval[places[lengths[symbol]]++] = (UINT8)symbol;
    table->sent_table = FALSE;
    return 1;
}
