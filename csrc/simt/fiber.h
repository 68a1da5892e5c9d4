// A fiber is a stack and the place where it left off.
#pragma once

#include <stddef.h>

#if !defined(__x86_64__) && !defined(__aarch64__)
#define SIMT_UCONTEXT
#endif
#ifdef SIMT_UCONTEXT
#include <ucontext.h>
#endif

namespace simt {

struct Fiber {
  void* stack_pointer = nullptr;
  const void* bottom = nullptr;  // of the stack, for AddressSanitizer
  size_t bytes = 0;
  void* fake_stack = nullptr;
#ifdef SIMT_UCONTEXT
  ucontext_t context;
#endif
};

// The next switch to `fiber` calls `entry` on `stack`; `entry` must not return, and calls entered() first.
void prepare(Fiber& fiber, void* stack, size_t bytes, void (*entry)());
void entered(Fiber& fiber, Fiber& from);
void switch_fiber(Fiber& from, Fiber& to);

}  // namespace simt
