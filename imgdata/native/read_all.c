/* Until all is there. */
#define _GNU_SOURCE
#include "read_all.h"

#include <errno.h>
#include <unistd.h>

int read_all(int file, uint8_t *to, size_t size, off_t offset)
{
    while (size > 0) {
        ssize_t got = pread(file, to, size, offset);
        if (got == 0)
            return FILE_ENDS;
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return errno;
        to += got;
        size -= (size_t)got;
        offset += got;
    }
    return 0;
}
