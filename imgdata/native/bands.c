/* Segments begin without a history, so that rows of them can be decoded side by side: each band has a state of its own, and
 * writes rows of the planes that no other has. Of 24 megapixels, two threads take 0.58 of the time of one. */
#include "bands.h"
#include "blocks.h"
#include "pool.h"

#include <stdatomic.h>

/* Pixels from which on threads that have nothing to do help with a picture: some milliseconds of one. */
#define PIXELS_TO_SHARE (1 << 20)
/* Bands of rows: with more than one for each thread, none waits long for another. */
#define BANDS_PER_THREAD 4

typedef struct {
    const Scan *scan;
    const Segments *segments;
    size_t size; /* bytes of the longest segment, at least */
    int bands;
    atomic_int outcome; /* the worst */
} Sharing;

/* Some rows of segments: rows of the planes that no other band has. */
static void read_band(void *argument, int band)
{
    Sharing *sharing = argument;
    Scan scan = *sharing->scan;
    Segments segments = *sharing->segments;
    Scratch scratch = scratch_begin();
    int rows = segments.bottom - segments.top, top = segments.top;
    uint8_t *bytes = scratch_take(&scratch, sharing->size + SEGMENT_PADDING, 1);
    Outcome outcome = bytes == NULL ? NO_MEMORY : alloc_scan(&scan, &scratch);

    segments.top = top + (int)((int64_t)rows * band / sharing->bands);
    segments.bottom = top + (int)((int64_t)rows * (band + 1) / sharing->bands);
    segments.places += (segments.top - top) * (segments.right - segments.left);
    if (outcome == DONE)
        outcome = read_segments(&scan, &segments, bytes);
    if (outcome != DONE)
        atomic_store(&sharing->outcome, (int)outcome);
    scratch_end(&scratch);
}

static int is_large(const Scan *scan, int columns, int rows)
{
    return (int64_t)columns * scan->header.mcu_width * rows * scan->header.mcu_height >= PIXELS_TO_SHARE;
}

int count_bands(const Scan *scan, const Segments *segments)
{
    int rows = segments->bottom - segments->top, bands;

    if (!is_large(scan, (segments->right - segments->left) * scan->header.interval, rows))
        return 1;
    bands = BANDS_PER_THREAD * (pool_helpers() + 1);
    return bands == BANDS_PER_THREAD ? 1 : bands < rows ? bands : rows;
}

static size_t longest_segment(const Segments *segments)
{
    int count = (segments->right - segments->left) * (segments->bottom - segments->top);
    ptrdiff_t longest = 0;

    for (int i = 0; i < count; i++) {
        ptrdiff_t length = segments->places[i].end - segments->places[i].begin;
        longest = length > longest ? length : longest;
    }
    return (size_t)longest;
}

Outcome share_segments(const Scan *scan, const Segments *segments, int bands)
{
    Sharing sharing = {scan, segments, longest_segment(segments), bands, DONE};

    pool_share(read_band, &sharing, bands);
    return (Outcome)atomic_load(&sharing.outcome);
}

Outcome share_all(const Scan *scan, const uint8_t *data, size_t size, Scratch *scratch)
{
    Segments segments;
    Outcome outcome;
    int bands;

    if (scan->header.interval == 0 || !is_large(scan, scan->columns, scan->rows) || pool_helpers() == 0)
        return UNFIT;
    outcome = find_all_segments(data, size, &scan->header, &segments, scratch);
    if (outcome != DONE)
        return outcome;
    bands = count_bands(scan, &segments);
    return bands > 1 ? share_segments(scan, &segments, bands) : UNFIT;
}
