/* libjpeg-turbo, with its errors as jumps: nothing is printed, and the process never exits. */
#ifndef IMGDATA_TURBO_H
#define IMGDATA_TURBO_H

#include <stddef.h>
#include <stdio.h>

#include <jpeglib.h>
#include <setjmp.h>

#if !defined(LIBJPEG_TURBO_VERSION) || !defined(LIBJPEG_TURBO_VERSION_NUMBER)
#error "libjpeg-turbo is needed: without its vector code there is nothing to win"
#endif

#if JPEG_LIB_VERSION >= 70
#define SCALED_SIZE(component) ((component)->DCT_h_scaled_size)
#else
#define SCALED_SIZE(component) ((component)->DCT_scaled_size)
#endif

typedef struct {
    struct jpeg_error_mgr manager; /* first, so that libjpeg's pointer to it is one to the whole */
    jmp_buf back;
} Jump;

/* For `cinfo->err`. Every error and every warning jumps to `jump->back`, which must have been set. */
struct jpeg_error_mgr *jump_on_faults(Jump *jump);

/* Whether the header that was read is one of those that `decode_planes` takes. */
int has_planes(const struct jpeg_decompress_struct *cinfo);

#endif
