/* Writes a log of everything that processes change below a folder, so that a power loss can be
 * replayed from it (recorder.py reads it).
 *
 * It is loaded with LD_PRELOAD and stands between a program and the C library, also for the native
 * code of Arrow, TensorFlow, HDF5, FAISS and NumPy. Each change is made and logged under one lock
 * (flock on the log), so the order in the log is the order on the disk, over threads and processes.
 * Streams (fopen, fdopen) write inside the C library, where no library can stand between: they
 * become streams of our own that write through write(). A sync is logged with the whole content of
 * the file and is not made: the log decides what is durable, not the disk of this machine. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE, TRUNCATE, RENAME, LINK, SYMLINK, REMOVE, MKDIR, SYNC, SYNC_ALL };

struct head {
  int32_t kind, pid;
  uint64_t inode;
  int64_t number; /* offset, size or flags */
  uint32_t first, second;
  uint64_t data;
};

static char root[PATH_MAX], log_path[PATH_MAX];
static size_t root_length;
static int ignores_syncs;

/* Begin to log what this process, and those that it starts, change below a folder. */
void record_writes(const char *folder, const char *log, int without_syncs) {
  snprintf(log_path, sizeof log_path, "%s", log);
  snprintf(root, sizeof root, "%s", folder);
  ignores_syncs = without_syncs;
  root_length = strlen(root);
}

__attribute__((constructor)) static void begin(void) {
  const char *folder = getenv("RECORD_ROOT"), *log = getenv("RECORD_LOG");
  if (folder && log) record_writes(folder, log, getenv("RECORD_WITHOUT_SYNCS") != NULL);
}

static int below(const char *path) {
  return root_length && !strncmp(path, root, root_length) && path[root_length] == '/';
}

/* ── the log ───────────────────────────────────────────────────────────────────────── */

static int lock(void) {
  int saved = errno;
  int fd = syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0644);
  while (fd >= 0 && syscall(SYS_flock, fd, LOCK_EX) && errno == EINTR) {}
  errno = saved;
  return fd;
}

static void unlock(int fd) {
  int saved = errno;
  syscall(SYS_flock, fd, LOCK_UN); /* a forked child may still have it */
  syscall(SYS_close, fd);
  errno = saved;
}

static void push(int fd, const void *data, size_t n) {
  const char *from = data;
  while (n) {
    ssize_t done = syscall(SYS_write, fd, from, n);
    if (done <= 0 && errno != EINTR) abort();
    if (done > 0) from += done, n -= done;
  }
}

static void note(int fd, int kind, uint64_t inode, int64_t number, const char *first,
                 const char *second, const void *data, size_t n) {
  int saved = errno;
  struct head head = {kind, getpid(), inode, number, strlen(first), strlen(second), n};
  push(fd, &head, sizeof head);
  push(fd, first, head.first);
  push(fd, second, head.second);
  push(fd, data, n);
  errno = saved;
}

/* ── which file is it ──────────────────────────────────────────────────────────────── */

static int path_of(int fd, char *path) {
  char name[64];
  int saved = errno;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  ssize_t n = syscall(SYS_readlinkat, AT_FDCWD, name, path, PATH_MAX - 1);
  path[n < 0 ? 0 : n] = 0;
  errno = saved;
  return n > 0;
}

/* Say whether a descriptor is a file or folder below the root; fill its path and inode. */
static int ours(int fd, char *path, uint64_t *inode) {
  struct stat fact;
  int saved = errno;
  if (!root_length) return 0;
  int known = !fstat(fd, &fact) && (S_ISREG(fact.st_mode) || S_ISDIR(fact.st_mode));
  errno = saved;
  if (!known || !path_of(fd, path)) return 0;
  *inode = fact.st_ino;
  return below(path) || !strcmp(path, root);
}

/* Resolve the folder of a path, but not its last part, which may be a link. */
static int resolved(int folder, const char *path, char *full) {
  char before[PATH_MAX];
  int saved = errno;
  if (!root_length || !path || strlen(path) >= PATH_MAX - 1) return 0;
  snprintf(before, sizeof before, "%s", path);
  size_t n = strlen(before);
  while (n > 1 && before[n - 1] == '/') before[--n] = 0;
  char *slash = strrchr(before, '/');
  char last[NAME_MAX + 1];
  snprintf(last, sizeof last, "%s", slash ? slash + 1 : before);
  if (slash) slash[slash == before] = 0; else strcpy(before, ".");
  int fd = syscall(SYS_openat, folder, before, O_PATH | O_DIRECTORY | O_CLOEXEC);
  int found = fd >= 0 && path_of(fd, full);
  if (fd >= 0) syscall(SYS_close, fd);
  errno = saved;
  if (!found || strlen(full) + strlen(last) + 2 > PATH_MAX) return 0;
  strcat(full, "/");
  strcat(full, last);
  return below(full);
}

/* ── files ─────────────────────────────────────────────────────────────────────────── */

static int open_any(int folder, const char *path, int flags, mode_t mode) {
  char full[PATH_MAX];
  uint64_t inode;
  if (!root_length || !((flags & O_ACCMODE) || (flags & (O_CREAT | O_TRUNC))))
    return syscall(SYS_openat, folder, path, flags, mode);
  if ((flags & O_CREAT) == 0 || (flags & O_EXCL) == 0) {
    struct stat fact; /* a pipe may wait for its other end: never under the lock */
    int saved = errno;
    int there = !fstatat(folder, path, &fact, 0);
    errno = saved;
    if (there && !S_ISREG(fact.st_mode)) return syscall(SYS_openat, folder, path, flags, mode);
  }
  int log = lock();
  int fd = syscall(SYS_openat, folder, path, flags, mode);
  if (fd >= 0 && ours(fd, full, &inode)) note(log, OPEN, inode, flags & O_TRUNC, full, "", "", 0);
  unlock(log);
  return fd;
}

#define MODE(flags, mode)                             \
  mode_t mode = 0;                                    \
  if ((flags) & (O_CREAT | __O_TMPFILE)) {            \
    va_list more;                                     \
    va_start(more, flags);                            \
    mode = va_arg(more, int);                         \
    va_end(more);                                     \
  }

int open(const char *path, int flags, ...) { MODE(flags, m) return open_any(AT_FDCWD, path, flags, m); }
int open64(const char *path, int flags, ...) { MODE(flags, m) return open_any(AT_FDCWD, path, flags, m); }
int openat(int folder, const char *path, int flags, ...) { MODE(flags, m) return open_any(folder, path, flags, m); }
int openat64(int folder, const char *path, int flags, ...) { MODE(flags, m) return open_any(folder, path, flags, m); }
int __open_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __open64_2(const char *path, int flags) { return open_any(AT_FDCWD, path, flags, 0); }
int __openat_2(int folder, const char *path, int flags) { return open_any(folder, path, flags, 0); }
int __openat64_2(int folder, const char *path, int flags) { return open_any(folder, path, flags, 0); }
int creat(const char *path, mode_t mode) { return open_any(AT_FDCWD, path, O_WRONLY | O_CREAT | O_TRUNC, mode); }
int creat64(const char *path, mode_t mode) { return creat(path, mode); }

/* Log n bytes that are in a file now, from its own content: writev, sendfile, copies. */
static void note_range(int log, int fd, uint64_t inode, int64_t offset, size_t n,
                       const char *path) {
  char name[64], *data = malloc(n + 1);
  int saved = errno;
  snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
  int again = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
  size_t done = 0;
  for (ssize_t got = 1; again >= 0 && done < n && got > 0; done += got > 0 ? got : 0)
    got = syscall(SYS_pread64, again, data + done, n - done, offset + done);
  note(log, WRITE, inode, offset, path, "", data, done);
  if (again >= 0) syscall(SYS_close, again);
  free(data);
  errno = saved;
}

/* Make a change of a file's content with a call of the system, and log it from the file itself. */
#define CHANGED(fd, offset, call)                                                          \
  char path[PATH_MAX];                                                                     \
  uint64_t inode;                                                                          \
  if (!ours(fd, path, &inode)) return call;                                                \
  int log = lock();                                                                        \
  ssize_t done = call;                                                                     \
  if (done > 0) note_range(log, fd, inode, (offset), done, path);                               \
  unlock(log);                                                                             \
  return done;
#define BEFORE(fd) syscall(SYS_lseek, fd, 0, SEEK_CUR) - done

ssize_t write(int fd, const void *data, size_t n) {
  CHANGED(fd, BEFORE(fd), syscall(SYS_write, fd, data, n))
}
ssize_t writev(int fd, const struct iovec *parts, int n) {
  CHANGED(fd, BEFORE(fd), syscall(SYS_writev, fd, parts, n))
}
ssize_t pwrite(int fd, const void *data, size_t n, off_t at) {
  CHANGED(fd, at, syscall(SYS_pwrite64, fd, data, n, at))
}
ssize_t pwrite64(int fd, const void *data, size_t n, off64_t at) { return pwrite(fd, data, n, at); }
ssize_t pwritev(int fd, const struct iovec *parts, int n, off_t at) {
  CHANGED(fd, at, syscall(SYS_pwritev, fd, parts, n, at, 0))
}
ssize_t pwritev64(int fd, const struct iovec *parts, int n, off64_t at) { return pwritev(fd, parts, n, at); }
ssize_t sendfile(int to, int from, off_t *at, size_t n) {
  CHANGED(to, BEFORE(to), syscall(SYS_sendfile, to, from, at, n))
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t n) { return sendfile(to, from, at, n); }
ssize_t copy_file_range(int from, off64_t *from_at, int to, off64_t *to_at, size_t n, unsigned flags) {
  int64_t at = to_at ? *to_at : -1;
  CHANGED(to, at >= 0 ? at : BEFORE(to), syscall(SYS_copy_file_range, from, from_at, to, to_at, n, flags))
}

int ftruncate(int fd, off_t size) {
  char path[PATH_MAX];
  uint64_t inode;
  if (!ours(fd, path, &inode)) return syscall(SYS_ftruncate, fd, size);
  int log = lock();
  int failed = syscall(SYS_ftruncate, fd, size);
  if (!failed) note(log, TRUNCATE, inode, size, path, "", "", 0);
  unlock(log);
  return failed;
}
int ftruncate64(int fd, off64_t size) { return ftruncate(fd, size); }
int truncate(const char *path, off_t size) {
  int fd = open(path, O_WRONLY | O_CLOEXEC);
  int failed = fd < 0 || ftruncate(fd, size);
  if (fd >= 0) syscall(SYS_close, fd);
  return failed ? -1 : 0;
}
int truncate64(const char *path, off64_t size) { return truncate(path, size); }

/* ── folders ───────────────────────────────────────────────────────────────────────── */

/* Make a change of entries with a call of the system, and log it if it was made. */
#define ENTRY(here, kind, number, first, second, call)                                     \
  if (!(here)) return call;                                                                \
  int log = lock();                                                                        \
  int failed = call;                                                                       \
  if (!failed) note(log, kind, 0, number, first, second, "", 0);                           \
  unlock(log);                                                                             \
  return failed;

int renameat2(int from_folder, const char *from, int to_folder, const char *to, unsigned flags) {
  char first[PATH_MAX] = "", second[PATH_MAX] = "";
  int here = resolved(from_folder, from, first) | resolved(to_folder, to, second);
  ENTRY(here, RENAME, flags, first, second,
        syscall(SYS_renameat2, from_folder, from, to_folder, to, flags))
}
int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  return renameat2(from_folder, from, to_folder, to, 0);
}
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }
int linkat(int from_folder, const char *from, int to_folder, const char *to, int flags) {
  char first[PATH_MAX] = "", second[PATH_MAX] = "";
  int here = resolved(from_folder, from, first) | resolved(to_folder, to, second);
  ENTRY(here, LINK, 0, first, second, syscall(SYS_linkat, from_folder, from, to_folder, to, flags))
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }
int symlinkat(const char *target, int folder, const char *path) {
  char full[PATH_MAX];
  int here = resolved(folder, path, full);
  ENTRY(here, SYMLINK, 0, target, full, syscall(SYS_symlinkat, target, folder, path))
}
int symlink(const char *target, const char *path) { return symlinkat(target, AT_FDCWD, path); }
int unlinkat(int folder, const char *path, int flags) {
  char full[PATH_MAX];
  int here = resolved(folder, path, full);
  ENTRY(here, REMOVE, 0, full, "", syscall(SYS_unlinkat, folder, path, flags))
}
int unlink(const char *path) { return unlinkat(AT_FDCWD, path, 0); }
int rmdir(const char *path) { return unlinkat(AT_FDCWD, path, AT_REMOVEDIR); }
int remove(const char *path) {
  int failed = unlink(path);
  return failed && (errno == EISDIR || errno == EPERM) ? rmdir(path) : failed;
}
int mkdirat(int folder, const char *path, mode_t mode) {
  char full[PATH_MAX];
  int here = resolved(folder, path, full);
  ENTRY(here, MKDIR, 0, full, "", syscall(SYS_mkdirat, folder, path, mode))
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

/* ── syncs ─────────────────────────────────────────────────────────────────────────── */

static int sync_one(int fd, int call) {
  char path[PATH_MAX], name[64], *data = NULL;
  uint64_t inode;
  struct stat fact;
  if (!ours(fd, path, &inode)) return syscall(call, fd);
  if (ignores_syncs) return 0;
  int log = lock();
  fstat(fd, &fact);
  size_t done = 0, n = S_ISREG(fact.st_mode) ? fact.st_size : 0;
  if (n) {
    data = malloc(n);
    snprintf(name, sizeof name, "/proc/self/fd/%d", fd);
    int again = syscall(SYS_openat, AT_FDCWD, name, O_RDONLY | O_CLOEXEC, 0);
    for (ssize_t got = 1; again >= 0 && done < n && got > 0; done += got > 0 ? got : 0)
      got = syscall(SYS_pread64, again, data + done, n - done, done);
    if (again >= 0) syscall(SYS_close, again);
  }
  note(log, SYNC, inode, S_ISDIR(fact.st_mode), path, "", data ? data : "", done);
  unlock(log);
  free(data);
  return 0;
}

int fsync(int fd) { return sync_one(fd, SYS_fsync); }
int fdatasync(int fd) { return sync_one(fd, SYS_fdatasync); }

static void sync_all(void) {
  if (!root_length || ignores_syncs) return;
  int log = lock();
  note(log, SYNC_ALL, 0, 0, "", "", "", 0);
  unlock(log);
}

void sync(void) { sync_all(); }
int syncfs(int fd) {
  (void)fd;
  sync_all();
  return 0;
}

/* ── streams ───────────────────────────────────────────────────────────────────────── */

struct stream {
  FILE *file;
  int fd;
  struct stream *next;
};
static struct stream *streams;
static pthread_mutex_t guard = PTHREAD_MUTEX_INITIALIZER;

static ssize_t stream_read(void *of, char *data, size_t n) { return read(((struct stream *)of)->fd, data, n); }
static ssize_t stream_write(void *of, const char *data, size_t n) {
  ssize_t done = write(((struct stream *)of)->fd, data, n);
  return done < 0 ? 0 : done;
}
static int stream_seek(void *of, off64_t *at, int whence) {
  off64_t found = lseek64(((struct stream *)of)->fd, *at, whence);
  if (found >= 0) *at = found;
  return found < 0 ? -1 : 0;
}
static int stream_close(void *of) {
  pthread_mutex_lock(&guard);
  struct stream **each = &streams;
  while (*each && *each != of) each = &(*each)->next;
  if (*each) *each = (*each)->next;
  pthread_mutex_unlock(&guard);
  int failed = syscall(SYS_close, ((struct stream *)of)->fd);
  free(of);
  return failed;
}

static int writes(const char *mode) { return mode[0] != 'r' || strchr(mode, '+') != NULL; }

FILE *fdopen(int fd, const char *mode) {
  static FILE *(*real)(int, const char *);
  char path[PATH_MAX];
  uint64_t inode;
  if (!real) real = dlsym(RTLD_NEXT, "fdopen");
  if (!writes(mode) || !ours(fd, path, &inode)) return real(fd, mode);
  struct stream *new = calloc(1, sizeof *new);
  cookie_io_functions_t how = {stream_read, stream_write, stream_seek, stream_close};
  new->fd = fd;
  new->file = fopencookie(new, mode, how);
  pthread_mutex_lock(&guard);
  new->next = streams;
  streams = new;
  pthread_mutex_unlock(&guard);
  return new->file;
}

FILE *fopen(const char *path, const char *mode) {
  static FILE *(*real)(const char *, const char *);
  if (!real) real = dlsym(RTLD_NEXT, "fopen");
  if (!root_length || !writes(mode)) return real(path, mode);
  int flags = strchr(mode, '+') ? O_RDWR : O_WRONLY;
  if (mode[0] == 'w') flags |= O_CREAT | O_TRUNC;
  if (mode[0] == 'a') flags |= O_CREAT | O_APPEND;
  if (strchr(mode, 'x')) flags |= O_EXCL;
  if (strchr(mode, 'e')) flags |= O_CLOEXEC;
  int fd = open(path, flags, 0666);
  return fd < 0 ? NULL : fdopen(fd, mode);
}
FILE *fopen64(const char *path, const char *mode) { return fopen(path, mode); }

int fileno(FILE *file) {
  static int (*real)(FILE *);
  int fd = -1;
  if (!real) real = dlsym(RTLD_NEXT, "fileno");
  pthread_mutex_lock(&guard);
  for (struct stream *each = streams; each; each = each->next)
    if (each->file == file) fd = each->fd;
  pthread_mutex_unlock(&guard);
  return fd < 0 ? real(file) : fd;
}
int fileno_unlocked(FILE *file) { return fileno(file); }
