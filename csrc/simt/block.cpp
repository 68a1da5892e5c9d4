#include "simt/block.h"

#include <string.h>
#include <sys/mman.h>

#include <bit>

namespace simt {
namespace {

#ifdef __SANITIZE_ADDRESS__
constexpr size_t kStack = 1 << 18;  // redzones need room
#else
constexpr size_t kStack = 1 << 16;
#endif

char* stack_of(int thread) {
  static char* const stacks = static_cast<char*>(
      mmap(nullptr, kStack * kMaxThreads, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0));
  return stacks + kStack * size_t(thread);
}

// The first set bit at or after `start`, around the end.
int next_bit(uint32_t bits, int start) { return (std::countr_zero(std::rotr(bits, start)) + start) % 32; }

}  // namespace

Block block;

bool Block::run(unsigned threads, void (*body)(const void*), const void* argument, std::mt19937_64& random) {
  count_ = left_ = int(threads);
  body_ = body;
  argument_ = argument;
  failed_ = false;
  random_ = random() | 1;
  constexpr int kLeave[] = {0, 3, 8, 14}, kDeliver[] = {2, 8, 32, 32};
  leave_warp_ = kLeave[draw(4)];
  deliver_ = kDeliver[draw(4)];
  threads_.resize(kMaxThreads);
  ready_warps_ = count_ / kLanes == 32 ? ~0u : (1u << count_ / kLanes) - 1;
  for (int i = 0; i < count_ / kLanes; ++i) warps_[i] = {~0u, 0, nullptr, {}, {}, {}};
  for (Barrier& barrier : barriers_) barrier = {};
  mbarriers.clear();
  jobs_.clear();
  for (int i = 0; i < count_; ++i) {
    Thread& t = threads_[size_t(i)];
    t.state = State::ready;
    t.copies.clear();
    t.groups = 0;
    prepare(t.fiber, stack_of(i), kStack, entry);
  }
  current_ = next();
  threadIdx.x = unsigned(current_);
  switch_fiber(host_, thread().fiber);
  const std::string left = failed_ ? "" : left_over();
  if (!left.empty()) set_error(left);
  return !failed_ && left.empty();
}

std::string Block::left_over() const {
  if (!jobs_.empty()) return "the block has ended, copies are still under way";
  for (int i = 0; i < count_ / kLanes; ++i) {
    if (!warps_[i].products.jobs.empty()) return "the block has ended, products are still under way";
    if (warps_[i].products.issued != warps_[i & ~3].products.issued) return "a warpgroup's warps made unequal products";
  }
  return "";
}

void Block::entry() {
  entered(block.thread().fiber, block.host_);
  block.body_(block.argument_);
  for (Thread& t = block.thread(); !t.copies.empty();) block.deliver(t, 0);
  block.thread().state = State::done;
  block.warp().ready &= ~(1u << block.lane());
  --block.left_;
  block.switch_to_next();
}

uint32_t Block::draw(uint32_t below) {
  random_ ^= random_ << 13;
  random_ ^= random_ >> 7;
  random_ ^= random_ << 17;
  return uint32_t((random_ >> 32) * below >> 32);
}

int Block::next() {
  if (deliver_ < 32 && draw(1u << deliver_) == 0) deliver_one();
  int w = current_ / kLanes;
  if (!warps_[w].ready) ready_warps_ &= ~(1u << w);
  while (!ready_warps_ && left_ > 0 && !jobs_.empty()) do_one_job();
  if (!ready_warps_) return -1;
  if (!warps_[w].ready || draw(1u << leave_warp_) == 0) w = next_bit(ready_warps_, int(draw(32)));
  return w * kLanes + next_bit(warps_[w].ready, leave_warp_ == 0 ? int(draw(kLanes)) : lane());
}

void Block::switch_to_next() {
  Fiber& from = thread().fiber;
  const int to = next();
  if (to < 0) {
    if (left_ > 0) fail(stuck(), thread().where);
    switch_fiber(from, host_);
  } else if (to != current_) {
    current_ = to;
    threadIdx.x = unsigned(to);
    switch_fiber(from, thread().fiber);
  }
}

void Block::sleep(const char* waits_for, const Location& where) {
  Thread& t = thread();
  t.state = State::waiting;
  t.waits_for = waits_for;
  t.where = where;
  warp().ready &= ~(1u << lane());
  switch_to_next();
}

void Block::pause() { switch_to_next(); }

void Block::wake(int i) {
  threads_[size_t(i)].state = State::ready;
  warps_[i / kLanes].ready |= 1u << i % kLanes;
  ready_warps_ |= 1u << i / kLanes;
}

void Block::wake_warp() {
  const int first = current_ - lane();
  for (int i = 0; i < kLanes; ++i)
    if (threads_[size_t(first + i)].state == State::waiting) wake(first + i);
}

void Block::arrive(int id, int expected, bool wait, const char* what, const Location& where) {
  Barrier& barrier = barriers_[id];
  if (barrier.arrived && barrier.expected != expected)
    fail("barrier " + std::to_string(id) + " expects " + std::to_string(barrier.expected) + " threads, not " +
             std::to_string(expected),
         where);
  barrier.expected = expected;
  if (wait) barrier.waiting.push_back(current_);
  if (++barrier.arrived == expected) {
    for (const int i : barrier.waiting)
      if (i != current_) wake(i);
    barrier = {};
    switch_to_next();
  } else if (wait) {
    sleep(what, where);
  }
}

void Block::deliver(Thread& owner, size_t i) {
  const Copy copy = owner.copies[i];
  owner.copies[i] = owner.copies.back();
  owner.copies.pop_back();
  char* to = static_cast<char*>(shared(copy.to, size_t(copy.bytes), owner.where));
  memcpy(to, copy.from, size_t(copy.valid));
  memset(to + copy.valid, 0, size_t(copy.bytes - copy.valid));
}

void Block::deliver_one() {
  Thread& owner = threads_[draw(uint32_t(count_))];
  if (!owner.copies.empty()) deliver(owner, draw(uint32_t(owner.copies.size())));
  if (!jobs_.empty()) do_one_job();
  std::deque<Products::Job>& products = warps_[draw(uint32_t(count_)) / kLanes].products.jobs;
  if (!products.empty()) {
    products.front().run();
    products.pop_front();
  }
}

void Block::later(std::function<void()> job) { jobs_.push_back(std::move(job)); }

void Block::do_one_job() {
  std::swap(jobs_[draw(uint32_t(jobs_.size()))], jobs_.back());
  const std::function<void()> job = std::move(jobs_.back());
  jobs_.pop_back();
  job();
}

std::string Block::stuck() const {
  std::string message = "deadlock:";
  int described = 0;
  for (int i = 0; i < count_; ++i) {
    const Thread& t = threads_[size_t(i)];
    const bool as_before = i % kLanes && threads_[size_t(i - 1)].state == t.state &&
                           (t.state == State::done || same(threads_[size_t(i - 1)].where, t.where));
    if (as_before || ++described > 16) continue;
    message += " warp " + std::to_string(i / kLanes) + " from lane " + std::to_string(i % kLanes) +
               (t.state == State::done ? " has ended;"
                                       : std::string(" waits in ") + t.waits_for + " at " + describe(t.where) + ";");
  }
  return message;
}

void Block::fail(const std::string& message, const Location& where) {
  set_error("block (" + std::to_string(blockIdx.x) + ", " + std::to_string(blockIdx.y) + ", " +
            std::to_string(blockIdx.z) + ") thread " + std::to_string(current_) + " at " + describe(where) + ": " +
            message);
  failed_ = true;
  switch_fiber(thread().fiber, host_);
  __builtin_unreachable();
}

}  // namespace simt
