// One block at a time: its threads as fibers, a random schedule, barriers, shared memory, and copies under way.
#pragma once

#include <stdint.h>

#include <random>
#include <vector>

#include "cuda_runtime_api.h"
#include "fiber.h"
#include "sites.h"

namespace simt {

constexpr int kLanes = 32, kMaxThreads = 1024, kMaxWarps = kMaxThreads / kLanes, kNamedBarriers = 16;

// A copy to shared memory that has been asked for; bytes beyond `valid` become zeros.
struct Copy {
  uint32_t to;
  const void* from;
  int bytes, valid;
  int group;  // of its thread's, counted from the start of the block
};

enum class State : uint8_t { ready, waiting, done };

struct Thread {
  Fiber fiber;
  State state;
  const char* waits_for;
  Location where;
  std::vector<Copy> copies;
  int groups;  // committed
};

struct Warp {
  uint32_t ready;  // lanes
  int arrived;     // at the collective under way ...
  const char* what;
  Location where;
  void* argument[kLanes];
};

struct Barrier {
  int arrived, expected;
  std::vector<int> waiting;
};

class Block {
 public:
  // Runs every thread to its end; false after a failure, which error() describes.
  bool run(unsigned threads, void (*body)(const void*), const void* argument, std::mt19937_64& random);

  Thread& thread() { return threads_[size_t(current_)]; }
  Warp& warp() { return warps_[current_ / kLanes]; }
  int lane() const { return current_ % kLanes; }
  int threads() const { return count_; }

  // The running thread sleeps until woken.
  void sleep(const char* waits_for, const Location& where);
  void wake(int thread);
  void wake_warp();  // all other lanes of the running thread's warp

  void arrive(int barrier, int expected, bool wait, const char* what, const Location& where);
  void deliver(Thread& owner, size_t copy);
  [[noreturn]] void fail(const std::string& message, const Location& where);

 private:
  static void entry();
  void switch_to_next();
  int next();
  void deliver_one();
  std::string stuck() const;
  uint32_t draw(uint32_t below);

  std::vector<Thread> threads_;
  Warp warps_[kMaxWarps];
  Barrier barriers_[kNamedBarriers];
  Fiber host_;
  int count_ = 0, current_ = 0, left_ = 0;
  uint32_t ready_warps_ = 0;
  void (*body_)(const void*) = nullptr;
  const void* argument_ = nullptr;
  bool failed_ = false;
  // This block's schedule: one in 2^leave_warp_ switches leaves the warp, one in 2^deliver_ delivers a copy.
  int leave_warp_ = 0, deliver_ = 0;
  uint64_t random_ = 0;
};

extern Block block;

// `bytes` bytes of the running block's shared memory; fails outside it, or where not aligned to `bytes`.
void* shared(uint32_t at, size_t bytes, const Location& where);

void set_error(const std::string& message);

}  // namespace simt
