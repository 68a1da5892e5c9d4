// Threads, behind one small header. A team runs one body on every member; members may meet at a barrier.
//
// The pool serves one team at a time: a caller that finds it busy (another Python thread is inside an op)
// runs its body alone, which gives the same bits and never oversubscribes. A forked child starts a new pool.
#pragma once

#include <stdint.h>

namespace mimic {

class Team {
 public:
  virtual void barrier() = 0;
  int rank = 0, size = 1;

  // This member's part of n items, in contiguous runs that differ by at most one.
  int64_t begin(int64_t n) const { return n * rank / size; }
  int64_t end(int64_t n) const { return n * (rank + 1) / size; }

 protected:
  ~Team() = default;
};

int num_threads();
void set_num_threads(int n);

void run_team(int64_t most_members, void (*body)(Team&, void*), void* context);

// Run f(team) on min(num_threads(), most_members) threads, at least one.
template <class F>
void parallel(int64_t most_members, F f) {
  run_team(most_members, [](Team& team, void* context) { (*static_cast<F*>(context))(team); }, &f);
}

}  // namespace mimic
