/* Calls of the system that fail, in any part of a program: loaded before libc (LD_PRELOAD), by support/faults.py.
 *
 * Only calls about files below one folder count. A call has a site, "CALL PATH", and a number among those of its site.
 * A schedule names sites and numbers, so a schedule does the same whatever the order of threads. While nothing is armed,
 * and for all other files, every call goes straight to libc. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#define REAL(name) ((__typeof__(&name))real(#name))
#define MOST 4096
#define SHORT (-1)

enum { ONCE, STAYS, DISK };

typedef struct {
    char *site;
    int number;  /* the first call that fails, counted from 1 */
    int scope;
    int error;  /* or SHORT */
    int begun;
} Fault;

static char root[PATH_MAX];
static size_t root_size;
static Fault schedule[64];
static int faults, sites, armed;
static char *known[MOST];
static int counts[MOST];
static char done[1 << 16];
static size_t done_size;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void *real(const char *name)
{
    return dlsym(RTLD_NEXT, name);
}

/* Random parts of names, as tempfile and numbers of processes make them, become `*`. */
static void steady(char *path)
{
    char pid[16];
    size_t length = (size_t)snprintf(pid, sizeof pid, ".%d.", getpid());

    for (char *at = path; (at = strstr(at, pid)) != NULL;) {
        memmove(at + 3, at + length, strlen(at + length) + 1);
        memcpy(at, ".*.", 3);
    }
    for (char *name = path; name != NULL && *name != 0; name = strchr(name, '/')) {
        name += *name == '/';
        size_t before = strncmp(name, "tmp", 3) == 0 ? 3 : strncmp(name, ".", 1) == 0 ? 1 : 0;
        size_t random = strspn(name + before, "abcdefghijklmnopqrstuvwxyz0123456789_");
        if (before != 0 && random == 8 && (before == 3 || strcmp(name + before + random, ".tmp") == 0)) {
            memmove(name + before + 1, name + before + 8, strlen(name + before + 8) + 1);
            name[before] = '*';
        }
    }
}

/* What happens to this call: 0, an error's number, or SHORT. `grows`: it needs space on the disk. */
static int meet(const char *call, const char *path, int grows)
{
    char site[PATH_MAX + 16];
    int found = 0, i;

    if (strncmp(path, root, root_size) != 0 || (path[root_size] != '/' && path[root_size] != 0))
        return 0;
    snprintf(site, sizeof site, "%s %s", call, path[root_size] == 0 ? "." : path + root_size + 1);
    char *end = strstr(site, " (deleted)");
    if (end != NULL)
        *end = 0;
    steady(strchr(site, ' ') + 1);
    pthread_mutex_lock(&lock);
    for (i = 0; i < sites && strcmp(known[i], site) != 0; i++)
        ;
    if (i == sites && sites < MOST) {
        known[sites++] = strdup(site);
        counts[i] = 0;
    }
    if (i < MOST)
        counts[i]++;
    for (int j = 0; j < faults && found == 0 && i < MOST; j++) {
        Fault *fault = &schedule[j];
        int here = strcmp(fault->site, site) == 0 && (fault->scope == ONCE ? counts[i] == fault->number
                                                                            : counts[i] >= fault->number);
        if (here || (fault->begun && fault->scope == DISK && grows)) {
            found = fault->error;
            if (!fault->begun && done_size + strlen(site) + 64 < sizeof done)
                done_size += (size_t)snprintf(done + done_size, sizeof done - done_size, "%d %s %d\n", j, site,
                                              counts[i]);
            fault->begun = 1;
        }
    }
    pthread_mutex_unlock(&lock);
    return found;
}

static int meet_at(const char *call, int folder, const char *path, int grows)
{
    char from[64], whole[2 * PATH_MAX];
    ssize_t size = 0;

    if (!__atomic_load_n(&armed, __ATOMIC_ACQUIRE))
        return 0;
    int saved = errno;
    if (path[0] != '/') {
        snprintf(from, sizeof from, folder == AT_FDCWD ? "/proc/self/cwd" : "/proc/self/fd/%d", folder);
        size = readlink(from, whole, PATH_MAX);
        if (size < 0)
            size = 0;
        whole[size++] = '/';
    }
    snprintf(whole + size, PATH_MAX, "%s", path);
    int found = meet(call, whole, grows);
    errno = saved;
    return found;
}

static int meet_file(const char *call, int file, int grows)
{
    char from[64], path[PATH_MAX];

    if (!__atomic_load_n(&armed, __ATOMIC_ACQUIRE))
        return 0;
    int saved = errno;
    snprintf(from, sizeof from, "/proc/self/fd/%d", file);
    ssize_t size = readlink(from, path, sizeof path - 1);
    path[size < 0 ? 0 : size] = 0;
    int found = meet(call, path, grows);
    errno = saved;
    return found;
}

/* --- For support/faults.py ------------------------------------------------------------------------------------- */

/* Begin to count below `folder`, and to fail as `text` says: lines of `SCOPE ERROR NUMBER SITE`. */
void faults_arm(const char *folder, const char *text)
{
    pthread_mutex_lock(&lock);
    for (int i = 0; i < sites; i++)
        free(known[i]);
    for (int i = 0; i < faults; i++)
        free(schedule[i].site);
    sites = faults = 0;
    done_size = 0;
    done[0] = 0;
    snprintf(root, sizeof root, "%s", folder);
    root_size = strlen(root);
    char *lines = strdup(text), *rest = lines;
    for (char *line; (line = strsep(&rest, "\n")) != NULL && faults < 64;) {
        Fault fault = {0};
        int at = 0;
        if (sscanf(line, "%d %d %d %n", &fault.scope, &fault.error, &fault.number, &at) >= 3) {
            fault.site = strdup(line + at);
            schedule[faults++] = fault;
        }
    }
    free(lines);
    pthread_mutex_unlock(&lock);
    __atomic_store_n(&armed, 1, __ATOMIC_RELEASE);
}

/* End it; the faults that were made, a line each: `WHICH SITE NUMBER`. */
const char *faults_disarm(void)
{
    __atomic_store_n(&armed, 0, __ATOMIC_RELEASE);
    return done;
}

/* The sites that were met, and how often: a line each, `COUNT SITE`. To be freed by `free`. */
char *faults_met(void)
{
    char *text = NULL;
    size_t size = 0;
    FILE *file = open_memstream(&text, &size);

    pthread_mutex_lock(&lock);
    for (int i = 0; i < sites; i++)
        fprintf(file, "%d %s\n", counts[i], known[i]);
    pthread_mutex_unlock(&lock);
    fclose(file);
    return text;
}

/* --- The calls ------------------------------------------------------------------------------------------------- */

#define FAIL(found, value)   \
    do {                     \
        if (found > 0) {     \
            errno = found;   \
            return value;    \
        }                    \
    } while (0)

static const char *opening(int flags)
{
    return flags & O_CREAT ? "create" : "open";
}

#define OPEN(name)                                                                          \
    int name(const char *path, int flags, ...)                                              \
    {                                                                                       \
        va_list more;                                                                       \
        va_start(more, flags);                                                              \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;             \
        va_end(more);                                                                       \
        int found = meet_at(opening(flags), AT_FDCWD, path, (flags & O_CREAT) != 0);        \
        FAIL(found, -1);                                                                    \
        return REAL(name)(path, flags, mode);                                               \
    }
OPEN(open)
OPEN(open64)

#define OPENAT(name)                                                                  \
    int name(int folder, const char *path, int flags, ...)                            \
    {                                                                                 \
        va_list more;                                                                 \
        va_start(more, flags);                                                        \
        mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(more, mode_t) : 0;       \
        va_end(more);                                                                 \
        int found = meet_at(opening(flags), folder, path, (flags & O_CREAT) != 0);    \
        FAIL(found, -1);                                                              \
        return REAL(name)(folder, path, flags, mode);                                 \
    }
OPENAT(openat)
OPENAT(openat64)

#define FOPEN(name)                                                                                       \
    FILE *name(const char *path, const char *mode)                                                        \
    {                                                                                                     \
        int found = meet_at(mode[0] == 'r' ? "open" : "create", AT_FDCWD, path, mode[0] != 'r');          \
        FAIL(found, NULL);                                                                                \
        return REAL(name)(path, mode);                                                                    \
    }
FOPEN(fopen)
FOPEN(fopen64)

/* A short read or write takes half, and at least a byte. */
static size_t part(int found, size_t size)
{
    return found == SHORT && size > 1 ? size / 2 : size;
}

ssize_t read(int file, void *to, size_t size)
{
    int found = meet_file("read", file, 0);
    FAIL(found, -1);
    return REAL(read)(file, to, part(found, size));
}

ssize_t write(int file, const void *from, size_t size)
{
    int found = meet_file("write", file, 1);
    FAIL(found, -1);
    return REAL(write)(file, from, part(found, size));
}

#define PREAD(name, type)                                             \
    ssize_t name(int file, void *to, size_t size, type offset)        \
    {                                                                 \
        int found = meet_file("read", file, 0);                       \
        FAIL(found, -1);                                              \
        return REAL(name)(file, to, part(found, size), offset);       \
    }
PREAD(pread, off_t)
PREAD(pread64, off64_t)

#define PWRITE(name, type)                                                  \
    ssize_t name(int file, const void *from, size_t size, type offset)      \
    {                                                                       \
        int found = meet_file("write", file, 1);                            \
        FAIL(found, -1);                                                    \
        return REAL(name)(file, from, part(found, size), offset);           \
    }
PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

#define ON_FILE(name, call, parameters, arguments, grows) \
    int name parameters                                   \
    {                                                     \
        int found = meet_file(call, file, grows);         \
        FAIL(found, -1);                                  \
        return REAL(name) arguments;                      \
    }
ON_FILE(ftruncate, "resize", (int file, off_t size), (file, size), 1)
ON_FILE(ftruncate64, "resize", (int file, off64_t size), (file, size), 1)

/* Nothing is written through to the disk: no power is cut here, and a disk takes its time. */
#define SYNC(name)                                                    \
    int name(int file)                                                \
    {                                                                 \
        int found = meet_file("sync", file, 0);                       \
        FAIL(found, -1);                                              \
        return __atomic_load_n(&armed, __ATOMIC_ACQUIRE) ? 0 : REAL(name)(file); \
    }
SYNC(fsync)
SYNC(fdatasync)
SYNC(syncfs)

#define ALLOCATE(name, type)                            \
    int name(int file, type offset, type size)          \
    {                                                   \
        int found = meet_file("resize", file, 1);       \
        if (found > 0)                                  \
            return found;                               \
        return REAL(name)(file, offset, size);          \
    }
ALLOCATE(posix_fallocate, off_t)
ALLOCATE(posix_fallocate64, off64_t)

#define ON_PATH(name, call, folder, path, parameters, arguments, grows) \
    int name parameters                                                 \
    {                                                                   \
        int found = meet_at(call, folder, path, grows);                 \
        FAIL(found, -1);                                                \
        return REAL(name) arguments;                                    \
    }
ON_PATH(rename, "rename", AT_FDCWD, to, (const char *from, const char *to), (from, to), 0)
ON_PATH(renameat, "rename", there, to, (int here, const char *from, int there, const char *to),
        (here, from, there, to), 0)
ON_PATH(unlink, "remove", AT_FDCWD, path, (const char *path), (path), 0)
ON_PATH(unlinkat, "remove", folder, path, (int folder, const char *path, int flags), (folder, path, flags), 0)
ON_PATH(rmdir, "remove", AT_FDCWD, path, (const char *path), (path), 0)
ON_PATH(mkdir, "mkdir", AT_FDCWD, path, (const char *path, mode_t mode), (path, mode), 1)
ON_PATH(truncate, "resize", AT_FDCWD, path, (const char *path, off_t size), (path, size), 1)
ON_PATH(truncate64, "resize", AT_FDCWD, path, (const char *path, off64_t size), (path, size), 1)

/* A file that was written may report an error at its end; it is closed all the same. */
int close(int file)
{
    int found = 0;
    if (__atomic_load_n(&armed, __ATOMIC_ACQUIRE)) {
        int saved = errno, flags = fcntl(file, F_GETFL);
        errno = saved;
        if (flags >= 0 && (flags & O_ACCMODE) != O_RDONLY)
            found = meet_file("close", file, 0);
    }
    int result = REAL(close)(file);
    FAIL(found, -1);
    return result;
}
