/* Lets one system call that changes a folder fail, or all from one on; preloaded by tools/measure/faults.py.
 *
 * Counted are calls on paths and files below the folder that fault_set names, in the order they come. The state
 * is shared with forked processes, so that the one that forks can read what the other has counted.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

struct state {
    char folder[PATH_MAX], failed[PATH_MAX];
    long count, at;
    int error, sticky;
};
static struct state *state;

__attribute__((constructor)) static void begin(void) {
    void *memory = mmap(NULL, sizeof *state, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    state = memory == MAP_FAILED ? NULL : memory;
}

/* The at-th call from now on fails with this error; error 0 kills the process there. at 0 only counts. */
void fault_set(const char *folder, long at, int error, int sticky) {
    state->folder[0] = 0;
    state->count = 0, state->at = at, state->error = error, state->sticky = sticky;
    state->failed[0] = 0;
    snprintf(state->folder, PATH_MAX, "%s", folder);
}

long fault_count(void) { return state->count; }

/* The call that failed first, and its path. */
const char *fault_failed(void) { return state->failed; }

/* Whether this call is to fail; errno is set then. */
static int fails(const char *call, const char *path) {
    if (!state || !state->folder[0] || strncmp(path, state->folder, strlen(state->folder)))
        return 0;
    long number = __sync_add_and_fetch(&state->count, 1);
    if (!state->at || (state->sticky ? number < state->at : number != state->at))
        return 0;
    if (!state->failed[0])
        snprintf(state->failed, PATH_MAX, "%s %s", call, path + strlen(state->folder));
    errno = state->error;
    return 1;
}

static int fails_fd(const char *call, int fd) {
    char link[64], path[PATH_MAX];
    if (!state || !state->folder[0])
        return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0)
        return 0;
    path[n] = 0;
    return fails(call, path);
}

/* What a call returns that fails, unless the process ends here. */
static int end(void) {
    if (!state->error)
        kill(getpid(), SIGKILL);
    return -1;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

/* Killed within a write, half of it is done. */
#define WRITE(name, parameters, half, whole)         \
    ssize_t name parameters {                        \
        if (fails_fd(#name, fd)) {                   \
            if (!state->error && REAL(name) half < 0) \
                return -1;                           \
            return end();                            \
        }                                            \
        return REAL(name) whole;                     \
    }
WRITE(write, (int fd, const void *data, size_t n), (fd, data, n / 2), (fd, data, n))
WRITE(pwrite, (int fd, const void *data, size_t n, off_t at), (fd, data, n / 2, at), (fd, data, n, at))
WRITE(pwrite64, (int fd, const void *data, size_t n, off64_t at), (fd, data, n / 2, at), (fd, data, n, at))
WRITE(writev, (int fd, const struct iovec *data, int n), (fd, data, n / 2), (fd, data, n))

#define ON_FD(name, parameters, arguments) \
    int name parameters { return fails_fd(#name, fd) ? end() : REAL(name) arguments; }
ON_FD(fsync, (int fd), (fd))
ON_FD(fdatasync, (int fd), (fd))
ON_FD(ftruncate, (int fd, off_t n), (fd, n))
ON_FD(ftruncate64, (int fd, off64_t n), (fd, n))

#define ON_PATH(name, parameters, path, arguments) \
    int name parameters { return fails(#name, path) ? end() : REAL(name) arguments; }
ON_PATH(rename, (const char *from, const char *to), to, (from, to))
ON_PATH(renameat, (int a, const char *from, int b, const char *to), to, (a, from, b, to))
ON_PATH(unlink, (const char *path), path, (path))
ON_PATH(unlinkat, (int folder, const char *path, int flags), path, (folder, path, flags))
ON_PATH(mkdir, (const char *path, mode_t mode), path, (path, mode))

static mode_t mode_of(int flags, va_list rest) { return flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, mode_t) : 0; }

#define OPEN(name, parameters, arguments)                  \
    int name parameters {                                  \
        va_list rest;                                      \
        va_start(rest, flags);                             \
        mode_t mode = mode_of(flags, rest);                \
        va_end(rest);                                      \
        if ((flags & O_CREAT) && fails(#name, path))       \
            return end();                                  \
        return REAL(name) arguments;                       \
    }
OPEN(open, (const char *path, int flags, ...), (path, flags, mode))
OPEN(open64, (const char *path, int flags, ...), (path, flags, mode))
OPEN(openat, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
OPEN(openat64, (int folder, const char *path, int flags, ...), (folder, path, flags, mode))
