/* Memory of planes; what of them a part needs. */
#include "planes.h"

Outcome plane_alloc(Plane *plane, int width, int height, size_t columns, size_t rows, Scratch *scratch)
{
    /* The vector code writes whole registers: up to 32 samples at a time. */
    plane->stride = (columns + ROW_PADDING + 31) / 32 * 32;
    plane->left = plane->top = 0;
    plane->width = width;
    plane->height = height;
    plane->samples = scratch_take(scratch, rows, plane->stride);
    return plane->samples == NULL ? NO_MEMORY : DONE;
}

static void set_range(int from, int until, int shrink, Side side, int *first, int *end)
{
    /* Chroma is interpolated between neighbours: one sample more on each side. */
    int reach = side.is_half ? 2 * shrink : 0;

    from = from > reach ? from - reach : 0;
    until = until < side.size - reach ? until + reach : side.size;
    *first = from / side.unit;
    *end = (until + side.unit - 1) / side.unit;
}

Range range_of(const Part *part, int shrink, Side x, Side y)
{
    Part whole = {0, 0, x.size, y.size};
    Range range;

    part = part != NULL ? part : &whole;
    set_range(part->left, part->right, shrink, x, &range.left, &range.right);
    set_range(part->top, part->bottom, shrink, y, &range.top, &range.bottom);
    return range;
}
