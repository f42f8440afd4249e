/* A disk that fails: the N-th write, rename, sync or lock below a folder is refused, or kills.
 *
 * Loaded by LD_PRELOAD. The file that FAILING_DISK names is shared by all processes of a command;
 * test_failing_disk.py has the same layout. It counts, until `count` reaches `fail_at`.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#define KILL -1

struct control {
    int64_t count, fail_at, error, stays; /* stays: all that follow fail, too */
    char folder[1024], told[1024];
};

static struct control *control;

static struct control *shared(void) {
    const char *name = getenv("FAILING_DISK");
    if (!control && name) {
        int file = (int)syscall(SYS_openat, AT_FDCWD, name, O_RDWR | O_CLOEXEC);
        if (file >= 0) {
            void *map = mmap(NULL, sizeof *control, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
            control = map == MAP_FAILED ? NULL : map;
            close(file);
        }
    }
    return control;
}

static int fails(const char *what, const char *path) {
    struct control *c = shared();
    if (!c || !c->folder[0] || strncmp(path, c->folder, strlen(c->folder))) return 0;
    int64_t number = __atomic_add_fetch(&c->count, 1, __ATOMIC_SEQ_CST);
    if (!c->fail_at || number < c->fail_at || (number > c->fail_at && !c->stays)) return 0;
    if (number == c->fail_at) snprintf(c->told, sizeof c->told, "%s %s", what, path);
    if (c->error == KILL) kill(0, SIGKILL);
    errno = (int)c->error;
    return 1;
}

static int fails_at(const char *what, int folder, const char *path) {
    char full[2 * PATH_MAX], link[64];
    if (path && path[0] == '/') return fails(what, path);
    if (folder == AT_FDCWD) snprintf(link, sizeof link, "/proc/self/cwd");
    else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
    ssize_t size = readlink(link, full, PATH_MAX);
    if (size < 0) return 0;
    full[size] = 0;
    if (path) snprintf(full + size, PATH_MAX, "/%s", path);
    return fails(what, full);
}

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define WRAP(type, name, what, folder, path, parameters, ...)            \
    type name parameters {                                               \
        static __typeof__(&name) next;                                   \
        if (!next) next = NEXT(name);                                    \
        if (fails_at(what, folder, path)) return -1;                     \
        return next(__VA_ARGS__);                                        \
    }

WRAP(ssize_t, write, "write", f, NULL, (int f, const void *b, size_t n), f, b, n)
WRAP(ssize_t, pwrite, "write", f, NULL, (int f, const void *b, size_t n, off_t o), f, b, n, o)
WRAP(ssize_t, pwrite64, "write", f, NULL, (int f, const void *b, size_t n, off64_t o), f, b, n, o)
WRAP(ssize_t, writev, "write", f, NULL, (int f, const struct iovec *v, int n), f, v, n)
WRAP(int, ftruncate, "truncate", f, NULL, (int f, off_t n), f, n)
WRAP(int, ftruncate64, "truncate", f, NULL, (int f, off64_t n), f, n)
WRAP(int, fsync, "sync", f, NULL, (int f), f)
WRAP(int, fdatasync, "sync", f, NULL, (int f), f)
WRAP(int, flock, "lock", f, NULL, (int f, int o), f, o)
WRAP(int, mkdir, "mkdir", AT_FDCWD, p, (const char *p, mode_t m), p, m)
WRAP(int, rename, "rename", AT_FDCWD, a, (const char *a, const char *b), a, b)
WRAP(int, renameat, "rename", d, a, (int d, const char *a, int e, const char *b), d, a, e, b)
WRAP(int, renameat2, "rename", d, a, (int d, const char *a, int e, const char *b, unsigned f), d, a, e, b, f)

#define OPEN(name, at, parameters, ...)                                  \
    int name parameters {                                                \
        static __typeof__(&name) next;                                   \
        if (!next) next = NEXT(name);                                    \
        mode_t mode = 0;                                                 \
        if (flags & (O_CREAT | O_TMPFILE)) {                             \
            va_list rest;                                                \
            va_start(rest, flags);                                       \
            mode = va_arg(rest, mode_t);                                 \
            va_end(rest);                                                \
        }                                                                \
        int writes = flags & (O_WRONLY | O_RDWR | O_CREAT);              \
        if (writes && fails_at("open", at, path)) return -1;             \
        return next(__VA_ARGS__, flags, mode);                           \
    }

OPEN(open, AT_FDCWD, (const char *path, int flags, ...), path)
OPEN(open64, AT_FDCWD, (const char *path, int flags, ...), path)
OPEN(openat, folder, (int folder, const char *path, int flags, ...), folder, path)
OPEN(openat64, folder, (int folder, const char *path, int flags, ...), folder, path)
