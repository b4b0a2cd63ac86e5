/* What libjpeg writes -> memory that grows. */
#ifndef IMGDATA_SINK_H
#define IMGDATA_SINK_H

#include "planes.h"
#include "turbo.h"

typedef struct {
    struct jpeg_destination_mgr manager; /* first, as in `Jump` */
    Buffer *out;
    int no_memory; /* why libjpeg's error was raised */
} Sink;

/* For `cinfo->dest`. `out` must be all zero. */
struct jpeg_destination_mgr *sink_begin(Sink *sink, Buffer *out);

/* Room for `more` bytes behind those there are; 0 when there is no memory. */
int buffer_reserve(Buffer *out, size_t more);

/* 0 when there is no memory. */
int buffer_append(Buffer *out, const uint8_t *bytes, size_t size);

#endif
