// Which kernels this thread launched last.
#include "tile/recent.h"

#include "launch.h"

namespace {

constexpr unsigned kMost = PYMIMIC_RECENT_KERNELS;
thread_local const void* recent[kMost];
thread_local unsigned launches = 0;

}  // namespace

void mimic::remember_launch(const void* kernel) { recent[launches++ % kMost] = kernel; }

int pymimic_recent_kernels(const void* kernels[kMost]) {
  const unsigned count = launches < kMost ? launches : kMost;
  for (unsigned i = 0; i < count; ++i) kernels[i] = recent[(launches - count + i) % kMost];
  launches = 0;
  return int(count);
}
