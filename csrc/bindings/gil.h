// The lock of the interpreter, given up while kernels run.
#pragma once

#include <pybind11/pybind11.h>
#include <unistd.h>

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

}  // namespace mimic
