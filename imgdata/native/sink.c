/* A buffer that doubles when it is full. */
#include "sink.h"

#include <stdlib.h>
#include <string.h>

/* More than most pictures of 256 pixels a side take. */
#define FIRST_CAPACITY 65536

static void grow(j_compress_ptr cinfo)
{
    Sink *sink = (Sink *)cinfo->dest;
    Buffer *out = sink->out;
    size_t capacity = out->capacity ? 2 * out->capacity : FIRST_CAPACITY;
    uint8_t *bytes = realloc(out->bytes, capacity);

    if (bytes == NULL) {
        sink->no_memory = 1;
        cinfo->err->error_exit((j_common_ptr)cinfo);
        return;
    }
    /* libjpeg calls this when the buffer is full, whatever it says is free. */
    sink->manager.next_output_byte = bytes + out->capacity;
    sink->manager.free_in_buffer = capacity - out->capacity;
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
    Sink *sink = (Sink *)cinfo->dest;
    sink->out->size = sink->out->capacity - sink->manager.free_in_buffer;
}

struct jpeg_destination_mgr *sink_begin(Sink *sink, Buffer *out)
{
    memset(sink, 0, sizeof *sink);
    sink->manager.init_destination = grow;
    sink->manager.empty_output_buffer = on_full;
    sink->manager.term_destination = on_end;
    sink->out = out;
    return &sink->manager;
}

int buffer_reserve(Buffer *out, size_t more)
{
    size_t capacity = out->size + more;
    uint8_t *larger;

    if (more <= out->capacity - out->size)
        return 1;
    if (out->capacity > 0)
        capacity += capacity / 2;
    larger = realloc(out->bytes, capacity);
    if (larger == NULL)
        return 0;
    out->bytes = larger;
    out->capacity = capacity;
    return 1;
}

int buffer_append(Buffer *out, const uint8_t *bytes, size_t size)
{
    if (!buffer_reserve(out, size))
        return 0;
    if (size > 0)
        memcpy(out->bytes + out->size, bytes, size);
    out->size += size;
    return 1;
}
