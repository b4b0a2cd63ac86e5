/* Planes -> JPEG bytes. */
#include "sink.h"

#include <string.h>

/* Fill whole blocks with the last column, so that nothing foreign gets into the last real one. */
static void repeat_last_column(Plane *plane)
{
    size_t width = (size_t)plane->width, padded = (width + 2 * DCTSIZE - 1) / (2 * DCTSIZE) * (2 * DCTSIZE);

    for (int y = 0; y < plane->height; y++) {
        uint8_t *row = plane->samples + (size_t)y * plane->stride;
        memset(row + width, row[width - 1], padded - width);
    }
}

static void write_planes(struct jpeg_compress_struct *cinfo, Planes *planes)
{
    JSAMPROW rows[3][2 * DCTSIZE];
    JSAMPARRAY image[3] = {rows[0], rows[1], rows[2]};
    int lines = cinfo->max_v_samp_factor * DCTSIZE;

    for (int row = 0; cinfo->next_scanline < cinfo->image_height; row++) {
        for (int i = 0; i < planes->count; i++) {
            const Plane *plane = &planes->plane[i];
            int height = cinfo->comp_info[i].v_samp_factor * DCTSIZE;
            for (int y = 0; y < height; y++) {
                int at = row * height + y;
                rows[i][y] = plane->samples + (size_t)(at < plane->height ? at : plane->height - 1) * plane->stride;
            }
        }
        jpeg_write_raw_data(cinfo, image, (JDIMENSION)lines);
    }
}

static Outcome encode(struct jpeg_compress_struct *cinfo, Jump *jump, Sink *sink, Buffer *out, Planes *planes,
                      int quality)
{
    if (setjmp(jump->back))
        return sink->no_memory ? NO_MEMORY : UNFIT;
    jpeg_create_compress(cinfo);
    cinfo->dest = sink_begin(sink, out);
    cinfo->image_width = (JDIMENSION)planes->width;
    cinfo->image_height = (JDIMENSION)planes->height;
    cinfo->input_components = planes->count;
    cinfo->in_color_space = planes->count == 1 ? JCS_GRAYSCALE : JCS_YCbCr;
    jpeg_set_defaults(cinfo);
    jpeg_set_quality(cinfo, quality, TRUE);
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->raw_data_in = TRUE;
#if JPEG_LIB_VERSION >= 70
    cinfo->do_fancy_downsampling = FALSE;
#endif
    cinfo->comp_info[0].h_samp_factor = planes->count == 1 ? 1 : (int)planes->plane[1].pitch_x;
    cinfo->comp_info[0].v_samp_factor = planes->count == 1 ? 1 : (int)planes->plane[1].pitch_y;
    jpeg_start_compress(cinfo, TRUE);
    write_planes(cinfo, planes);
    jpeg_finish_compress(cinfo);
    return DONE;
}

Outcome encode_planes(Planes *planes, int quality, Buffer *out)
{
    struct jpeg_compress_struct cinfo;
    Sink sink;
    Jump jump;
    Outcome outcome;

    memset(&cinfo, 0, sizeof cinfo);
    cinfo.err = jump_on_faults(&jump);
    for (int i = 0; i < planes->count; i++)
        repeat_last_column(&planes->plane[i]);
    outcome = encode(&cinfo, &jump, &sink, out, planes, quality);
    jpeg_destroy_compress(&cinfo);
    return outcome;
}
