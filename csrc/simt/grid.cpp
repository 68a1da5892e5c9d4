#include "simt/grid.h"

#include <algorithm>
#include <numeric>
#include <string>

#include "simt/block.h"

namespace simt {
namespace {

std::mt19937_64 random_blocks;
std::string error;
// Exactly as large as the launch says, so that AddressSanitizer sees plain accesses beyond it.
std::vector<unsigned char> shared_memory;
size_t largest_shared = 0;
std::vector<Launch> launches;
bool runs = true;
int capability = 80, processors = 132;

size_t shared_limit = 227 * 1024;

}  // namespace

int multiprocessors() { return processors; }

int blocks_at_once(unsigned threads, size_t shared_bytes) {
  constexpr size_t kThreads = 2048,
                   kReserved = 1024;  // of a multiprocessor; shared memory that each block takes beside its own
  const size_t of_one = std::min(kThreads / threads, (shared_limit + kReserved) / (shared_bytes + kReserved));
  return int(std::max<size_t>(of_one, 1)) * processors;
}

int compute_capability() { return capability; }

void set_error(const std::string& message) { error = message; }

size_t most_shared_bytes() { return shared_limit; }

void* shared(uint32_t at, size_t bytes, const Location& where) {
  if (at % bytes || at + bytes > shared_memory.size())
    block.fail("shared memory: " + std::to_string(bytes) + " bytes at " + std::to_string(at) + " of " +
                   std::to_string(shared_memory.size()) + (at % bytes ? ", misaligned" : ", out of bounds"),
               where);
  return shared_memory.data() + at;
}

cudaError_t launch(const Launch& asked, void (*body)(const void*), const void* argument) {
  const dim3 grid = asked.grid;
  const unsigned threads = asked.threads;
  const size_t shared_bytes = asked.shared_bytes;
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (blocks == 0 || grid.y > 65535 || grid.z > 65535 || threads == 0 || threads > unsigned(kMaxThreads) ||
      threads % kLanes || shared_bytes > shared_limit) {
    error = "launch: a grid, a block or shared memory beyond what a device takes";
    return cudaErrorInvalidValue;
  }
  largest_shared = std::max(largest_shared, shared_bytes);
  launches.push_back(asked);
  if (!runs) return cudaSuccess;
  shared_memory = std::vector<unsigned char>(shared_bytes);
  gridDim = grid;
  blockDim = dim3(threads);
  threadIdx = {0, 0, 0};
  std::vector<uint64_t> order(blocks);
  std::iota(order.begin(), order.end(), 0);
  std::shuffle(order.begin(), order.end(), random_blocks);
  for (const uint64_t i : order) {
    blockIdx = {unsigned(i % grid.x), unsigned(i / grid.x % grid.y), unsigned(i / grid.x / grid.y)};
    std::fill(shared_memory.begin(), shared_memory.end(), uint8_t(0xFF));  // NaN in every type
    if (!block.run(threads, body, argument, random_blocks)) return cudaErrorLaunchFailure;
  }
  return cudaSuccess;
}

}  // namespace simt

extern "C" {
void simt_seed(uint64_t seed) {
  simt::random_blocks.seed(seed);
  simt::largest_shared = 0;
  simt::launches.clear();
}
// A launch, counted since simt_seed: whether there is one. `parameters` stays valid until the next launch.
struct simt_launched {
  unsigned grid[3], threads;
  size_t shared_bytes, parameter_bytes;
  const void *kernel, *parameters;
};
int simt_launch(int64_t number, simt_launched* to) {
  if (size_t(number) >= simt::launches.size()) return 0;
  const simt::Launch& l = simt::launches[size_t(number)];
  *to = {{l.grid.x, l.grid.y, l.grid.z}, l.threads, l.shared_bytes, l.parameters.size(), l.kernel, l.parameters.data()};
  return 1;
}
// Whether launches that follow run, or are only kept.
void simt_run(int runs) { simt::runs = runs != 0; }
const char* simt_error() { return simt::error.c_str(); }
void simt_compute_capability(int capability) { simt::capability = capability; }
void simt_multiprocessors(int count) { simt::processors = count; }
// The most shared memory of any launch since simt_seed.
size_t simt_shared_bytes() { return simt::largest_shared; }
// The most shared memory that a block may have on the emulated device.
void simt_limit_shared(size_t bytes) { simt::shared_limit = bytes; }
}
