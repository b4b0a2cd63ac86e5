/* JPEGs in memory and a box of each -> their pixels in RGB, thrown away: what any loader that decodes with
 * libjpeg-turbo has to do at least; or the whole picture, or its entropy-coded data alone. Part of the benchmarks, never
 * installed. */

#include <pthread.h>
#include <setjmp.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <jpeglib.h>

enum { MAX_THREADS = 64, ROWS = 16 };
enum { CROP, WHOLE, HUFFMAN };

struct batch {
    const int64_t *address; /* of the first byte of each image */
    const int64_t *size;
    const int64_t (*box)[4]; /* left, top, width, height */
    int count, part;
    atomic_int next, bad;
};

struct fault {
    struct jpeg_error_mgr manager;
    jmp_buf out;
};

static void leave(j_common_ptr codec) { longjmp(((struct fault *)codec->err)->out, 1); }

static void decode(struct jpeg_decompress_struct *codec, const struct batch *batch, int at, JSAMPROW *rows)
{
    jpeg_mem_src(codec, (const unsigned char *)(intptr_t)batch->address[at], (unsigned long)batch->size[at]);
    jpeg_read_header(codec, TRUE);
    if (batch->part == HUFFMAN) {
        jpeg_read_coefficients(codec);
        jpeg_abort_decompress(codec);
        return;
    }
    codec->out_color_space = JCS_RGB;
    jpeg_start_decompress(codec);
    JDIMENSION last = codec->output_height;
    if (batch->part == CROP) {
        /* The left edge moves to the left until it stands between blocks. */
        JDIMENSION left = (JDIMENSION)batch->box[at][0], width = (JDIMENSION)batch->box[at][2];
        JDIMENSION top = (JDIMENSION)batch->box[at][1];
        jpeg_crop_scanline(codec, &left, &width);
        jpeg_skip_scanlines(codec, top);
        last = top + (JDIMENSION)batch->box[at][3];
    }
    while (codec->output_scanline < last)
        jpeg_read_scanlines(codec, rows, ROWS);
    jpeg_abort_decompress(codec);
}

static void *work(void *argument)
{
    struct batch *batch = argument;
    struct jpeg_decompress_struct codec;
    struct fault fault;
    static const size_t ROW_BYTES = 3 * 65536;
    JSAMPROW rows[ROWS];
    JSAMPLE *memory = malloc(ROWS * ROW_BYTES);
    if (!memory) {
        atomic_fetch_add(&batch->bad, 1);
        return NULL;
    }
    for (int row = 0; row < ROWS; row++)
        rows[row] = memory + (size_t)row * ROW_BYTES;
    codec.err = jpeg_std_error(&fault.manager);
    fault.manager.error_exit = leave;
    jpeg_create_decompress(&codec);
    for (int at; (at = atomic_fetch_add(&batch->next, 1)) < batch->count;) {
        if (setjmp(fault.out)) {
            atomic_fetch_add(&batch->bad, 1);
            jpeg_abort_decompress(&codec);
            continue;
        }
        decode(&codec, batch, at, rows);
    }
    jpeg_destroy_decompress(&codec);
    free(memory);
    return NULL;
}

/* Decode `count` images in `threads` threads; how many could not be. `part`: the boxes (0), the whole of each (1), or
 * only the coefficients of the whole (2). */
int bare_crop(const int64_t *address, const int64_t *size, const int64_t (*box)[4], int count, int threads, int part)
{
    struct batch batch = {address, size, box, count, part, 0, 0};
    pthread_t others[MAX_THREADS];
    int started = 0;
    while (started < threads - 1 && started < MAX_THREADS && !pthread_create(&others[started], NULL, work, &batch))
        started++;
    work(&batch);
    while (started)
        pthread_join(others[--started], NULL);
    return batch.bad;
}
