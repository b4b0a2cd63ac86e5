/* Samples that are copied as they are: read, probed, hashed and put into a block of the tar, without Python.

What is not as usual (an error of any kind, a file that changed, bytes that `probe_header` does not know) is left to
Python, which reads that one sample again and says what is wrong. So nothing here has a message of its own. */
#define _GNU_SOURCE
#include "copy_samples.h"
#include "nanoseconds.h"
#include "probe_header.h"
#include "read_all.h"
#include "tar_hash.h"
#include "ustar.h"
#include "write_all.h"
#include "xxhash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { LABEL_BYTES = 12, AHEAD = 16 };
static const int64_t LONGEST_NS = 50000000; /* a caller hears of progress, and can stop, so often */

/* Columns of the arrays, int64; the order is that of imgdata.native.copying.copy_samples. */
enum { PATH_AT, KEY_AT, SIZE, OFFSET, LABEL, STATE, WANTED_COLUMNS };
enum { IMAGE_AT, HASH, WIDTH, HEIGHT, KIND, ORIENTATION, FOUND_COLUMNS };

typedef struct {
    const char *paths, *keys, *extension;
    const int64_t *wanted;
    int64_t *found;
    Py_ssize_t count;
    uint8_t *block;
    size_t capacity;
    int64_t max_pixels;
    int tar; /* descriptor that full blocks are written to; -1 where the caller writes them */
    HashKind kind;
    TarHash *hash; /* of what is written here */
    const uint64_t *steady;
    Py_ssize_t steady_count;
} Copying;

/* Why the copying stopped; the order is that of imgdata.native.copying.GO_ON. */
typedef enum { GO_ON, LEFT, FULL, NOT_WRITTEN } Reason;

typedef struct {
    Py_ssize_t row;
    size_t used;      /* bytes of the block */
    int64_t block_at; /* its place in the tar */
    Reason reason;
    int error; /* the errno of NOT_WRITTEN */
} Stand;

/* An open file; `path` is NULL where there is none. */
typedef struct {
    const char *path;
    int descriptor;
} Open;

/* The files of the samples to come, opened ahead: the system reads them from the disk while others are hashed. Measured
   with cold files on a disk: twice the rate. Sample `row` has place `row % AHEAD`; `next` is the first that has none. */
typedef struct {
    Open open[AHEAD];
    Py_ssize_t next;
    size_t room; /* bytes that may be opened ahead: those of the block that no sample up to `next` takes */
} Files;

static void close_file(Open *file)
{
    if (file->path != NULL)
        close(file->descriptor);
    file->path = NULL;
}

static void open_file(Open *file, const char *path)
{
    do
        /* As imgdata.storage.reading.open_regular: never waits for a pipe. */
        file->descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY);
    while (file->descriptor < 0 && errno == EINTR);
    file->path = file->descriptor < 0 ? NULL : path;
}

/* Most bytes that a sample takes in the block. */
static size_t bytes_of(const int64_t *wanted)
{
    return padded((size_t)wanted[SIZE]) + (wanted[LABEL] >= 0 ? 3 : 1) * BLOCK;
}

/* Opens what comes next, as far as there is room for it. */
static void open_ahead(const Copying *copying, Files *files, Py_ssize_t row)
{
    for (; files->next < copying->count && files->next < row + AHEAD; files->next++) {
        const int64_t *wanted = copying->wanted + files->next * WANTED_COLUMNS;
        const char *path = copying->paths + wanted[PATH_AT];
        Open *file = &files->open[files->next % AHEAD];
        const Open *before = &files->open[(files->next + AHEAD - 1) % AHEAD];

        if (bytes_of(wanted) > files->room)
            return;
        files->room -= bytes_of(wanted);
        if (before->path != NULL && strcmp(before->path, path) == 0) {
            /* The same container, which need not be looked up again. */
            file->descriptor = fcntl(before->descriptor, F_DUPFD_CLOEXEC, 0);
            file->path = file->descriptor < 0 ? NULL : path;
        } else
            open_file(file, path);
        if (file->path != NULL)
            posix_fadvise(file->descriptor, wanted[OFFSET] < 0 ? 0 : (off_t)wanted[OFFSET], (off_t)wanted[SIZE],
                          POSIX_FADV_WILLNEED);
    }
}

static void put_64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

/* `SampleRef.state` of an open file, as imgdata.sources.reading makes it. */
static int64_t state_of(const struct stat *info, const Copying *copying)
{
    uint8_t facts[24];
    uint64_t inode = 0;

    for (Py_ssize_t i = 0; i < copying->steady_count; i++)
        if (copying->steady[i] == (uint64_t)info->st_dev)
            inode = (uint64_t)info->st_ino;
    put_64(facts, (uint64_t)info->st_size);
    put_64(facts + 8, (uint64_t)nanoseconds(info->st_mtim));
    put_64(facts + 16, inode);
    return (int64_t)(xxh3_of_24(facts) >> 1 | 1);
}

/* 1 with the bytes of the sample at `to`, from a file that is as it was listed. */
static int read_sample(const Copying *copying, const int64_t *wanted, const Open *file, uint8_t *to)
{
    int whole = wanted[OFFSET] < 0;
    struct stat info;

    /* The state after the read: a file that was written to during the read has another time of modification by now. */
    return file->path != NULL &&
           read_all(file->descriptor, to, (size_t)wanted[SIZE], whole ? 0 : (off_t)wanted[OFFSET]) == 0 &&
           fstat(file->descriptor, &info) == 0 && S_ISREG(info.st_mode) && (!whole || info.st_size == wanted[SIZE]) &&
           (wanted[STATE] == 0 || state_of(&info, copying) == wanted[STATE]);
}

/* The members of one sample into the block from `used` on. Returns their bytes; 0 when Python has to see the sample. */
static size_t copy_sample(const Copying *copying, Py_ssize_t row, const Stand *stand, const Open *file)
{
    const int64_t *wanted = copying->wanted + row * WANTED_COLUMNS;
    int64_t *found = copying->found + row * FOUND_COLUMNS;
    const char *key = copying->keys + wanted[KEY_AT];
    size_t size = (size_t)wanted[SIZE], start = wanted[LABEL] >= 0 ? 2 * BLOCK : 0;
    uint8_t *to = copying->block + stand->used, *image = to + start + BLOCK;
    Probed header;

    if (!read_sample(copying, wanted, file, image) || !probe_header(image, size, &header) ||
        (int64_t)header.width * header.height > copying->max_pixels)
        return 0;
    if (start > 0) {
        char label[LABEL_BYTES];
        int length = snprintf(label, sizeof label, "%d", (int)wanted[LABEL]);
        write_header(to, key, "cls", (size_t)length);
        memset(to + BLOCK, 0, BLOCK);
        memcpy(to + BLOCK, label, (size_t)length);
    }
    write_header(to + start, key, copying->extension, size);
    memset(image + size, 0, padded(size) - size);
    found[IMAGE_AT] = stand->block_at + (int64_t)(stand->used + start + BLOCK);
    found[HASH] = (int64_t)xxh64(image, size);
    found[WIDTH] = header.width;
    found[HEIGHT] = header.height;
    found[KIND] = header.kind;
    found[ORIENTATION] = header.orientation;
    return start + BLOCK + padded(size);
}

static int64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return nanoseconds(time);
}

/* 1 with an empty block, whose bytes are hashed and written. */
static int write_block(const Copying *copying, Stand *stand)
{
    tar_hash_update(copying->kind, copying->hash, copying->block, stand->used);
    stand->error = write_all(copying->tar, copying->block, stand->used);
    stand->block_at += (int64_t)stand->used;
    stand->used = 0;
    return stand->error == 0;
}

/* Whether the sample fits into the block, which is written where it is full. */
static int has_room(const Copying *copying, Stand *stand)
{
    size_t size = bytes_of(copying->wanted + stand->row * WANTED_COLUMNS);

    if (size <= copying->capacity - stand->used)
        return 1;
    stand->reason = size > copying->capacity ? LEFT : FULL;
    if (stand->reason == LEFT || copying->tar < 0)
        return 0;
    stand->reason = write_block(copying, stand) ? GO_ON : NOT_WRITTEN;
    return stand->reason == GO_ON;
}

static void copy_samples(const Copying *copying, Stand *stand)
{
    Files files = {.next = stand->row, .room = copying->tar < 0 ? copying->capacity - stand->used : SIZE_MAX};
    int64_t end = now_ns() + LONGEST_NS;

    while (stand->row < copying->count) {
        Open *file = &files.open[stand->row % AHEAD];
        size_t done;

        if (!has_room(copying, stand))
            break;
        open_ahead(copying, &files, stand->row);
        done = copy_sample(copying, stand->row, stand, file);
        close_file(file);
        if (done == 0) {
            stand->reason = LEFT;
            break;
        }
        stand->used += done;
        stand->row++;
        if (now_ns() > end)
            break;
    }
    for (int i = 0; i < AHEAD; i++)
        close_file(&files.open[i]);
}

static int is_within(const Copying *copying, Py_ssize_t paths_size, Py_ssize_t keys_size)
{
    size_t longest = NAME_BYTES - 1 - strlen(copying->extension);

    if (strlen(copying->extension) > NAME_BYTES / 2 || (paths_size > 0 && copying->paths[paths_size - 1] != 0) ||
        (keys_size > 0 && copying->keys[keys_size - 1] != 0))
        return 0;
    if (strlen(copying->extension) < 3)
        longest = NAME_BYTES - 1 - 3;
    for (Py_ssize_t i = 0; i < copying->count; i++) {
        const int64_t *wanted = copying->wanted + i * WANTED_COLUMNS;
        if (wanted[PATH_AT] < 0 || wanted[PATH_AT] >= paths_size || wanted[KEY_AT] < 0 || wanted[KEY_AT] >= keys_size ||
            wanted[SIZE] < 0 || wanted[SIZE] > INT64_MAX / 4 || wanted[LABEL] > INT32_MAX ||
            strlen(copying->keys + wanted[KEY_AT]) > longest)
            return 0;
    }
    return 1;
}

static PyObject *copy_samples_(PyObject *module, PyObject *args)
{
    Py_buffer paths, keys, wanted, found, block, hash, steady;
    Copying copying;
    Stand stand = {0};
    Py_ssize_t used;
    int tar, kind;
    long long block_at, max_pixels;
    const char *extension;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*w*w*nnLiiw*sLy*", &paths, &keys, &wanted, &found, &block, &stand.row, &used,
                          &block_at, &tar, &kind, &hash, &extension, &max_pixels, &steady))
        return NULL;
    copying = (Copying){.paths = paths.buf,
                        .keys = keys.buf,
                        .extension = extension,
                        .wanted = wanted.buf,
                        .found = found.buf,
                        .count = wanted.len / (8 * WANTED_COLUMNS),
                        .block = block.buf,
                        .capacity = (size_t)block.len,
                        .tar = tar,
                        .kind = (HashKind)kind,
                        .hash = hash.buf,
                        .max_pixels = max_pixels,
                        .steady = steady.buf,
                        .steady_count = steady.len / 8};
    stand.used = (size_t)used;
    stand.block_at = block_at;
    if (wanted.len % (8 * WANTED_COLUMNS) != 0 || found.len != copying.count * 8 * FOUND_COLUMNS || stand.row < 0 ||
        stand.row > copying.count || used < 0 || used > block.len || block_at < 0 || (tar >= 0 && !is_tar_hash(kind, &hash)) ||
        !is_within(&copying, paths.len, keys.len)) {
        PyErr_SetString(PyExc_ValueError, "samples, names or the block are out of range");
        goto end;
    }

    Py_BEGIN_ALLOW_THREADS
    copy_samples(&copying, &stand);
    Py_END_ALLOW_THREADS

    result = Py_BuildValue("nnLii", stand.row, (Py_ssize_t)stand.used, (long long)stand.block_at, (int)stand.reason,
                           stand.error);
end:
    PyBuffer_Release(&paths);
    PyBuffer_Release(&keys);
    PyBuffer_Release(&wanted);
    PyBuffer_Release(&found);
    PyBuffer_Release(&block);
    PyBuffer_Release(&hash);
    PyBuffer_Release(&steady);
    return result;
}

static PyMethodDef FUNCTIONS[] = {
    {"copy_samples", copy_samples_, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int copying_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, FUNCTIONS);
}
