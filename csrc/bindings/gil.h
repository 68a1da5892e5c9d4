// The lock of the interpreter, given up while kernels run.
#pragma once

#include <pthread.h>
#include <pybind11/pybind11.h>
#include <unistd.h>

#if defined(__linux__)
#include <sys/syscall.h>
#endif

#include "cpu/parallel.h"

namespace mimic {

// Other Python threads run as long as one of these lives.
//
// A daemon thread may come back from a kernel when the interpreter has ended, and must not run Python any more. Up to
// 3.13 Python then calls pthread_exit, which unwinds the stack like an exception. An exception in a destructor aborts
// the process, so the thread stops here and sleeps until the process ends. Python 3.14 does the same by itself.
class WithoutGil {
 public:
  WithoutGil() : thread_(PyEval_SaveThread()) {}
  WithoutGil(const WithoutGil&) = delete;
  WithoutGil& operator=(const WithoutGil&) = delete;
  ~WithoutGil() {
    try {
      PyEval_RestoreThread(thread_);
    } catch (...) {
      for (;;) ::pause();
    }
  }

 private:
  PyThreadState* thread_;
};

// Only Python's main thread hears signals.
inline bool is_main_thread() {
#if defined(__linux__)
  return ::syscall(SYS_gettid) == ::getpid();
#elif defined(__APPLE__)
  return ::pthread_main_np() != 0;
#else
  return false;
#endif
}

inline void raise_if_signalled() {
  const PyGILState_STATE state = PyGILState_Ensure();
  const bool raised = PyErr_CheckSignals() != 0;
  if (raised) {
    const pybind11::error_already_set error;
    PyGILState_Release(state);
    throw error;
  }
  PyGILState_Release(state);
}

// The same for kernels that may be left half done: what a signal's handler raises, such as KeyboardInterrupt, ends
// them.
class Interruptible {
 public:
  Interruptible() : interrupts_(is_main_thread() ? raise_if_signalled : nullptr) {}

 private:
  WithoutGil released_;
  Interrupts interrupts_;
};

}  // namespace mimic
