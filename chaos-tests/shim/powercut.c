/*
 * A disk that loses power, and one that fails, for processes that know nothing of it.
 *
 * Preloaded (LD_PRELOAD) under a node, it keeps beside the real files a shadow that holds what a disk would hold
 * if the power went now: the bytes of each file as of its last fsync or fdatasync, and the names in each directory
 * as of that directory's last fsync. As strict as POSIX: a new, renamed or removed file is what it was until its
 * directory is synced. Real files behave as always, so a killed process loses nothing; the test loses power by
 * putting the shadow in the place of the files (chaos-tests/src/power.rs).
 *
 *   POWERCUT_ROOT     the folder that is watched; what it holds when there is no shadow yet counts as synced
 *   POWERCUT_SHADOW   where the shadow is kept; it outlives the process
 *     inodes/<inode>          the synced bytes of a file
 *     dirs/<inode>/<name>     a synced name: a hard link to inodes/..., or for a folder a symbolic link to its inode
 *     root                    a symbolic link to the root's entry in dirs
 *   POWERCUT_FAULTS   a folder; while it holds a file of this name,
 *     ignore-sync             syncs answer success and do nothing
 *     eio-sync                syncs fail with EIO
 *     eio-database            writes to a database file (*.db) fail with EIO; its journals are written
 *     enospc                  writes below the root fail with ENOSPC
 *     low-disk                the file system says that it has next to no free space
 *
 * Watched files are found by inode at each call, so duplicated descriptors need no care. What is not modelled and
 * would be mistaken for durable (O_SYNC, shared writable mappings, sync) aborts the process; SQLite's -shm is
 * exempt: it is rebuilt after a crash. What bypasses libc is never durable here, so it cannot hide a loss.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

/* --- state ------------------------------------------------------------------------------------------------ */

struct range { off_t from, to; };

/* What has changed in a file since its last sync. */
struct file {
    struct file *next;
    dev_t device;
    ino_t inode;
    pthread_mutex_t lock;
    bool whole;         /* nothing is known: the next sync copies all of it */
    off_t least;        /* the shortest it has been */
    struct range *ranges;
    size_t count, room;
};

#define BUCKETS 1024
static struct file *files[BUCKETS];
static pthread_mutex_t files_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_mutex_t names_lock = PTHREAD_MUTEX_INITIALIZER;
static char root[PATH_MAX], shadow[PATH_MAX], faults[PATH_MAX];
static bool ready;

static void die(const char *what, const char *where) {
    dprintf(2, "powercut: %s: %s: %s\n", what, where, strerror(errno));
    abort();
}

static bool fault(const char *name) {
    if (!faults[0]) return false;
    char path[PATH_MAX + 32];
    snprintf(path, sizeof path, "%s/%s", faults, name);
    int kept = errno;
    bool there = syscall(SYS_faccessat, AT_FDCWD, path, F_OK) == 0;
    errno = kept;
    return there;
}

static int raw_open(const char *path, int flags, mode_t mode) {
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, mode);
}

static void raw_close(int fd) { syscall(SYS_close, fd); }

/* Whether the descriptor leads to something below the root; gives its path. */
static bool below_root(int fd, char path[PATH_MAX]) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (length < 0) return false;
    path[length] = 0;
    size_t prefix = strlen(root);
    return strncmp(path, root, prefix) == 0 && (path[prefix] == '/' || path[prefix] == 0);
}

static void object_path(char *path, size_t size, ino_t inode) {
    snprintf(path, size, "%s/inodes/%llu", shadow, (unsigned long long)inode);
}

static void names_path(char *path, size_t size, ino_t inode) {
    snprintf(path, size, "%s/dirs/%llu", shadow, (unsigned long long)inode);
}

static struct file *find(dev_t device, ino_t inode) {
    struct file *file = files[inode % BUCKETS];
    while (file && (file->inode != inode || file->device != device)) file = file->next;
    return file;
}

/* The watched file behind a descriptor; takes no lock for sockets and pipes, so signal handlers may write to them. */
static struct file *watched(int fd) {
    if (!ready || fd < 0) return NULL;
    int kept = errno;
    struct stat status;
    struct file *file = NULL;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode)) {
        pthread_mutex_lock(&files_lock);
        file = find(status.st_dev, status.st_ino);
        pthread_mutex_unlock(&files_lock);
    }
    errno = kept;
    return file;
}

/* Watches a file from now on. An inode number that was used before belongs to a new file when it was `created`. */
static struct file *watch(const struct stat *status, bool created) {
    pthread_mutex_lock(&files_lock);
    struct file *file = find(status->st_dev, status->st_ino);
    bool known = file != NULL;
    if (!known) {
        file = calloc(1, sizeof *file);
        if (!file) die("no memory", "watch");
        pthread_mutex_init(&file->lock, NULL);
        file->device = status->st_dev;
        file->inode = status->st_ino;
        file->least = LONG_MAX;
    }
    pthread_mutex_lock(&file->lock);
    if (created) {
        char object[PATH_MAX + 64];
        object_path(object, sizeof object, status->st_ino);
        syscall(SYS_unlinkat, AT_FDCWD, object, 0);
        file->whole = false;
        file->least = 0;
        file->count = 0;
    } else if (!known) {
        /* A process before this one may have left bytes that it never synced. */
        file->whole = true;
    }
    pthread_mutex_unlock(&file->lock);
    if (!known) {
        file->next = files[status->st_ino % BUCKETS];
        files[status->st_ino % BUCKETS] = file;
    }
    pthread_mutex_unlock(&files_lock);
    return file;
}

/* --- what changed ----------------------------------------------------------------------------------------- */

static void changed(struct file *file, off_t from, off_t to) {
    if (!file || to <= from) return;
    int kept = errno;
    pthread_mutex_lock(&file->lock);
    struct range *last = file->count ? &file->ranges[file->count - 1] : NULL;
    if (last && from <= last->to && to >= last->from) {
        if (from < last->from) last->from = from;
        if (to > last->to) last->to = to;
    } else if (file->count == 65536) {
        file->whole = true;
        file->count = 0;
    } else if (!file->whole) {
        if (file->count == file->room) {
            file->room = file->room ? file->room * 2 : 16;
            file->ranges = realloc(file->ranges, file->room * sizeof *file->ranges);
            if (!file->ranges) die("no memory", "changed");
        }
        file->ranges[file->count++] = (struct range){from, to};
    }
    pthread_mutex_unlock(&file->lock);
    errno = kept;
}

/* A write of `length` bytes has just moved the position to its end. */
static void changed_before_position(struct file *file, int fd, ssize_t length) {
    if (!file || length <= 0) return;
    off_t end = lseek(fd, 0, SEEK_CUR);
    if (end >= length) changed(file, end - length, end);
}

static void shortened(struct file *file, off_t length) {
    if (!file) return;
    pthread_mutex_lock(&file->lock);
    if (length < file->least) file->least = length;
    pthread_mutex_unlock(&file->lock);
}

/* --- syncs ------------------------------------------------------------------------------------------------ */

static void copy_range(int from, int to, off_t at, off_t end) {
    static __thread char buffer[1 << 16];
    while (at < end) {
        size_t want = end - at < (off_t)sizeof buffer ? (size_t)(end - at) : sizeof buffer;
        ssize_t got = syscall(SYS_pread64, from, buffer, want, at);
        if (got < 0) die("read", "the file that is synced");
        if (got == 0) return;
        for (ssize_t done = 0; done < got;) {
            ssize_t put = syscall(SYS_pwrite64, to, buffer + done, got - done, at + done);
            if (put <= 0) die("write", "the shadow");
            done += put;
        }
        at += got;
    }
}

/* Makes the file's bytes durable. Old bytes are only ever overwritten: a kill halfway leaves each byte old or new. */
static void sync_bytes(struct file *file, int fd) {
    char path[PATH_MAX + 64];
    pthread_mutex_lock(&file->lock);
    snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    int from = raw_open(path, O_RDONLY, 0);
    if (from < 0) die("open", path);
    object_path(path, sizeof path, file->inode);
    int to = raw_open(path, O_RDWR | O_CREAT, 0600);
    if (to < 0) die("open", path);
    struct stat now, then;
    if (fstat(from, &now) != 0 || fstat(to, &then) != 0) die("stat", path);
    if (file->whole) {
        copy_range(from, to, 0, now.st_size);
    } else {
        if (file->least < then.st_size && syscall(SYS_ftruncate, to, file->least) != 0) die("truncate", path);
        for (size_t i = 0; i < file->count; i++) {
            off_t end = file->ranges[i].to < now.st_size ? file->ranges[i].to : now.st_size;
            copy_range(from, to, file->ranges[i].from, end);
        }
    }
    if (syscall(SYS_ftruncate, to, now.st_size) != 0) die("truncate", path);
    file->whole = false;
    file->count = 0;
    file->least = LONG_MAX;
    raw_close(from);
    raw_close(to);
    pthread_mutex_unlock(&file->lock);
}

/* Puts a synced name into the shadow, in one step: a kill leaves the old one or the new one. */
static void put_name(const char *folder, const char *name, const struct stat *status) {
    char target[PATH_MAX + 64], at[PATH_MAX * 2], fresh[PATH_MAX + 64], was[64];
    struct stat there, object;
    snprintf(at, sizeof at, "%s/%s", folder, name);
    snprintf(fresh, sizeof fresh, "%s/fresh", shadow);
    syscall(SYS_unlinkat, AT_FDCWD, fresh, 0);
    if (S_ISDIR(status->st_mode)) {
        names_path(target, sizeof target, status->st_ino);
        if (syscall(SYS_mkdirat, AT_FDCWD, target, 0700) != 0 && errno != EEXIST) die("mkdir", target);
        char number[32];
        snprintf(number, sizeof number, "%llu", (unsigned long long)status->st_ino);
        ssize_t length = readlink(at, was, sizeof was - 1);
        if (length > 0 && (was[length] = 0, strcmp(was, number) == 0)) return;
        if (symlink(number, fresh) != 0) die("symlink", at);
    } else if (S_ISREG(status->st_mode)) {
        object_path(target, sizeof target, status->st_ino);
        int fd = raw_open(target, O_RDWR | O_CREAT, 0600);
        if (fd < 0 || fstat(fd, &object) != 0) die("open", target);
        raw_close(fd);
        if (lstat(at, &there) == 0 && there.st_ino == object.st_ino) return;
        if (link(target, fresh) != 0) die("link", at);
    } else {
        return;
    }
    if (rename(fresh, at) != 0) die("rename", at);
}

/* Makes the names in a folder durable. */
static void sync_names(const char *path, ino_t inode) {
    char folder[PATH_MAX + 64];
    pthread_mutex_lock(&names_lock);
    names_path(folder, sizeof folder, inode);
    if (syscall(SYS_mkdirat, AT_FDCWD, folder, 0700) != 0 && errno != EEXIST) die("mkdir", folder);
    DIR *real = opendir(path), *kept = opendir(folder);
    if (!real || !kept) die("opendir", path);
    struct dirent *entry;
    struct stat status;
    while ((entry = readdir(real))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (fstatat(dirfd(real), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) == 0)
            put_name(folder, entry->d_name, &status);
    }
    while ((entry = readdir(kept))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (fstatat(dirfd(real), entry->d_name, &status, AT_SYMLINK_NOFOLLOW) != 0)
            syscall(SYS_unlinkat, dirfd(kept), entry->d_name, 0);
    }
    closedir(real);
    closedir(kept);
    pthread_mutex_unlock(&names_lock);
}

/* Takes everything below a folder as synced: the start of a shadow. */
static void import(const char *path, ino_t inode) {
    DIR *folder = opendir(path);
    if (!folder) die("opendir", path);
    struct dirent *entry;
    struct stat status;
    while ((entry = readdir(folder))) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char child[PATH_MAX * 2];
        snprintf(child, sizeof child, "%s/%s", path, entry->d_name);
        if (lstat(child, &status) != 0) continue;
        if (S_ISDIR(status.st_mode)) {
            import(child, status.st_ino);
        } else if (S_ISREG(status.st_mode)) {
            int fd = raw_open(child, O_RDONLY, 0);
            if (fd < 0) die("open", child);
            sync_bytes(watch(&status, false), fd);
            raw_close(fd);
        }
    }
    closedir(folder);
    sync_names(path, inode);
}

__attribute__((constructor)) static void begin(void) {
    const char *in = getenv("POWERCUT_ROOT"), *keep = getenv("POWERCUT_SHADOW"), *break_by = getenv("POWERCUT_FAULTS");
    struct stat status;
    char path[PATH_MAX + 64], target[PATH_MAX + 64];
    if (!in || !keep) return;
    if (!realpath(in, root)) die("POWERCUT_ROOT", in);
    if (syscall(SYS_mkdirat, AT_FDCWD, keep, 0700) != 0 && errno != EEXIST) die("POWERCUT_SHADOW", keep);
    if (!realpath(keep, shadow)) die("POWERCUT_SHADOW", keep);
    if (break_by) snprintf(faults, sizeof faults, "%s", break_by);
    if (stat(root, &status) != 0) die("stat", root);
    snprintf(path, sizeof path, "%s/root", shadow);
    if (access(path, F_OK) != 0) {
        snprintf(target, sizeof target, "%s/inodes", shadow);
        mkdir(target, 0700);
        snprintf(target, sizeof target, "%s/dirs", shadow);
        mkdir(target, 0700);
        import(root, status.st_ino);
        snprintf(target, sizeof target, "dirs/%llu", (unsigned long long)status.st_ino);
        if (symlink(target, path) != 0) die("symlink", path);
    }
    ready = true;
}

static int any_sync(int fd, long number) {
    struct stat status;
    char path[PATH_MAX];
    struct file *file = watched(fd);
    bool folder = !file && ready && fstat(fd, &status) == 0 && S_ISDIR(status.st_mode) && below_root(fd, path);
    if (!file && !folder) return (int)syscall(number, fd);
    if (fault("eio-sync")) {
        errno = EIO;
        return -1;
    }
    if (fault("ignore-sync")) return 0;
    int kept = errno;
    if (file) sync_bytes(file, fd);
    else sync_names(path, status.st_ino);
    errno = kept;
    return 0;
}

int fsync(int fd) { return any_sync(fd, SYS_fsync); }
int fdatasync(int fd) { return any_sync(fd, SYS_fdatasync); }

void sync(void) {
    if (ready) die("not modelled", "sync");
    syscall(SYS_sync);
}

int syncfs(int fd) {
    if (ready) die("not modelled", "syncfs");
    return (int)syscall(SYS_syncfs, fd);
}

/* --- opening ---------------------------------------------------------------------------------------------- */

static int any_open(int folder, const char *path, int flags, mode_t mode) {
    struct stat status;
    char real[PATH_MAX];
    bool created = (flags & O_TMPFILE) == O_TMPFILE
        || (ready && (flags & O_CREAT) && fstatat(folder, path, &status, 0) != 0);
    int fd = (int)syscall(SYS_openat, folder, path, flags, mode);
    if (!ready || fd < 0) return fd;
    int kept = errno;
    if (fstat(fd, &status) == 0 && S_ISREG(status.st_mode) && below_root(fd, real)) {
        if (flags & (O_SYNC | O_DSYNC)) die("not modelled", "O_SYNC");
        struct file *file = watch(&status, created);
        if (flags & O_TRUNC) shortened(file, 0);
    }
    errno = kept;
    return fd;
}

#define MODE_ARGUMENT(flags, mode)                                        \
    mode_t mode = 0;                                                      \
    if (((flags) & O_CREAT) || ((flags) & O_TMPFILE) == O_TMPFILE) {      \
        va_list rest;                                                     \
        va_start(rest, flags);                                            \
        mode = va_arg(rest, mode_t);                                      \
        va_end(rest);                                                     \
    }

int open(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return any_open(AT_FDCWD, path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return any_open(AT_FDCWD, path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return any_open(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE_ARGUMENT(flags, mode)
    return any_open(folder, path, flags, mode);
}
int creat(const char *path, mode_t mode) { return any_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return any_open(AT_FDCWD, path, O_CREAT | O_WRONLY | O_TRUNC, mode); }

/* A folder's inode number can be one that was used before: its synced names start empty. */
static int any_mkdir(int folder, const char *path, mode_t mode) {
    int done = (int)syscall(SYS_mkdirat, folder, path, mode);
    if (!ready || done != 0) return done;
    char real[PATH_MAX], names[PATH_MAX + 64];
    struct stat status;
    int fd = (int)syscall(SYS_openat, folder, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0);
    if (fd < 0) return done;
    if (below_root(fd, real) && fstat(fd, &status) == 0) {
        names_path(names, sizeof names, status.st_ino);
        DIR *stale = opendir(names);
        struct dirent *entry;
        while (stale && (entry = readdir(stale)))
            if (strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0)
                syscall(SYS_unlinkat, dirfd(stale), entry->d_name, 0);
        if (stale) closedir(stale);
    }
    raw_close(fd);
    errno = 0;
    return done;
}
int mkdir(const char *path, mode_t mode) { return any_mkdir(AT_FDCWD, path, mode); }
int mkdirat(int folder, const char *path, mode_t mode) { return any_mkdir(folder, path, mode); }

/* --- writing ---------------------------------------------------------------------------------------------- */

/* Whether the disk is full for this file. */
static bool full(struct file *file) {
    if (!file || !fault("enospc")) return false;
    errno = ENOSPC;
    return true;
}

/* Whether the disk cannot write this file: a database, whose engine writes it at positions only. */
static bool unwritable(struct file *file, int fd) {
    char path[PATH_MAX];
    if (!file || !fault("eio-database") || !below_root(fd, path)) return false;
    size_t length = strlen(path);
    if (length < 3 || strcmp(path + length - 3, ".db") != 0) return false;
    errno = EIO;
    return true;
}

ssize_t write(int fd, const void *bytes, size_t length) {
    struct file *file = watched(fd);
    if (full(file)) return -1;
    ssize_t done = syscall(SYS_write, fd, bytes, length);
    changed_before_position(file, fd, done);
    return done;
}

ssize_t writev(int fd, const struct iovec *parts, int count) {
    struct file *file = watched(fd);
    if (full(file)) return -1;
    ssize_t done = syscall(SYS_writev, fd, parts, count);
    changed_before_position(file, fd, done);
    return done;
}

static ssize_t any_pwrite(int fd, const void *bytes, size_t length, off_t at) {
    struct file *file = watched(fd);
    if (full(file) || unwritable(file, fd)) return -1;
    ssize_t done = syscall(SYS_pwrite64, fd, bytes, length, at);
    changed(file, at, at + done);
    return done;
}
ssize_t pwrite(int fd, const void *bytes, size_t length, off_t at) { return any_pwrite(fd, bytes, length, at); }
ssize_t pwrite64(int fd, const void *bytes, size_t length, off_t at) { return any_pwrite(fd, bytes, length, at); }

static ssize_t any_pwritev(int fd, const struct iovec *parts, int count, off_t at) {
    struct file *file = watched(fd);
    if (full(file)) return -1;
    ssize_t done = syscall(SYS_pwritev, fd, parts, count, at, (off_t)0);
    changed(file, at, at + done);
    return done;
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return any_pwritev(fd, parts, count, at); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) { return any_pwritev(fd, parts, count, at); }

/* Copies inside the kernel, as std::fs::copy makes them. */
ssize_t copy_file_range(int from, off_t *from_at, int to, off_t *to_at, size_t length, unsigned flags) {
    struct file *file = watched(to);
    if (full(file)) return -1;
    ssize_t done = syscall(SYS_copy_file_range, from, from_at, to, to_at, length, flags);
    if (done > 0 && to_at) changed(file, *to_at - done, *to_at);
    else changed_before_position(file, to, done);
    return done;
}

static ssize_t any_sendfile(int to, int from, off_t *from_at, size_t length) {
    struct file *file = watched(to);
    if (full(file)) return -1;
    ssize_t done = syscall(SYS_sendfile, to, from, from_at, length);
    changed_before_position(file, to, done);
    return done;
}
ssize_t sendfile(int to, int from, off_t *from_at, size_t length) { return any_sendfile(to, from, from_at, length); }
ssize_t sendfile64(int to, int from, off_t *from_at, size_t length) { return any_sendfile(to, from, from_at, length); }

ssize_t splice(int from, off_t *from_at, int to, off_t *to_at, size_t length, unsigned flags) {
    struct file *file = watched(to);
    if (full(file)) return -1;
    ssize_t done = syscall(SYS_splice, from, from_at, to, to_at, length, flags);
    if (done > 0 && to_at) changed(file, *to_at - done, *to_at);
    else changed_before_position(file, to, done);
    return done;
}

static int any_ftruncate(int fd, off_t length) {
    struct file *file = watched(fd);
    int done = (int)syscall(SYS_ftruncate, fd, length);
    if (done == 0) shortened(file, length);
    return done;
}
int ftruncate(int fd, off_t length) { return any_ftruncate(fd, length); }
int ftruncate64(int fd, off_t length) { return any_ftruncate(fd, length); }

static int any_truncate(const char *path, off_t length) {
    int fd = any_open(AT_FDCWD, path, O_WRONLY | O_CLOEXEC, 0);
    if (fd < 0) return -1;
    int done = any_ftruncate(fd, length);
    raw_close(fd);
    return done;
}
int truncate(const char *path, off_t length) { return any_truncate(path, length); }
int truncate64(const char *path, off_t length) { return any_truncate(path, length); }

static int any_fallocate(int fd, int mode, off_t at, off_t length) {
    struct file *file = watched(fd);
    if (full(file)) return -1;
    int done = (int)syscall(SYS_fallocate, fd, mode, at, length);
    if (done == 0) changed(file, at, at + length);
    return done;
}
int fallocate(int fd, int mode, off_t at, off_t length) { return any_fallocate(fd, mode, at, length); }
int fallocate64(int fd, int mode, off_t at, off_t length) { return any_fallocate(fd, mode, at, length); }
int posix_fallocate(int fd, off_t at, off_t length) { return any_fallocate(fd, 0, at, length) == 0 ? 0 : errno; }
int posix_fallocate64(int fd, off_t at, off_t length) { return any_fallocate(fd, 0, at, length) == 0 ? 0 : errno; }

static void *any_mmap(void *address, size_t length, int protection, int flags, int fd, off_t at) {
    char path[PATH_MAX];
    bool shared = (flags & MAP_TYPE) == MAP_SHARED || (flags & MAP_TYPE) == MAP_SHARED_VALIDATE;
    if (ready && fd >= 0 && shared && (protection & PROT_WRITE) && watched(fd) && below_root(fd, path)) {
        size_t end = strlen(path);
        if (end < 4 || strcmp(path + end - 4, "-shm") != 0) die("shared writable mapping is not modelled", path);
    }
    return (void *)syscall(SYS_mmap, address, length, protection, flags, fd, at);
}
void *mmap(void *address, size_t length, int protection, int flags, int fd, off_t at) {
    return any_mmap(address, length, protection, flags, fd, at);
}
void *mmap64(void *address, size_t length, int protection, int flags, int fd, off_t at) {
    return any_mmap(address, length, protection, flags, fd, at);
}

/* --- free space ------------------------------------------------------------------------------------------- */

static int little_space(int answer, struct statvfs *status) {
    if (answer == 0 && ready && fault("low-disk")) status->f_bfree = status->f_bavail = 1;
    return answer;
}

#define SPACE(name, type, structure)                                              \
    int name(type what, struct structure *status) {                               \
        static int (*next)(type, struct structure *);                             \
        if (!next) next = (int (*)(type, struct structure *))dlsym(RTLD_NEXT, #name); \
        return little_space(next(what, status), (struct statvfs *)status);        \
    }
SPACE(statvfs, const char *, statvfs)
SPACE(fstatvfs, int, statvfs)
SPACE(statvfs64, const char *, statvfs64)
SPACE(fstatvfs64, int, statvfs64)
