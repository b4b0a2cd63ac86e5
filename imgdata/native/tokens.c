/* The grid of blocks, and memory of tokens. */
#include "tokens.h"
#include "crop_ready.h"

#include <string.h>

static Share share_of(const struct jpeg_decompress_struct *from, int i)
{
    const jpeg_component_info *component = &from->comp_info[i];
    Share share = {1, 1, (int)component->width_in_blocks, (int)component->height_in_blocks, 0};

    if (from->num_components > 1) {
        share.across = component->h_samp_factor;
        share.down = component->v_samp_factor;
    }
    if (from->jpeg_color_space == JCS_YCbCr && i > 0)
        share.table = 1;
    return share;
}

Grid grid_of(const struct jpeg_decompress_struct *from, int interval)
{
    int across = from->max_h_samp_factor * DCTSIZE, down = from->max_v_samp_factor * DCTSIZE;
    Grid grid = {.count = from->num_components};

    for (int i = 0; i < grid.count; i++)
        grid.share[i] = share_of(from, i);
    /* A component alone has MCUs of one block. */
    grid.columns = grid.count == 1 ? grid.share[0].columns : ((int)from->image_width + across - 1) / across;
    grid.rows = grid.count == 1 ? grid.share[0].rows : ((int)from->image_height + down - 1) / down;
    grid.interval = interval > 0 ? interval : interval_for((int)from->image_width, grid.count == 1 ? DCTSIZE : across);
    return grid;
}

size_t blocks_of(const Grid *grid)
{
    size_t blocks = 0;

    for (int i = 0; i < grid->count; i++)
        blocks += (size_t)(grid->share[i].across * grid->share[i].down);
    return blocks * (size_t)grid->columns * (size_t)grid->rows;
}

Outcome tokens_begin(Tokens *tokens, const Grid *grid, size_t most, Scratch *scratch)
{
    size_t segments = ((size_t)grid->columns * (size_t)grid->rows + (size_t)grid->interval - 1) / (size_t)grid->interval;

    *tokens = (Tokens){
        .first = scratch_take(scratch, most, sizeof *tokens->first),
        .ends = scratch_take(scratch, segments, sizeof *tokens->ends),
        .counts = scratch_take(scratch, SLOTS, sizeof *tokens->counts),
        .windows = scratch_take(scratch, BOOKS, sizeof *tokens->windows),
    };
    if (tokens->first == NULL || tokens->ends == NULL || tokens->counts == NULL || tokens->windows == NULL)
        return NO_MEMORY;
    tokens->next = tokens->first;
    memset(tokens->counts, 0, SLOTS * sizeof *tokens->counts);
    return DONE;
}
