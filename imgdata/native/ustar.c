/* Numbers are octal digits; the check sum is that of the header with spaces in its place. */
#include "ustar.h"

#include <stdio.h>
#include <string.h>

void write_header(uint8_t *header, const char *key, const char *extension, size_t size)
{
    char digits[16];
    unsigned sum = 0;
    size_t length = strlen(key);

    memset(header, 0, BLOCK);
    memcpy(header, key, length);
    header[length] = '.';
    memcpy(header + length + 1, extension, strlen(extension));
    memcpy(header + 100, "0000644", 8);
    memcpy(header + 108, "0000000", 8);
    memcpy(header + 116, "0000000", 8);
    snprintf(digits, sizeof digits, "%011llo", (unsigned long long)size & 077777777777u);
    memcpy(header + 124, digits, 12);
    memcpy(header + 136, "00000000000", 12);
    memset(header + 148, ' ', 8);
    header[156] = '0';
    memcpy(header + 257, "ustar\00000", 8);
    memcpy(header + 329, "0000000", 8);
    memcpy(header + 337, "0000000", 8);
    for (int i = 0; i < BLOCK; i++)
        sum += header[i];
    snprintf(digits, sizeof digits, "%06o", sum & 0777777u);
    memcpy(header + 148, digits, 7);
}

int is_header(const uint8_t *header, const char *name, int64_t size)
{
    char digits[16];
    unsigned sum = 8 * ' ';
    size_t length = strlen(name);

    for (int i = 0; i < BLOCK; i++)
        sum += i < 148 || i >= 156 ? header[i] : 0;
    snprintf(digits, sizeof digits, "%06o", sum & 0777777u);
    if (memcmp(header + 148, digits, 7) != 0 || header[156] != '0' || length > NAME_BYTES)
        return 0;
    snprintf(digits, sizeof digits, "%011llo", (unsigned long long)size & 077777777777u);
    return memcmp(header + 124, digits, 12) == 0 && memcmp(header, name, length) == 0 &&
           (length == NAME_BYTES || header[length] == 0) && header[345] == 0;
}
