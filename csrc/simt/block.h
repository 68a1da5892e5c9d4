// One block at a time: its threads are fibers under a random schedule. Barriers, shared memory, asynchronous copies.
#pragma once

#include <stdint.h>

#include <deque>
#include <functional>
#include <map>
#include <random>
#include <vector>

#include "cuda_runtime_api.h"
#include "simt/fiber.h"
#include "simt/sites.h"

namespace simt {

constexpr int kLanes = 32, kMaxThreads = 1024, kMaxWarps = kMaxThreads / kLanes, kNamedBarriers = 16;

// An asynchronous copy to shared memory that has not been done yet; bytes beyond `valid` become zeros.
struct Copy {
  uint32_t to;
  const void* from;
  int bytes, valid;
  int group;  // the thread's groups are counted from the start of the block
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

// A warp's asynchronous products (warpgroup.h).
struct Products {
  struct Job {
    int group;
    std::function<void()> run;
  };
  // Registers that products use: fragments, or sums with the values that they will have.
  struct Registers {
    float* of_lane[kLanes];
    std::vector<float> sums;
    int last_group = -1;  // the last that uses them; -1: none
    int fences = 0;       // passed when the threads got them back
  };
  std::deque<Job> jobs;
  std::map<const void*, Registers> registers;  // by lane 0's address
  int groups = 0, fences = 0, issued = 0;      // committed; passed; in all
};

struct Warp {
  uint32_t ready;  // lanes
  int arrived;     // lanes at the collective that is under way ...
  const char* what;
  Location where;
  void* argument[kLanes];
  Products products;
};

// A barrier in shared memory (barriers.h).
struct MBarrier {
  int arrivals, pending;  // of a phase; those still to come
  int64_t bytes;          // still to come; negative where bytes came before they were expected
  uint32_t phase;
  int maker;
  bool fenced;
  std::vector<int> waiting;
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
  int thread_index() const { return current_; }
  int lane() const { return current_ % kLanes; }
  int threads() const { return count_; }

  // The running thread sleeps until woken.
  void sleep(const char* waits_for, const Location& where);
  void pause();  // lets others run
  void wake(int thread);
  void wake_warp();  // all other lanes of the running thread's warp

  void arrive(int barrier, int expected, bool wait, const char* what, const Location& where);
  void deliver(Thread& owner, size_t copy);
  void later(std::function<void()> job);  // does the job at a random moment, at the latest when all threads wait

  std::map<uint32_t, MBarrier> mbarriers;

  [[noreturn]] void fail(const std::string& message, const Location& where);

 private:
  static void entry();
  void switch_to_next();
  int next();
  void deliver_one();
  void do_one_job();
  std::string left_over() const;
  std::string stuck() const;
  uint32_t draw(uint32_t below);

  std::vector<Thread> threads_;
  Warp warps_[kMaxWarps];
  Barrier barriers_[kNamedBarriers];
  std::vector<std::function<void()>> jobs_;
  Fiber host_;
  int count_ = 0, current_ = 0, left_ = 0;
  uint32_t ready_warps_ = 0;
  void (*body_)(const void*) = nullptr;
  const void* argument_ = nullptr;
  bool failed_ = false;
  // This block's schedule: one of 2^leave_warp_ switches leaves the warp, one of 2^deliver_ delivers a copy.
  int leave_warp_ = 0, deliver_ = 0;
  uint64_t random_ = 0;
};

extern Block block;

// `bytes` bytes of the running block's shared memory; fails outside it, or where not aligned to `bytes`.
void* shared(uint32_t at, size_t bytes, const Location& where);

void set_error(const std::string& message);

}  // namespace simt
