// Threads, behind one small header. A team runs one body on every member; members may meet at a barrier.
//
// The pool serves one team at a time: a caller that finds it busy (another Python thread is inside an op)
// runs its body alone, which gives the same bits and never oversubscribes. A forked child starts a new pool.
#pragma once

#include <stdint.h>

#include <chrono>

namespace mimic {

// One of `size` members, and its part of n items, in contiguous runs that differ by at most one.
struct Share {
  int rank = 0, size = 1;

  int64_t begin(int64_t n) const { return n * rank / size; }
  int64_t end(int64_t n) const { return n * (rank + 1) / size; }
};

class Team : public Share {
 public:
  virtual void barrier() = 0;
  // Now and then, in loops without barriers: leaves the body where another member has failed, or where the caller is to
  // be interrupted.
  virtual void look() = 0;

 protected:
  ~Team() = default;
};

constexpr int kMostThreads = 1024;

int num_threads();
void set_num_threads(int n);

// OpenMP's threads, by the entry points that GNU's, LLVM's and Intel's libraries have.
struct OpenMp {
  void (*parallel)(void (*body)(void*), void* context, unsigned threads, unsigned flags);  // GOMP_parallel
  int (*rank)();                                                                           // omp_get_thread_num
  int (*size)();                                                                           // omp_get_num_threads
  int (*most)();                                                                           // omp_get_max_threads
};

// From now on teams run on OpenMP's threads, at most as many as it says, in place of the pool's: where a host's own
// loops run on those, two pools would wait for each other's spinning threads. In a forked child the pool serves again,
// as OpenMP's threads do not come along.
void run_on(const OpenMp& openmp);

// As long as one of these lives, the thread that made it calls `check` now and then while it waits for a team, or is
// one of its members; what that throws ends the run. Not for what must not be left half done.
class Interrupts {
 public:
  explicit Interrupts(void (*check)());  // throws where there is no memory to note it in
  Interrupts(const Interrupts&) = delete;
  Interrupts& operator=(const Interrupts&) = delete;
  ~Interrupts();

  // Calls `check`, unless it was called a short while ago.
  void look();

 private:
  using Clock = std::chrono::steady_clock;
  void (*const check_)();
  Clock::time_point next_check_;
};

// As many threads as may be used, but none for less than `worth` of `work`.
static inline int threads_for(int64_t work, int64_t worth) {
  const int64_t most = work / worth + 1;
  return most < num_threads() ? int(most) : num_threads();
}

// Calls body on min(num_threads(), most_members) threads, at least one; unless all must come, on those that wake in
// time. What a body throws on any of them is thrown here, when all have left: at a barrier the others leave as well.
void run_team(int64_t most_members, bool all_must_come, void (*body)(Team&, void*), void* context);

// Run f(team) on min(num_threads(), most_members) threads, at least one.
template <class F>
void parallel(int64_t most_members, F f) {
  run_team(most_members, true, [](Team& team, void* context) { (*static_cast<F*>(context))(team); }, &f);
}

// Run f(task, rank) for every task, ranks being below most_members: who is free takes the next few, in order, and fewer
// the fewer there are left, so that all end at about the same time. Nobody waits for a thread that is still waking up.
template <class F>
void share(int64_t most_members, int64_t tasks, F f) {
  const int64_t members = most_members < tasks ? most_members : tasks;
  int64_t next = 0;
  auto body = [&](Team& team) {
    int64_t first = __atomic_load_n(&next, __ATOMIC_RELAXED);
    while (first < tasks) {
      const int64_t run = (tasks - first) / (4 * members), end = first + (run > 0 ? run : 1);
      if (!__atomic_compare_exchange_n(&next, &first, end, true, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) continue;
      for (int64_t task = first; task < end; ++task) {
        team.look();
        f(task, team.rank);
      }
      first = __atomic_load_n(&next, __ATOMIC_RELAXED);
    }
  };
  run_team(members, false, [](Team& team, void* context) { (*static_cast<decltype(body)*>(context))(team); }, &body);
}

}  // namespace mimic
