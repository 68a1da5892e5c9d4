#include "cpu/parallel.h"

#include <pthread.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <new>
#include <thread>

namespace mimic {
namespace {

constexpr int kSpinsBeforeYield = 1000;
constexpr int kSpins = 40000;  // some hundred microseconds, longer than Python takes between two calls; then sleep

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// A number that only grows; waiting spins for a while and then sleeps.
class Generation {
 public:
  uint64_t now() const { return value_.load(std::memory_order_acquire); }

  void advance() {
    {
      std::lock_guard<std::mutex> lock(mutex_);
      value_.fetch_add(1, std::memory_order_release);
    }
    changed_.notify_all();
  }

  void wait_past(uint64_t seen) {
    for (int i = 1; i <= kSpins; ++i) {
      if (now() != seen) return;
      i % kSpinsBeforeYield ? pause() : std::this_thread::yield();  // to one that has no core, and may be waited for
    }
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return now() != seen; });
  }

 private:
  std::atomic<uint64_t> value_{0};
  std::mutex mutex_;
  std::condition_variable changed_;
};

constexpr auto kBetweenChecks = std::chrono::milliseconds(50);

// Each thread's Interrupts, or none. A key, and no thread_local: a pool's thread asks for it first within a run, and
// where there is no memory for a thread_local's first use the process ends.
pthread_key_t own_interrupts() {
  static const pthread_key_t key = [] {
    pthread_key_t made;
    if (pthread_key_create(&made, nullptr) != 0) throw std::bad_alloc();
    return made;
  }();
  return key;
}

struct Abandoned {};  // by a member that failed: the others leave their bodies too

// Where the members of one run meet, and where the first that fails leaves its exception.
class Barrier {
 public:
  void wait(int members) {
    const uint64_t seen = generation_.now();
    if (failed_.load(std::memory_order_acquire)) throw Abandoned();
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == members) {
      arrived_.store(0, std::memory_order_relaxed);
      generation_.advance();
    } else {
      generation_.wait_past(seen);
    }
    if (failed_.load(std::memory_order_acquire)) throw Abandoned();
  }

  bool failed() const { return failed_.load(std::memory_order_acquire); }

  // In a handler: keeps the exception, and wakes who waits for this member.
  void fail() {
    if (!noted_.exchange(true, std::memory_order_acq_rel)) error_ = std::current_exception();
    failed_.store(true, std::memory_order_release);
    generation_.advance();
  }

  // Once all members are through: ready for the next run, and throws what one of this run threw.
  void settle() {
    if (!failed_.load(std::memory_order_acquire)) return;
    const std::exception_ptr error = error_;
    error_ = nullptr;
    arrived_.store(0, std::memory_order_relaxed);
    noted_.store(false, std::memory_order_relaxed), failed_.store(false, std::memory_order_relaxed);
    std::rethrow_exception(error);
  }

 private:
  std::atomic<int> arrived_{0};
  std::atomic<bool> noted_{false}, failed_{false};
  std::exception_ptr error_;
  Generation generation_;
};

struct Member final : Team {
  Barrier* meeting = nullptr;
  void barrier() override {
    look();
    if (size > 1) meeting->wait(size);
  }
  void look() override {
    if (meeting && meeting->failed()) throw Abandoned();
    if (void* own = pthread_getspecific(own_interrupts())) static_cast<Interrupts*>(own)->look();
  }
  void run(void (*body)(Team&, void*), void* context) {
    try {
      body(*this, context);
    } catch (...) {
      meeting->fail();
    }
  }
};

// Never destroyed: its threads sleep in it until the process ends. A run offers seats; who wakes in time takes one.
class Pool {
 public:
  bool try_acquire() { return !busy_.exchange(true, std::memory_order_acquire); }
  void release() { busy_.store(false, std::memory_order_release); }

  void run(int members, bool all_must_come, void (*body)(Team&, void*), void* context) {
    grow(members - 1);
    Member self;
    self.size = workers_ + 1 < members ? workers_ + 1 : members;
    self.meeting = &barrier_;
    body_ = body, context_ = context, team_size_ = self.size;
    finished_.store(0, std::memory_order_relaxed);
    seats_.store(self.size - 1, std::memory_order_release);
    start_.advance();
    self.run(body, context);
    const int left_empty = all_must_come ? 0 : seats_.exchange(0, std::memory_order_acq_rel);
    const int came = self.size - 1 - left_empty;
    uint64_t seen = done_.now();
    while (finished_.load(std::memory_order_acquire) != came) {
      done_.wait_past(seen);
      seen = done_.now();
    }
    barrier_.settle();
  }

 private:
  void grow(int workers) {
    while (workers_ < workers) {
      try {
        std::thread(&Pool::work, this, start_.now()).detach();
      } catch (const std::exception&) {
        return;  // no more threads to be had, or no memory for one: a smaller team gives the same bits
      }
      ++workers_;
    }
  }

  void work(uint64_t seen) {
    for (;;) {
      start_.wait_past(seen);
      ++seen;
      int seat = seats_.load(std::memory_order_acquire);
      while (seat > 0 && !seats_.compare_exchange_weak(seat, seat - 1, std::memory_order_acq_rel)) {
      }
      if (seat <= 0) continue;
      Member self;
      self.rank = seat, self.size = team_size_, self.meeting = &barrier_;
      self.run(body_, context_);
      finished_.fetch_add(1, std::memory_order_acq_rel);
      done_.advance();
    }
  }

  std::atomic<bool> busy_{false};
  std::atomic<int> seats_{0}, finished_{0};
  int workers_ = 0, team_size_ = 1;
  void (*body_)(Team&, void*) = nullptr;
  void* context_ = nullptr;
  Generation start_, done_;
  Barrier barrier_;
};

struct Call {
  void (*body)(Team&, void*);
  void* context;
  const OpenMp* openmp;
  Barrier barrier;
};

void openmp_member(void* argument) {
  Call& call = *static_cast<Call*>(argument);
  Member self;
  self.rank = call.openmp->rank(), self.size = call.openmp->size(), self.meeting = &call.barrier;
  self.run(call.body, call.context);
}

std::atomic<int> g_threads{1};
alignas(Pool) unsigned char g_pool[sizeof(Pool)];  // made in place: a child may find no memory when it is forked
std::atomic<const OpenMp*> g_openmp{nullptr};      // never freed: another thread may be reading it
std::atomic<bool> g_openmp_has_threads{false};

// The parent's threads do not exist in a forked child, and its locks may be held by them.
void forget_pool() {
  new (g_pool) Pool;
  g_openmp_has_threads.store(false);
}

// When the library is loaded: another thread that forks must not find this half done.
[[maybe_unused]] const bool ready = [] {
  forget_pool();
  return pthread_atfork(nullptr, nullptr, forget_pool) == 0;
}();

// Gives the pool back, also where a body throws.
struct Borrowed {
  Pool& pool;
  ~Borrowed() { pool.release(); }
};

}  // namespace

Interrupts::Interrupts(void (*check)()) : check_(check), next_check_(Clock::now() + kBetweenChecks) {
  if (check && pthread_setspecific(own_interrupts(), this) != 0) throw std::bad_alloc();
}

Interrupts::~Interrupts() {
  if (check_) pthread_setspecific(own_interrupts(), nullptr);
}

void Interrupts::look() {
  if (Clock::now() < next_check_) return;
  check_();
  next_check_ = Clock::now() + kBetweenChecks;
}

int num_threads() { return g_threads.load(std::memory_order_relaxed); }

void set_num_threads(int n) { g_threads.store(n, std::memory_order_relaxed); }

void run_on(const OpenMp& openmp) {
  g_openmp.store(new OpenMp(openmp));
  g_openmp_has_threads.store(true);
}

void run_team(int64_t most_members, bool all_must_come, void (*body)(Team&, void*), void* context) {
  int members = num_threads() < most_members ? num_threads() : int(most_members);
  const OpenMp* const openmp = members > 1 ? g_openmp.load() : nullptr;
  if (openmp && openmp->most() < members) members = openmp->most();
  Pool& pool = *std::launder(reinterpret_cast<Pool*>(g_pool));
  if (members > 1 && pool.try_acquire()) {
    const Borrowed borrowed = {pool};
    if (openmp && g_openmp_has_threads.load()) {
      Call call = {body, context, openmp, {}};
      openmp->parallel(openmp_member, &call, unsigned(members), 0);
      call.barrier.settle();
    } else {
      pool.run(members, all_must_come, body, context);
    }
    return;
  }
  Member alone;
  body(alone, context);
}

}  // namespace mimic
