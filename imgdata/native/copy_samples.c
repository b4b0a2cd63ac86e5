/* Samples that are copied as they are: read, probed, hashed and put into a block of the tar, without Python.

What is not as usual (an error of any kind, a file that changed, bytes that `probe_header` does not know) is left to
Python, which reads that one sample again and says what is wrong. So nothing here has a message of its own. */
#define _GNU_SOURCE
#include "copy_samples.h"
#include "probe_header.h"
#include "xxhash.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 512, NAME_BYTES = 100, LABEL_BYTES = 12, AHEAD = 16 };
static const int64_t LONGEST_NS = 50000000; /* a caller hears of progress, and can stop, so often */

/* Columns of the arrays, int64; the order is that of imgdata.native.copy_samples. */
enum { PATH_AT, KEY_AT, SIZE, OFFSET, LABEL, STATE, WANTED_COLUMNS };
enum { IMAGE_AT, HASH, WIDTH, HEIGHT, KIND, ORIENTATION, FOUND_COLUMNS };
enum { FAILED, MODE, BYTES, MODIFIED, CHANGED, INODE, DEVICE, STAT_COLUMNS };

typedef struct {
    const char *paths, *keys, *extension;
    const int64_t *wanted;
    int64_t *found;
    Py_ssize_t count;
    uint8_t *block;
    size_t capacity;
    int64_t block_at, max_pixels;
    const uint64_t *steady;
    Py_ssize_t steady_count;
} Copying;

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
    size_t room; /* bytes of the block that no sample up to `next` takes */
} Files;

static size_t padded(size_t size)
{
    return (size + BLOCK - 1) / BLOCK * BLOCK;
}

/* As imgdata.tar.archive.ustar_header writes it: owner 0, mode 0644, time 0. */
static void write_header(uint8_t *header, const char *key, const char *extension, size_t size)
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

/* Opens what comes next, as far as the block has room for it. */
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

static int read_all(int descriptor, uint8_t *to, size_t size, off_t offset)
{
    while (size > 0) {
        ssize_t done = pread(descriptor, to, size, offset);
        if (done < 0 && errno == EINTR)
            continue;
        if (done <= 0)
            return 0;
        to += done;
        offset += done;
        size -= (size_t)done;
    }
    return 1;
}

static void put_64(uint8_t *to, uint64_t value)
{
    for (int i = 0; i < 8; i++)
        to[i] = (uint8_t)(value >> 8 * i);
}

static int64_t nanoseconds(struct timespec time)
{
    return (int64_t)time.tv_sec * 1000000000 + time.tv_nsec;
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

    if (file->path == NULL || fstat(file->descriptor, &info) != 0 || !S_ISREG(info.st_mode) ||
        (whole && info.st_size != wanted[SIZE]) ||
        !read_all(file->descriptor, to, (size_t)wanted[SIZE], whole ? 0 : (off_t)wanted[OFFSET]))
        return 0;
    if (wanted[STATE] == 0)
        return 1;
    /* After the read: a file that was written to during the read has another time of modification by now. */
    return fstat(file->descriptor, &info) == 0 && state_of(&info, copying) == wanted[STATE];
}

/* The members of one sample into the block from `used` on. Returns their bytes; 0 when Python has to see the sample. */
static size_t copy_sample(const Copying *copying, Py_ssize_t row, size_t used, const Open *file)
{
    const int64_t *wanted = copying->wanted + row * WANTED_COLUMNS;
    int64_t *found = copying->found + row * FOUND_COLUMNS;
    const char *key = copying->keys + wanted[KEY_AT];
    size_t size = (size_t)wanted[SIZE], start = wanted[LABEL] >= 0 ? 2 * BLOCK : 0;
    uint8_t *to = copying->block + used, *image = to + start + BLOCK;
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
    found[IMAGE_AT] = copying->block_at + (int64_t)(used + start + BLOCK);
    found[HASH] = (int64_t)xxh64(image, size);
    found[WIDTH] = header.width;
    found[HEIGHT] = header.height;
    found[KIND] = header.kind;
    found[ORIENTATION] = header.orientation;
    return start + BLOCK + padded(size);
}

/* Why the copying stopped. */
typedef enum { GO_ON, LEFT, FULL } Reason;

typedef struct {
    Py_ssize_t row;
    size_t used;
    Reason reason;
} Stand;

static int64_t now_ns(void)
{
    struct timespec time;

    clock_gettime(CLOCK_MONOTONIC, &time);
    return nanoseconds(time);
}

static void copy_samples(const Copying *copying, Stand *stand)
{
    Files files = {.next = stand->row, .room = copying->capacity - stand->used};
    int64_t end = now_ns() + LONGEST_NS;

    while (stand->row < copying->count) {
        const int64_t *wanted = copying->wanted + stand->row * WANTED_COLUMNS;
        Open *file = &files.open[stand->row % AHEAD];
        size_t done;

        open_ahead(copying, &files, stand->row);
        if (files.next == stand->row) {
            stand->reason = bytes_of(wanted) > copying->capacity ? LEFT : FULL;
            break;
        }
        done = copy_sample(copying, stand->row, stand->used, file);
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
    Py_buffer paths, keys, wanted, found, block, steady;
    Copying copying;
    Stand stand = {0};
    Py_ssize_t used;
    long long block_at, max_pixels;
    const char *extension;
    PyObject *result = NULL;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*y*y*w*w*nnsLLy*", &paths, &keys, &wanted, &found, &block, &stand.row, &used,
                          &extension, &block_at, &max_pixels, &steady))
        return NULL;
    copying = (Copying){.paths = paths.buf,
                        .keys = keys.buf,
                        .extension = extension,
                        .wanted = wanted.buf,
                        .found = found.buf,
                        .count = wanted.len / (8 * WANTED_COLUMNS),
                        .block = block.buf,
                        .capacity = (size_t)block.len,
                        .block_at = block_at,
                        .max_pixels = max_pixels,
                        .steady = steady.buf,
                        .steady_count = steady.len / 8};
    stand.used = (size_t)used;
    if (wanted.len % (8 * WANTED_COLUMNS) != 0 || found.len != copying.count * 8 * FOUND_COLUMNS || stand.row < 0 ||
        stand.row > copying.count || used < 0 || used > block.len || block_at < 0 ||
        !is_within(&copying, paths.len, keys.len)) {
        PyErr_SetString(PyExc_ValueError, "samples, names or the block are out of range");
        goto end;
    }

    Py_BEGIN_ALLOW_THREADS
    copy_samples(&copying, &stand);
    Py_END_ALLOW_THREADS

    result = Py_BuildValue("nni", stand.row, (Py_ssize_t)stand.used, (int)stand.reason);
end:
    PyBuffer_Release(&paths);
    PyBuffer_Release(&keys);
    PyBuffer_Release(&wanted);
    PyBuffer_Release(&found);
    PyBuffer_Release(&block);
    PyBuffer_Release(&steady);
    return result;
}

/* Whether a header is that of a regular file of this name and size. */
static int is_header(const uint8_t *header, const char *name, int64_t size)
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

/* 1 when the file is exactly these members, one behind the other, and an end of two empty blocks. */
static int is_tar_of(int descriptor, const char *names, size_t names_size, const int64_t *places, Py_ssize_t count)
{
    static const uint8_t EMPTY[2 * BLOCK];
    uint8_t header[2 * BLOCK];
    struct stat info;
    int64_t position = 0;
    const char *name = names, *end = names + names_size;

    for (Py_ssize_t i = 0; i < count; i++) {
        if (name == end || places[2 * i] != position + BLOCK || places[2 * i + 1] < 0 ||
            !read_all(descriptor, header, BLOCK, (off_t)position) || !is_header(header, name, places[2 * i + 1]))
            return 0;
        position += BLOCK + (int64_t)padded((size_t)places[2 * i + 1]);
        name += strlen(name) + 1;
    }
    return name == end && fstat(descriptor, &info) == 0 && info.st_size == position + 2 * BLOCK &&
           read_all(descriptor, header, 2 * BLOCK, (off_t)position) && memcmp(header, EMPTY, 2 * BLOCK) == 0;
}

static PyObject *is_tar_of_(PyObject *module, PyObject *args)
{
    Py_buffer names, places;
    int descriptor, right = 0;

    (void)module;
    if (!PyArg_ParseTuple(args, "iy*y*", &descriptor, &names, &places))
        return NULL;
    if (names.len == 0 || ((const char *)names.buf)[names.len - 1] != 0 || places.len % 16 != 0) {
        PyErr_SetString(PyExc_ValueError, "names must end in zeros, and places be pairs");
        PyBuffer_Release(&names);
        PyBuffer_Release(&places);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    right = is_tar_of(descriptor, names.buf, (size_t)names.len, places.buf, places.len / 16);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&names);
    PyBuffer_Release(&places);
    return PyBool_FromLong(right);
}

/* Links are followed. */
static void stat_file(const char *path, int64_t *facts)
{
    struct stat info;
    int failed = stat(path, &info) == 0 ? 0 : errno;

    facts[FAILED] = failed;
    facts[MODE] = failed ? 0 : (int64_t)info.st_mode;
    facts[BYTES] = failed ? 0 : (int64_t)info.st_size;
    facts[MODIFIED] = failed ? 0 : nanoseconds(info.st_mtim);
    facts[CHANGED] = failed ? 0 : nanoseconds(info.st_ctim);
    facts[INODE] = failed ? 0 : (int64_t)info.st_ino;
    facts[DEVICE] = failed ? 0 : (int64_t)info.st_dev;
}

static PyObject *stat_files(PyObject *module, PyObject *args)
{
    Py_buffer paths, facts;
    const char *path, *end;
    int64_t *to;
    Py_ssize_t count = 0, rows;

    (void)module;
    if (!PyArg_ParseTuple(args, "y*w*", &paths, &facts))
        return NULL;
    path = paths.buf;
    end = path + paths.len;
    rows = facts.len / (8 * STAT_COLUMNS);
    for (const char *at = path; at < end; at++)
        count += *at == 0;
    if (count != rows || facts.len % (8 * STAT_COLUMNS) != 0 || (paths.len > 0 && end[-1] != 0)) {
        PyErr_SetString(PyExc_ValueError, "there must be a row of facts for each path");
        PyBuffer_Release(&paths);
        PyBuffer_Release(&facts);
        return NULL;
    }
    Py_BEGIN_ALLOW_THREADS
    to = facts.buf;
    for (; path < end; path += strlen(path) + 1, to += STAT_COLUMNS)
        stat_file(path, to);
    Py_END_ALLOW_THREADS
    PyBuffer_Release(&paths);
    PyBuffer_Release(&facts);
    return Py_NewRef(Py_None);
}

static PyMethodDef FUNCTIONS[] = {
    {"copy_samples", copy_samples_, METH_VARARGS, NULL},
    {"is_tar_of", is_tar_of_, METH_VARARGS, NULL},
    {"stat_files", stat_files, METH_VARARGS, NULL},
    {NULL, NULL, 0, NULL},
};

int copying_add_functions(PyObject *module)
{
    return PyModule_AddFunctions(module, FUNCTIONS);
}
