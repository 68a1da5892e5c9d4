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
std::vector<dim3> grids;
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

cudaError_t launch(dim3 grid, unsigned threads, size_t shared_bytes, void (*body)(const void*), const void* argument) {
  const uint64_t blocks = uint64_t(grid.x) * grid.y * grid.z;
  if (blocks == 0 || grid.y > 65535 || grid.z > 65535 || threads == 0 || threads > unsigned(kMaxThreads) ||
      threads % kLanes || shared_bytes > shared_limit) {
    error = "launch: a grid, a block or shared memory beyond what a device takes";
    return cudaErrorInvalidValue;
  }
  largest_shared = std::max(largest_shared, shared_bytes);
  grids.push_back(grid);
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
  simt::grids.clear();
}
// The grid of a launch, counted since simt_seed; null beyond the last.
const dim3* simt_grid(int64_t launch) {
  return size_t(launch) < simt::grids.size() ? &simt::grids[size_t(launch)] : nullptr;
}
const char* simt_error() { return simt::error.c_str(); }
void simt_compute_capability(int capability) { simt::capability = capability; }
void simt_multiprocessors(int count) { simt::processors = count; }
// The most shared memory of any launch since simt_seed.
size_t simt_shared_bytes() { return simt::largest_shared; }
// The most shared memory that a block may have on the emulated device.
void simt_limit_shared(size_t bytes) { simt::shared_limit = bytes; }
}
