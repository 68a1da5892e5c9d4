// Memory that each thread has for itself, of any size, freed when the thread ends.
//
// It hangs on a key and is no thread_local: where there is no memory for a thread_local's first use, the loader or the
// C library ends the process.
#pragma once

#include <pthread.h>

#include <cstdio>
#include <cstdlib>
#include <new>

namespace mimic {

class OutOfMemory final : public std::bad_alloc {
 public:
  explicit OutOfMemory(size_t bytes) {
    std::snprintf(text_, sizeof text_, "expected %zu bytes of memory to work in, got none", bytes);
  }
  const char* what() const noexcept override { return text_; }

 private:
  char text_[80];
};

class OwnMemory {
 public:
  OwnMemory() {
    if (pthread_key_create(&key_, std::free) != 0) throw OutOfMemory(sizeof key_);
  }

  // The calling thread's memory, or none.
  void* get() const { return pthread_getspecific(key_); }

  void free() const {
    std::free(get());
    pthread_setspecific(key_, nullptr);
  }

  // Lets `memory` be the calling thread's, which has none; throws where it is none either.
  void* take(void* memory, size_t bytes) const {
    if (memory && pthread_setspecific(key_, memory) == 0) return memory;
    std::free(memory);
    throw OutOfMemory(bytes);
  }

 private:
  pthread_key_t key_;
};

}  // namespace mimic
