/* JPEG bytes -> planes as they are stored: no upsampling, no colour conversion. */
#include "planes.h"
#include "turbo.h"

#include <string.h>

/* Bytes of coefficients that a progressive JPEG may take; larger ones are left to the caller. */
#define MAX_COEFFICIENTS 1000000000L

static int fits(const struct jpeg_decompress_struct *cinfo)
{
    const jpeg_component_info *c = cinfo->comp_info;

    if (cinfo->data_precision != 8 || cinfo->arith_code)
        return 0;
    if (cinfo->num_components == 1)
        return cinfo->jpeg_color_space == JCS_GRAYSCALE;
    if (cinfo->num_components != 3 || cinfo->jpeg_color_space != JCS_YCbCr)
        return 0;
    if (c[0].h_samp_factor > 2 || c[0].v_samp_factor > 2)
        return 0;
    return c[1].h_samp_factor == 1 && c[1].v_samp_factor == 1 && c[2].h_samp_factor == 1 && c[2].v_samp_factor == 1;
}

static Outcome alloc_planes(const struct jpeg_decompress_struct *cinfo, Planes *planes, Scratch *scratch)
{
    Outcome outcome = DONE;

    planes->count = cinfo->num_components;
    planes->width = (int)cinfo->image_width;
    planes->height = (int)cinfo->image_height;
    for (int i = 0; i < planes->count && outcome == DONE; i++) {
        const jpeg_component_info *c = &cinfo->comp_info[i];
        Plane *plane = &planes->plane[i];
        int scaled = SCALED_SIZE(c);

        /* libjpeg writes whole blocks, and whole rows of MCUs. */
        size_t columns = ((size_t)c->width_in_blocks + (size_t)c->h_samp_factor) * (size_t)scaled;
        size_t rows = (size_t)cinfo->total_iMCU_rows * (size_t)(c->v_samp_factor * scaled);
        plane->pitch_x = (double)(cinfo->max_h_samp_factor * DCTSIZE) / (c->h_samp_factor * scaled);
        plane->pitch_y = (double)(cinfo->max_v_samp_factor * DCTSIZE) / (c->v_samp_factor * scaled);
        outcome = plane_alloc(plane, (int)c->downsampled_width, (int)c->downsampled_height, columns, rows,
                              scratch);
    }
    return outcome;
}

static void read_planes(struct jpeg_decompress_struct *cinfo, Planes *planes)
{
    JSAMPROW rows[3][MAX_SAMP_FACTOR * DCTSIZE];
    JSAMPARRAY image[3] = {rows[0], rows[1], rows[2]};

    for (size_t row = 0; row < cinfo->total_iMCU_rows; row++) {
        for (int i = 0; i < planes->count; i++) {
            const jpeg_component_info *c = &cinfo->comp_info[i];
            const Plane *plane = &planes->plane[i];
            size_t height = (size_t)(c->v_samp_factor * SCALED_SIZE(c));
            for (size_t y = 0; y < height; y++)
                rows[i][y] = plane->samples + (row * height + y) * plane->stride;
        }
        /* At 1/1 the component with the highest sampling has this many rows; one call reads one row of MCUs. */
        jpeg_read_raw_data(cinfo, image, MAX_SAMP_FACTOR * DCTSIZE);
    }
}

/* A function of its own, so that nothing that the jump could spoil lives in its frame. */
static Outcome decode(struct jpeg_decompress_struct *cinfo, Jump *jump, const uint8_t *data, size_t size, int width,
                      int height, int shrink, Planes *planes, Scratch *scratch)
{
    Outcome outcome;

    if (setjmp(jump->back))
        return UNFIT;
    jpeg_create_decompress(cinfo);
    cinfo->mem->max_memory_to_use = MAX_COEFFICIENTS;
    jpeg_mem_src(cinfo, (unsigned char *)data, (unsigned long)size);
    jpeg_read_header(cinfo, TRUE);
    if (!fits(cinfo) || cinfo->image_width != (JDIMENSION)width || cinfo->image_height != (JDIMENSION)height)
        return UNFIT;
    cinfo->raw_data_out = TRUE;
    cinfo->out_color_space = cinfo->jpeg_color_space;
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->scale_num = 1;
    cinfo->scale_denom = (unsigned)shrink;
    jpeg_start_decompress(cinfo);
    outcome = alloc_planes(cinfo, planes, scratch);
    if (outcome != DONE)
        return outcome;
    read_planes(cinfo, planes);
    /* Reads up to the end marker, and warns where it is missing. */
    jpeg_finish_decompress(cinfo);
    return DONE;
}

Outcome decode_planes(const uint8_t *data, size_t size, int width, int height, int shrink, Planes *planes,
                      Scratch *scratch)
{
    struct jpeg_decompress_struct cinfo;
    Jump jump;
    Outcome outcome;

    memset(&cinfo, 0, sizeof cinfo);
    cinfo.err = jump_on_faults(&jump);
    outcome = decode(&cinfo, &jump, data, size, width, height, shrink, planes, scratch);
    jpeg_destroy_decompress(&cinfo);
    return outcome;
}
