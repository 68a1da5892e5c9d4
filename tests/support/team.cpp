// Bodies that throw on a member of a team: the caller gets the exception, and the next run is whole.
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>

#include "cpu/parallel.h"

namespace {

void demand(bool right, const char* what) {
  if (right) return;
  std::printf("%s\n", what);
  std::exit(1);
}

// Members that came to the second barrier, where member `thrower` throws before the first or between them.
int run(int members, int thrower, int stage) {
  std::atomic<int> arrived{0};
  mimic::parallel(members, [&](mimic::Team& team) {
    if (team.rank == thrower && stage == 0) throw std::bad_alloc();
    team.barrier();
    if (team.rank == thrower && stage == 1) throw std::bad_alloc();
    team.barrier();
    ++arrived;
  });
  return arrived;
}

}  // namespace

int main() {
  constexpr int kMembers = 4, kRounds = 200;
  mimic::set_num_threads(kMembers);
  for (int round = 0; round < kRounds; ++round) {
    const int thrower = round % kMembers, stage = round / kMembers % 2;
    bool thrown = false;
    try {
      run(kMembers, thrower, stage);
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    demand(thrown, "an exception did not reach the caller");
    demand(run(kMembers, -1, 0) == kMembers, "a run after one that failed lacks members");
    std::atomic<int> tasks{0};
    thrown = false;
    try {
      mimic::share(kMembers, 100, [&](int64_t task, int) {
        if (task == round % 100) throw std::bad_alloc();
        ++tasks;
      });
    } catch (const std::bad_alloc&) {
      thrown = true;
    }
    demand(thrown, "an exception of a task did not reach the caller");
    tasks = 0;
    mimic::share(kMembers, 100, [&](int64_t, int) { ++tasks; });
    demand(tasks == 100, "a run after one that failed lacks tasks");
  }
  std::printf("whole\n");
}
