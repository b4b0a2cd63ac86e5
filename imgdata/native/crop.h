/* JPEG bytes and a crop -> the pixels of one picture in the batch. */
#ifndef IMGDATA_CROP_H
#define IMGDATA_CROP_H

#include "pixels.h"
#include "windows.h"

/* One axis of a crop: the part that begins at `box`, `length` pixels long, becomes `resized` pixels; the output is what
 * lies from `offset` on. */
typedef struct {
    int box, length, resized, offset;
    int reversed;
} Axis;

typedef struct {
    int width, height; /* of the image, as its header has to say */
    Axis x, y;
    Shape shape;
    int mirrored; /* what lies outside the resized part: 0: black; 1: mirrored at its edge, which is not repeated */
} Crop;

/* `count` crops of one JPEG, all of one channel or all of three. Those that the DCT shrinks alike are made of the same
 * planes, which hold the smallest part with all of them: each picture is what it would be alone.
 *
 * UNFIT as in `decode_planes`, and for a box that is not in the image: no picture is defined then. Nothing is said of bytes
 * behind the crops. */
Outcome crop_jpeg(const uint8_t *data, size_t size, const Crop *crops, const Picture *pictures, int count, Simd simd,
                  Scratch *scratch);

#endif
