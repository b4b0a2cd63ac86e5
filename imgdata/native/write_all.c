/* Until all is written. */
#define _GNU_SOURCE
#include "write_all.h"

#include <errno.h>
#include <unistd.h>

int write_all(int file, const uint8_t *data, size_t size)
{
    while (size > 0) {
        ssize_t done = write(file, data, size);
        if (done < 0 && errno == EINTR)
            continue;
        if (done < 0)
            return errno;
        data += done;
        size -= (size_t)done;
    }
    return 0;
}
