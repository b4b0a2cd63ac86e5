/* The header of a plain JPEG -> its size, its parts and the places of its tables. */
#ifndef IMGDATA_HEADER_H
#define IMGDATA_HEADER_H

#include <stddef.h>
#include <stdint.h>

enum { SOI = 0xD8, EOI = 0xD9, SOS = 0xDA, SOF0 = 0xC0, SOF1 = 0xC1, DHT = 0xC4, DQT = 0xDB, DRI = 0xDD, COM = 0xFE };
enum { APP0 = 0xE0, APP14 = 0xEE, APP15 = 0xEF, RST0 = 0xD0 };

/* What the header says; tables lie in the file. */
typedef struct {
    int width, height, components;
    int across, down;          /* blocks of the first component in an MCU */
    int mcu_width, mcu_height; /* pixels */
    int interval;              /* MCUs between restart markers; 0: none */
    size_t scan;               /* where the coded data begin */
    int is_clear;              /* all that follows is known, and colours are gray, or YCbCr by the rules of libjpeg */
    uint8_t quant_of[3], dc_of[3], ac_of[3]; /* numbers of each component's tables */
    const uint8_t *quant[4];                 /* 64 numbers in zigzag order; NULL: none */
    int quant_bytes[4];                      /* of one number */
    const uint8_t *codes[2][4];              /* of DC, of AC: how many codes have 1 to 16 bits, and their bytes */
} Header;

/* 0 for anything but a whole header of a sequential JPEG in one scan, gray without subsampling, or of three components with
 * chroma at full or half resolution. */
int header_read(const uint8_t *data, size_t size, Header *header);

static inline int word(const uint8_t *at)
{
    return at[0] << 8 | at[1];
}

/* How many `unit`s hold `pixels`. */
static inline int units(int pixels, int unit)
{
    return (pixels + unit - 1) / unit;
}

#endif
