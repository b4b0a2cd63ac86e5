/* Memory of planes. */
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
