/* Planes -> JPEG bytes. */
#include "planes.h"
#include "turbo.h"

#include <stdlib.h>
#include <string.h>

/* More than most pictures of 256 pixels a side take; the buffer doubles when it is full. */
#define FIRST_CAPACITY 65536

typedef struct {
    struct jpeg_destination_mgr manager; /* first, as in `Jump` */
    Buffer *out;
    int no_memory;
} Destination;

static void grow(j_compress_ptr cinfo)
{
    Destination *destination = (Destination *)cinfo->dest;
    Buffer *out = destination->out;
    size_t capacity = out->capacity ? 2 * out->capacity : FIRST_CAPACITY;
    uint8_t *bytes = realloc(out->bytes, capacity);

    if (bytes == NULL) {
        destination->no_memory = 1;
        cinfo->err->error_exit((j_common_ptr)cinfo);
        return;
    }
    /* libjpeg calls this when the buffer is full, whatever it says is free. */
    destination->manager.next_output_byte = bytes + out->capacity;
    destination->manager.free_in_buffer = capacity - out->capacity;
    out->bytes = bytes;
    out->capacity = capacity;
}

static boolean on_full(j_compress_ptr cinfo)
{
    grow(cinfo);
    return TRUE;
}

static void on_end(j_compress_ptr cinfo)
{
    Destination *destination = (Destination *)cinfo->dest;
    destination->out->size = destination->out->capacity - destination->manager.free_in_buffer;
}

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

static Outcome encode(struct jpeg_compress_struct *cinfo, Jump *jump, Destination *destination, Planes *planes,
                      int quality)
{
    if (setjmp(jump->back))
        return destination->no_memory ? NO_MEMORY : UNFIT;
    jpeg_create_compress(cinfo);
    cinfo->dest = &destination->manager;
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
    Destination destination;
    Jump jump;
    Outcome outcome;

    memset(&cinfo, 0, sizeof cinfo);
    memset(&destination, 0, sizeof destination);
    destination.manager.init_destination = grow;
    destination.manager.empty_output_buffer = on_full;
    destination.manager.term_destination = on_end;
    destination.out = out;
    cinfo.err = jump_on_faults(&jump);
    for (int i = 0; i < planes->count; i++)
        repeat_last_column(&planes->plane[i]);
    outcome = encode(&cinfo, &jump, &destination, planes, quality);
    jpeg_destroy_compress(&cinfo);
    return outcome;
}
