/* Encoded bytes -> what the header of a usual JPEG, PNG or WebP says; imgdata.images.probe is asked for all others. */
#ifndef IMGDATA_PROBE_HEADER_H
#define IMGDATA_PROBE_HEADER_H

#include <stddef.h>
#include <stdint.h>

/* Format and mode of a picture with 8 bits; the order is that of imgdata.native.copying.PICTURE_KINDS. */
typedef enum {
    JPEG_L,
    JPEG_RGB,
    JPEG_CMYK,
    JPEG_YCCK,
    PNG_L,
    PNG_LA,
    PNG_P,
    PNG_PA,
    PNG_RGB,
    PNG_RGBA,
    WEBP_RGB,
    WEBP_RGBA
} PictureKind;

typedef struct {
    int width, height, orientation;
    PictureKind kind;
} Probed;

/* 1, and what `probe` would say; 0 for whatever is bad, odd or unknown. */
int probe_header(const uint8_t *data, size_t size, Probed *header);

#endif
