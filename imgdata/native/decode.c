/* JPEG bytes -> planes as they are stored, or a part of them: no upsampling, no colour conversion. What baseline.c does not
 * take is decoded by libjpeg. */
#include "baseline.h"
#include "planes.h"
#include "slice.h"
#include "turbo.h"

#include <math.h>
#include <string.h>

/* Bytes of coefficients that a progressive JPEG may take; larger ones are left to the caller. */
#define MAX_COEFFICIENTS 1000000000L
#define SOS_MARKER 0xDA

int has_planes(const struct jpeg_decompress_struct *cinfo)
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

/* How far from the end of a file its end marker may be: some cameras and editors put bytes behind it. */
#define TRAILING_BYTES 1024

/* A file that was cut off is damaged wherever the part lies, so that a picture is good or bad for all crops. Coded data
 * never look like this marker. */
static int has_end(const uint8_t *data, size_t size)
{
    size_t last = size > TRAILING_BYTES ? size - TRAILING_BYTES : 0;

    for (size_t i = size; i-- > last + 1;)
        if (data[i] == JPEG_EOI && data[i - 1] == 0xFF)
            return 1;
    return 0;
}

/* Every scan walks over all coefficients: one of 300 bytes costs as much as the picture. Coded data never look like
 * this marker. Python's `MAX_SCANS` is the same. */
#define MAX_SCANS 100

int has_too_many_scans(const uint8_t *data, size_t size)
{
    int scans = 0;

    for (const uint8_t *at = data, *end = data + size; (at = memchr(at, 0xFF, (size_t)(end - at))) != NULL && ++at < end;)
        if (*at == SOS_MARKER && ++scans > MAX_SCANS)
            return 1;
    return 0;
}

/* --- Which blocks ------------------------------------------------------------------------------------ */

/* iMCUs, the smallest unit of all components: columns `left` to `right` - 1, rows `top` to `bottom` - 1. */
typedef struct {
    JDIMENSION left, top, right, bottom;
} Blocks;

/* Pixels of one iMCU. A single component has none of its own: its blocks stand alone, but come in rows as before. */
static int imcu_width(const struct jpeg_decompress_struct *cinfo)
{
    return cinfo->num_components == 1 ? DCTSIZE : cinfo->max_h_samp_factor * DCTSIZE;
}

static int imcu_height(const struct jpeg_decompress_struct *cinfo)
{
    return cinfo->max_v_samp_factor * DCTSIZE;
}

static Blocks blocks_of(const struct jpeg_decompress_struct *cinfo, const Part *part, int shrink)
{
    Range range =
        range_of(part, shrink, (Side){(int)cinfo->image_width, imcu_width(cinfo), cinfo->max_h_samp_factor > 1},
                 (Side){(int)cinfo->image_height, imcu_height(cinfo), cinfo->max_v_samp_factor > 1});

    return (Blocks){(JDIMENSION)range.left, (JDIMENSION)range.top, (JDIMENSION)range.right, (JDIMENSION)range.bottom};
}

/* What `global_state` says before the first row is read, of pixels and of raw samples; the same since libjpeg 6. */
#define READY_FOR_SCANLINES 205
#define READY_FOR_RAW_DATA 206

/* Columns outside `blocks` are not transformed. libjpeg-turbo offers that for scan lines only, and since 3.2 refuses it for
 * raw samples; but the work is done where these come from as well, and nothing else of the decoder changes with it. */
static void leave_columns_out(struct jpeg_decompress_struct *cinfo, Blocks *blocks, int shrink)
{
    JDIMENSION unit = (JDIMENSION)(imcu_width(cinfo) / shrink), left = blocks->left * unit;
    JDIMENSION end = blocks->right * unit, width;

    end = end < cinfo->output_width ? end : cinfo->output_width;
    width = end - left;
    /* Two blocks at least: below that it would look for an upsampler, which raw samples do without. */
    if (width + unit > cinfo->output_width || width < 2 * unit || cinfo->global_state != READY_FOR_RAW_DATA) {
        blocks->left = 0;
        blocks->right = (cinfo->output_width + unit - 1) / unit;
        return;
    }
    cinfo->global_state = READY_FOR_SCANLINES;
    cinfo->raw_data_out = FALSE;
    jpeg_crop_scanline(cinfo, &left, &width);
    cinfo->raw_data_out = TRUE;
    cinfo->global_state = READY_FOR_RAW_DATA;
}

/* --- Samples ------------------------------------------------------------------------------------------- */

/* Before columns are left out: libjpeg changes the widths of components with them. */
static void set_sizes(const struct jpeg_decompress_struct *cinfo, Planes *planes)
{
    planes->count = planes->luma_only ? 1 : cinfo->num_components;
    planes->width = (int)cinfo->image_width;
    planes->height = (int)cinfo->image_height;
    for (int i = 0; i < planes->count; i++) {
        const jpeg_component_info *c = &cinfo->comp_info[i];
        Plane *plane = &planes->plane[i];
        plane->width = (int)c->downsampled_width;
        plane->height = (int)c->downsampled_height;
        plane->pitch_x = (double)(cinfo->max_h_samp_factor * DCTSIZE) / (c->h_samp_factor * SCALED_SIZE(c));
        plane->pitch_y = (double)(cinfo->max_v_samp_factor * DCTSIZE) / (c->v_samp_factor * SCALED_SIZE(c));
    }
}

static Outcome alloc_planes(const struct jpeg_decompress_struct *cinfo, const Blocks *blocks, Planes *planes,
                            Scratch *scratch)
{
    Outcome outcome = DONE;

    for (int i = 0; i < planes->count && outcome == DONE; i++) {
        const jpeg_component_info *c = &cinfo->comp_info[i];
        Plane *plane = &planes->plane[i];
        /* libjpeg writes whole blocks, and whole rows of iMCUs. */
        size_t across = (size_t)(cinfo->num_components == 1 ? 1 : c->h_samp_factor) * (size_t)SCALED_SIZE(c);
        size_t down = (size_t)c->v_samp_factor * (size_t)SCALED_SIZE(c);
        outcome = plane_alloc(plane, plane->width, plane->height, (blocks->right - blocks->left + 1) * across,
                              (blocks->bottom - blocks->top) * down, scratch);
        plane->left = (int)(blocks->left * across);
        plane->top = (int)(blocks->top * down);
    }
    return outcome;
}

static void read_planes(struct jpeg_decompress_struct *cinfo, const Blocks *blocks, Planes *planes)
{
    JSAMPROW rows[3][MAX_SAMP_FACTOR * DCTSIZE];
    JSAMPARRAY image[3] = {rows[0], rows[1], rows[2]};

    for (JDIMENSION row = 0; row < blocks->bottom; row++) {
        size_t held = row < blocks->top ? 0 : row - blocks->top;
        for (int i = 0; i < planes->count; i++) {
            jpeg_component_info *c = &cinfo->comp_info[i];
            const Plane *plane = &planes->plane[i];
            size_t height = (size_t)(c->v_samp_factor * SCALED_SIZE(c));
            for (size_t y = 0; y < height; y++)
                rows[i][y] = plane->samples + (held * height + y) * plane->stride;
            /* Rows above the part are only parsed. */
            c->component_needed = row >= blocks->top;
        }
        for (int i = planes->count; i < cinfo->num_components; i++)
            cinfo->comp_info[i].component_needed = FALSE;
        /* At 1/1 the component with the highest sampling has this many rows; one call reads one row of iMCUs. */
        jpeg_read_raw_data(cinfo, image, MAX_SAMP_FACTOR * DCTSIZE);
    }
}

/* What is decoded: a file, or a slice of one. */
typedef struct {
    const uint8_t *data;
    size_t size;
    int width, height;
    int whole; /* up to the end marker, and what is wrong before it counts */
} Stream;

/* A function of its own, so that nothing that the jump could spoil lives in its frame. */
static Outcome decode(struct jpeg_decompress_struct *cinfo, Jump *jump, const Stream *stream, int shrink,
                      const Part *part, Planes *planes, Scratch *scratch)
{
    Blocks blocks;
    Outcome outcome;

    if (setjmp(jump->back))
        return UNFIT;
    jpeg_create_decompress(cinfo);
    cinfo->mem->max_memory_to_use = MAX_COEFFICIENTS;
    jpeg_mem_src(cinfo, (unsigned char *)stream->data, (unsigned long)stream->size);
    jpeg_read_header(cinfo, TRUE);
    if (!has_planes(cinfo) || cinfo->image_width != (JDIMENSION)stream->width ||
        cinfo->image_height != (JDIMENSION)stream->height)
        return UNFIT;
    if (jpeg_has_multiple_scans(cinfo) && has_too_many_scans(stream->data, stream->size))
        return UNFIT;
    cinfo->raw_data_out = TRUE;
    cinfo->out_color_space = cinfo->jpeg_color_space;
    cinfo->dct_method = JDCT_ISLOW;
    cinfo->scale_num = 1;
    cinfo->scale_denom = (unsigned)shrink;
    jpeg_start_decompress(cinfo);
    set_sizes(cinfo, planes);
    blocks = blocks_of(cinfo, part, shrink);
    leave_columns_out(cinfo, &blocks, shrink);
    outcome = alloc_planes(cinfo, &blocks, planes, scratch);
    if (outcome != DONE)
        return outcome;
    read_planes(cinfo, &blocks, planes);
    /* Reads up to the end marker, and warns where it is missing. */
    if (stream->whole)
        jpeg_finish_decompress(cinfo);
    return DONE;
}

static Outcome decode_stream(const Stream *stream, int shrink, const Part *part, Planes *planes, Scratch *scratch)
{
    struct jpeg_decompress_struct cinfo;
    Jump jump;
    Outcome outcome;

    memset(&cinfo, 0, sizeof cinfo);
    cinfo.err = jump_on_faults(&jump);
    outcome = decode(&cinfo, &jump, stream, shrink, part, planes, scratch);
    jpeg_destroy_decompress(&cinfo);
    return outcome;
}

/* Planes of a slice -> the same samples as part of the whole picture's planes. Pitches are powers of 2, and slices begin
 * at corners of MCUs: nothing is rounded but sizes, upwards as in libjpeg. */
static void move_planes(Planes *planes, const Slice *slice, int width, int height)
{
    planes->width = width;
    planes->height = height;
    for (int i = 0; i < planes->count; i++) {
        Plane *plane = &planes->plane[i];
        plane->left += (int)(slice->left / plane->pitch_x);
        plane->top += (int)(slice->top / plane->pitch_y);
        plane->width = (int)ceil(width / plane->pitch_x);
        plane->height = (int)ceil(height / plane->pitch_y);
    }
}

/* UNFIT where the whole file has to be decoded. */
static Outcome decode_slice(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part,
                            Planes *planes, Scratch *scratch)
{
    Slice slice;
    Outcome outcome = slice_jpeg(data, size, width, height, shrink, part, &slice, scratch);

    if (outcome == DONE) {
        Stream stream = {slice.data, slice.size, slice.width, slice.height, 1};
        Part moved = {part->left - slice.left, part->top - slice.top, part->right - slice.left, part->bottom - slice.top};
        outcome = decode_stream(&stream, shrink, &moved, planes, scratch);
    }
    if (outcome == DONE)
        move_planes(planes, &slice, width, height);
    return outcome;
}

Outcome decode_by_libjpeg(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part,
                          Planes *planes, Scratch *scratch)
{
    Stream stream = {data, size, width, height, part == NULL};
    Outcome outcome = UNFIT;

    if (part != NULL)
        outcome = decode_slice(data, size, width, height, shrink, part, planes, scratch);
    /* What is wrong with a slice is for the whole file to show. */
    return outcome == UNFIT ? decode_stream(&stream, shrink, part, planes, scratch) : outcome;
}

Outcome decode_planes(const uint8_t *data, size_t size, int width, int height, int shrink, const Part *part, Simd simd,
                      Planes *planes, Scratch *scratch)
{
    Outcome outcome;

    if (part != NULL && !has_end(data, size))
        return UNFIT;
    outcome = decode_baseline(data, size, width, height, shrink, part, AS_LIBJPEG, simd, planes, scratch);
    return outcome == UNFIT ? decode_by_libjpeg(data, size, width, height, shrink, part, planes, scratch) : outcome;
}
