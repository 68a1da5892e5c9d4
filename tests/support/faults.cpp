// Makes calls of the system fail, for tests: preloaded into a process, and steered from Python by ctypes.
//
// Of one kind of call, those on files below one folder are counted, and the N-th fails, or all from the N-th on.
// Allocations are counted where the compiled core asks for memory, by itself or through the C and C++ libraries.
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <link.h>
#include <malloc.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <unwind.h>

#include <atomic>
#include <initializer_list>

extern "C" void* __libc_malloc(size_t);
extern "C" void* __libc_calloc(size_t, size_t);
extern "C" void* __libc_memalign(size_t, size_t);

namespace {

enum Kind { kOpen, kRead, kWrite, kFsync, kClose, kTruncate, kRename, kMap, kAllocate, kThread, kKinds };
const char* const kNames[kKinds] = {"open",      "read",   "write", "fsync",    "close",
                                    "ftruncate", "rename", "mmap",  "allocate", "thread"};

std::atomic<int> g_kind{-1};
std::atomic<long> g_seen{0}, g_failed{0};
long g_first = 0;
bool g_lasting = false;
int g_error = 0;
char g_folder[4096], g_where[4608];

struct Range {
  uintptr_t begin, end;
  bool holds(uintptr_t at) const { return at >= begin && at < end; }
};
constexpr int kMostRanges = 32;
struct Code {
  Range ranges[kMostRanges];
  int count = 0;
  bool holds(uintptr_t at) const {
    for (int i = 0; i < count; ++i)
      if (ranges[i].holds(at)) return true;
    return false;
  }
  void add(const dl_phdr_info* info) {
    for (int i = 0; i < info->dlpi_phnum; ++i) {
      const ElfW(Phdr) & part = info->dlpi_phdr[i];
      if (part.p_type != PT_LOAD || !(part.p_flags & PF_X) || count == kMostRanges) continue;
      ranges[count++] = {info->dlpi_addr + part.p_vaddr, info->dlpi_addr + part.p_vaddr + part.p_memsz};
    }
  }
};
Code g_core, g_runtime;  // runtime: the C and C++ libraries and this one

int note_code(dl_phdr_info* info, size_t, void*) {
  const char* const name = info->dlpi_name;
  if (strstr(name, "/pymimic/_core.")) g_core.add(info);
  for (const char* part : {"/libc.so", "/ld-linux", "/libstdc++", "/libgcc_s", "/libpthread", "libfaults.so"})
    if (strstr(name, part)) g_runtime.add(info);
  return 0;
}

bool below_folder(const char* path) { return path && strncmp(path, g_folder, strlen(g_folder)) == 0; }

// Whether this call, which is of a kind and a file that count, fails.
bool fails(const char* what) {
  const long n = ++g_seen;
  if (n != g_first && !(g_lasting && n > g_first)) return false;
  if (++g_failed == 1) snprintf(g_where, sizeof g_where, "%s", what);
  errno = g_error;
  return true;
}

bool fails_on_path(Kind kind, const char* path) { return g_kind == kind && below_folder(path) && fails(path); }

bool fails_on_file(Kind kind, int file) {
  if (g_kind != kind || file < 0) return false;
  char link[64], path[4096];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  const long length = syscall(SYS_readlinkat, AT_FDCWD, link, path, sizeof path - 1);
  if (length < 0) return false;
  path[length] = 0;
  return below_folder(path) && fails(path);
}

thread_local bool g_unwinding __attribute__((tls_model("initial-exec"))) = false;

_Unwind_Reason_Code look(_Unwind_Context* context, void* found) {
  const uintptr_t at = _Unwind_GetIP(context);
  if (g_runtime.holds(at)) return _URC_NO_REASON;
  *static_cast<bool*>(found) = g_core.holds(at);
  return _URC_END_OF_STACK;
}

// Whether the core called: by itself, or a function of the runtime that did.
bool core_called(uintptr_t caller) {
  if (g_core.holds(caller)) return true;
  if (!g_runtime.holds(caller) || g_unwinding) return false;
  g_unwinding = true;
  bool found = false;
  _Unwind_Backtrace(look, &found);
  g_unwinding = false;
  return found;
}

bool fails_to_allocate(size_t size, void* caller) {
  if (g_kind.load(std::memory_order_relaxed) != kAllocate || !core_called(uintptr_t(caller))) return false;
  char what[64];
  snprintf(what, sizeof what, "%zu bytes", size);
  return fails(what);
}

}  // namespace

#define CALLER __builtin_return_address(0)

extern "C" {

// From now on calls of that kind on files below `folder` are counted. 0, or -1 where there is no such kind.
int faults_start(const char* kind, long first, int lasting, int error, const char* folder) {
  g_core.count = g_runtime.count = 0;
  dl_iterate_phdr(note_code, nullptr);
  g_seen = 0, g_failed = 0, g_first = first, g_lasting = lasting, g_error = error, g_where[0] = 0;
  snprintf(g_folder, sizeof g_folder, "%s", folder);
  for (int i = 0; i < kKinds; ++i) {
    if (strcmp(kNames[i], kind) == 0) {
      g_kind = i;
      return 0;
    }
  }
  return -1;
}

// No call fails any more; how many did.
long faults_stop() {
  g_kind = -1;
  return g_failed;
}

// What the first of them was on.
const char* faults_where() { return g_where; }

int openat(int folder, const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0;
  va_end(rest);
  return fails_on_path(kOpen, path) ? -1 : int(syscall(SYS_openat, folder, path, flags, mode));
}
int openat64(int folder, const char* path, int flags, ...) __attribute__((alias("openat")));

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const int mode = flags & (O_CREAT | __O_TMPFILE) ? va_arg(rest, int) : 0;
  va_end(rest);
  return fails_on_path(kOpen, path) ? -1 : int(syscall(SYS_openat, AT_FDCWD, path, flags, mode));
}
int open64(const char* path, int flags, ...) __attribute__((alias("open")));

ssize_t read(int file, void* to, size_t size) {
  return fails_on_file(kRead, file) ? -1 : syscall(SYS_read, file, to, size);
}

ssize_t pread64(int file, void* to, size_t size, off64_t at) {
  return fails_on_file(kRead, file) ? -1 : syscall(SYS_pread64, file, to, size, at);
}

// A write that fails leaves half of its bytes, as a disk does that is full.
ssize_t write(int file, const void* from, size_t size) {
  if (!fails_on_file(kWrite, file)) return syscall(SYS_write, file, from, size);
  syscall(SYS_write, file, from, size / 2);
  errno = g_error;
  return -1;
}

int fsync(int file) { return fails_on_file(kFsync, file) ? -1 : int(syscall(SYS_fsync, file)); }

int ftruncate64(int file, off64_t size) {
  return fails_on_file(kTruncate, file) ? -1 : int(syscall(SYS_ftruncate, file, size));
}

int close(int file) {
  const bool failed = fails_on_file(kClose, file);  // closed it is all the same, as on Linux
  const int result = int(syscall(SYS_close, file));
  if (failed) errno = g_error;
  return failed ? -1 : result;
}

int rename(const char* from, const char* to) {
  return fails_on_path(kRename, to) ? -1 : int(syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, 0));
}

void* mmap64(void* at, size_t size, int protection, int flags, int file, off64_t offset) {
  if (fails_on_file(kMap, file)) return reinterpret_cast<void*>(-1);
  return reinterpret_cast<void*>(syscall(SYS_mmap, at, size, protection, flags, file, offset));
}
void* mmap(void* at, size_t size, int protection, int flags, int file, off64_t offset) __attribute__((alias("mmap64")));

void* malloc(size_t size) { return fails_to_allocate(size, CALLER) ? nullptr : __libc_malloc(size); }

void* calloc(size_t count, size_t size) {
  return fails_to_allocate(count * size, CALLER) ? nullptr : __libc_calloc(count, size);
}

void* aligned_alloc(size_t alignment, size_t size) {
  return fails_to_allocate(size, CALLER) ? nullptr : __libc_memalign(alignment, size);
}

int posix_memalign(void** memory, size_t alignment, size_t size) {
  if (fails_to_allocate(size, CALLER)) return ENOMEM;
  *memory = __libc_memalign(alignment, size);
  return *memory ? 0 : ENOMEM;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* how, void* (*body)(void*), void* with) {
  if (g_kind == kThread && fails("a thread")) return EAGAIN;
  using Create = int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*);
  static const Create create = reinterpret_cast<Create>(dlsym(RTLD_NEXT, "pthread_create"));
  return create(thread, how, body, with);
}

}  // extern "C"
