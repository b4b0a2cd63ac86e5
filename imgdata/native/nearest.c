/* Candidates are those whose chunk has the value of the query's chunk, or differs from it in one bit. Queries come
   sorted by that value, so that the candidates of one are in the cache for the next. */
#include "nearest.h"
#include "processor.h"

#include <stdint.h>
#include <string.h>

enum { WORDS = 4, HASH_BYTES = WORDS * 8, CHUNK_BITS = 16, WORD_CHUNKS = 64 / CHUNK_BITS };

/* Targets that are copied to lie beside each other, 36 KB: they stay in the nearest cache for all rows of a value. */
enum { GATHERED = 1024 };

typedef struct {
    const uint64_t *targets; /* (T, WORDS), sorted by the chunk's value, then by number */
    const int32_t *numbers;  /* (T,) */
    const int32_t *starts;   /* (values + 1,): where the targets of a value begin */
    const uint64_t *queries; /* (R, WORDS) */
    const int32_t *limits;   /* (R,): targets from this number on don't count */
    int32_t *found;          /* (R, most), ascending */
    uint8_t *distances;      /* (R, most) */
    int32_t *counts;         /* (R,) */
    int chunk, bits, radius, most;
} Search;

static inline int32_t limit_of(const Search *s, int32_t row)
{
    return s->counts[row] < s->most ? s->limits[row] : s->found[(size_t)row * (size_t)s->most + (size_t)s->most - 1];
}

/* Keep the target among the lowest numbers that the row has found; it may have been found by another chunk. */
static void keep(const Search *s, int32_t row, int32_t number, int distance)
{
    int32_t *found = s->found + (size_t)row * (size_t)s->most;
    uint8_t *distances = s->distances + (size_t)row * (size_t)s->most;
    int count = s->counts[row], at = count;

    while (at > 0 && found[at - 1] > number)
        at--;
    if (at > 0 && found[at - 1] == number)
        return;
    if (count == s->most)
        count--;
    else
        s->counts[row]++;
    for (int i = count; i > at; i--) {
        found[i] = found[i - 1];
        distances[i] = distances[i - 1];
    }
    found[at] = number;
    distances[at] = (uint8_t)distance;
}

/* Compare a row with some targets; where their numbers ascend, the first beyond the limit ends it. */
static inline __attribute__((always_inline)) void compare(const Search *s, int32_t row, const uint64_t *targets,
                                                          const int32_t *numbers, int32_t count, int ascending)
{
    const uint64_t *query = s->queries + (size_t)row * WORDS;
    int32_t limit = limit_of(s, row);

    for (int32_t at = 0; at < count; at++) {
        const uint64_t *target = targets + (size_t)at * WORDS;
        /* Half of a hash is enough to tell nearly all that are far apart. */
        int distance = __builtin_popcountll(query[0] ^ target[0]) + __builtin_popcountll(query[1] ^ target[1]);

        if (ascending && numbers[at] >= limit)
            break;
        if (distance > s->radius || numbers[at] >= limit)
            continue;
        distance += __builtin_popcountll(query[2] ^ target[2]) + __builtin_popcountll(query[3] ^ target[3]);
        if (distance > s->radius)
            continue;
        keep(s, row, numbers[at], distance);
        limit = limit_of(s, row);
    }
}

static inline uint32_t value_of(const Search *s, int32_t row)
{
    uint64_t word = s->queries[(size_t)row * WORDS + (size_t)(s->chunk / WORD_CHUNKS)];

    return (uint32_t)(word >> (s->chunk % WORD_CHUNKS * CHUNK_BITS)) & ((1u << s->bits) - 1);
}

/* Compare rows whose chunks have one value with all targets near it. */
static inline __attribute__((always_inline)) void search_value(const Search *s, const int32_t *rows, Py_ssize_t count,
                                                               uint32_t value)
{
    uint64_t targets[GATHERED * WORDS];
    int32_t numbers[GATHERED], gathered = 0;

    for (int probe = 0; probe <= s->bits; probe++) {
        uint32_t near = probe == 0 ? value : value ^ (1u << (probe - 1));
        int32_t start = s->starts[near], length = s->starts[near + 1] - start;

        if (gathered + length <= GATHERED) {
            memcpy(targets + (size_t)gathered * WORDS, s->targets + (size_t)start * WORDS, (size_t)length * HASH_BYTES);
            memcpy(numbers + gathered, s->numbers + start, (size_t)length * sizeof *numbers);
            gathered += length;
        } else
            for (Py_ssize_t i = 0; i < count; i++)
                compare(s, rows[i], s->targets + (size_t)start * WORDS, s->numbers + start, length, 1);
    }
    for (Py_ssize_t i = 0; i < count; i++)
        compare(s, rows[i], targets, numbers, gathered, 0);
}

static inline __attribute__((always_inline)) void search_rows(const Search *s, const int32_t *rows, Py_ssize_t count)
{
    for (Py_ssize_t from = 0, to; from < count; from = to) {
        uint32_t value = value_of(s, rows[from]);

        for (to = from + 1; to < count && value_of(s, rows[to]) == value; to++)
            ;
        search_value(s, rows + from, to - from, value);
    }
}

static void search_anywhere(const Search *s, const int32_t *rows, Py_ssize_t count) { search_rows(s, rows, count); }

#ifdef HAVE_X86
/* Counts bits by one instruction instead of a dozen. */
__attribute__((target("popcnt"))) static void search_popcnt(const Search *s, const int32_t *rows, Py_ssize_t count)
{
    search_rows(s, rows, count);
}
#define SEARCH (processor_has(HAS_POPCNT) ? search_popcnt : search_anywhere)
#else
#define SEARCH search_anywhere
#endif

/* Sizes that agree, and no place outside of an array; 0 with an exception set. */
static int check(const Search *s, const Py_buffer buffers[8], const int32_t *rows, Py_ssize_t count)
{
    Py_ssize_t targets = buffers[0].len / HASH_BYTES, queries = buffers[3].len / HASH_BYTES;
    Py_ssize_t values = (Py_ssize_t)1 << s->bits;

    if (buffers[1].len != targets * 4 || buffers[2].len != (values + 1) * 4 || buffers[4].len != queries * 4 ||
        buffers[5].len != queries * s->most * 4 || buffers[6].len != queries * s->most || buffers[7].len != queries * 4) {
        PyErr_SetString(PyExc_ValueError, "the arrays of a search must have lengths that agree");
        return 0;
    }
    for (Py_ssize_t i = 0; i < values; i++)
        if (s->starts[i] < 0 || s->starts[i] > s->starts[i + 1] || s->starts[i + 1] > targets) {
            PyErr_SetString(PyExc_ValueError, "starts must ascend from 0 to the number of targets");
            return 0;
        }
    for (Py_ssize_t i = 0; i < count; i++)
        if (rows[i] < 0 || rows[i] >= queries || s->counts[rows[i]] < 0 || s->counts[rows[i]] > s->most) {
            PyErr_SetString(PyExc_ValueError, "rows must be those of queries, and counts at most `most`");
            return 0;
        }
    return 1;
}

PyObject *nearest(PyObject *module, PyObject *args)
{
    Py_buffer b[8], rows;
    Search search;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*y*y*w*w*w*y*iiii", &b[0], &b[1], &b[2], &b[3], &b[4], &b[5], &b[6], &b[7],
                          &rows, &search.chunk, &search.bits, &search.radius, &search.most))
        return NULL;
    search.targets = b[0].buf;
    search.numbers = b[1].buf;
    search.starts = b[2].buf;
    search.queries = b[3].buf;
    search.limits = b[4].buf;
    search.found = b[5].buf;
    search.distances = b[6].buf;
    search.counts = b[7].buf;
    if (search.chunk < 0 || search.chunk >= WORDS * WORD_CHUNKS || search.bits < 0 || search.bits > CHUNK_BITS ||
        search.radius < 0 || search.radius > 255 || search.most < 1)
        PyErr_SetString(PyExc_ValueError, "chunk must be 0 to 15, bits 0 to 16, radius 0 to 255, most at least 1");
    else if (check(&search, b, rows.buf, rows.len / 4)) {
        Py_BEGIN_ALLOW_THREADS
        SEARCH(&search, rows.buf, rows.len / 4);
        Py_END_ALLOW_THREADS
        result = Py_NewRef(Py_None);
    }
    for (int i = 0; i < 8; i++)
        PyBuffer_Release(&b[i]);
    PyBuffer_Release(&rows);
    return result;
}
