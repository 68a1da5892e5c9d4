#include "simt/barriers.h"

#include <string.h>

#include <utility>

namespace simt {
namespace {

constexpr uint64_t kMark = 0x5AFEBA221E25A11Du;  // where a barrier is, to detect that it was overwritten
constexpr int kRowBytes = 128;

int64_t prefetched_bytes = 0, tensor_maps = 0;

MBarrier& barrier_at(uint32_t at, const Location& where) {
  const auto found = block.mbarriers.find(at);
  if (found == block.mbarriers.end()) block.fail("mbarrier: there is none at " + std::to_string(at), where);
  uint64_t mark;
  memcpy(&mark, shared(at, 8, where), 8);
  if (mark != kMark) block.fail("mbarrier: somebody wrote over the one at " + std::to_string(at), where);
  return found->second;
}

void end_phase_if_complete(MBarrier& barrier) {
  if (barrier.pending > 0 || barrier.bytes != 0) return;
  ++barrier.phase;
  barrier.pending = barrier.arrivals;
  for (const int thread : barrier.waiting) block.wake(thread);
  barrier.waiting.clear();
}

}  // namespace

void mbarrier_init(uint32_t at, uint32_t arrivals, const Location& where) {
  memcpy(shared(at, 8, where), &kMark, 8);
  block.mbarriers[at] = {int(arrivals), int(arrivals), 0, 0, block.thread_index(), false, {}};
}

void mbarrier_init_fence(const Location&) {
  for (auto& [at, barrier] : block.mbarriers) barrier.fenced |= barrier.maker == block.thread_index();
}

void mbarrier_arrive(uint32_t at, uint32_t expected_bytes, const Location& where) {
  MBarrier& barrier = barrier_at(at, where);
  if (barrier.pending == 0) block.fail("mbarrier: more arrivals than it expects", where);
  barrier.bytes += expected_bytes;
  --barrier.pending;
  end_phase_if_complete(barrier);
  block.pause();
}

void mbarrier_wait(uint32_t at, uint32_t parity, const Location& where) {
  for (;;) {
    MBarrier& barrier = barrier_at(at, where);
    if ((barrier.phase & 1) != parity) return block.pause();
    barrier.waiting.push_back(block.thread_index());
    block.sleep("mbarrier_wait", where);
  }
}

void count_tensor_map() { ++tensor_maps; }

bool is_valid(const TensorMap& map) {
  constexpr int64_t kMostRowBytes = int64_t(1) << 40, kMostSize = int64_t(1) << 32;
  return reinterpret_cast<uintptr_t>(map.data) % 16 == 0 && map.row_bytes % 16 == 0 && map.row_bytes > 0 &&
         map.row_bytes < kMostRowBytes && map.rows > 0 && map.rows <= kMostSize && map.columns > 0 &&
         map.columns <= kMostSize && map.box_rows > 0 && map.box_rows <= 256 &&
         (map.box_columns == 64 || map.box_columns == 16);
}

// The copy is done at a random moment; until then its destination holds NaNs. The place of a row's 16-byte chunks is
// XORed with bits of the address: three for a row of 128 bytes, one for a row of 32.
void copy_box(uint32_t to, const TensorMap& map, int column, int row, uint32_t at, const Location& where) {
  if (to % 1024) block.fail("copy_box: misaligned destination", where);
  if (!barrier_at(at, where).fenced) block.fail("copy_box: the copy engine does not see its barrier yet", where);
  const uint32_t row_bytes = uint32_t(map.box_columns) * 2, bytes = uint32_t(map.box_rows) * row_bytes;
  for (uint32_t at_byte = 0; at_byte < bytes; at_byte += 16) memset(shared(to + at_byte, 16, where), 0xFF, 16);
  block.later([=] {
    for (int r = 0; r < map.box_rows; ++r) {
      uint16_t elements[kRowBytes / 2] = {};
      const int64_t from_row = int64_t(row) + r;
      for (int i = 0; i < map.box_columns; ++i)
        if (from_row >= 0 && from_row < map.rows && column + i >= 0 && column + i < map.columns)
          memcpy(&elements[i],
                 static_cast<const char*>(map.data) + from_row * map.row_bytes + 2 * (int64_t(column) + i), 2);
      for (uint32_t chunk = 0; chunk < row_bytes; chunk += 16)
        memcpy(shared(swizzled(to + uint32_t(r) * row_bytes + chunk, row_bytes), 16, where), &elements[chunk / 2], 16);
    }
    MBarrier& barrier = barrier_at(at, where);
    barrier.bytes -= bytes;
    end_phase_if_complete(barrier);
  });
}

// Reads the memory, so that a sanitizer sees a prefetch beyond an array.
void prefetch(const void* from, uint32_t bytes, const Location& where) {
  if (reinterpret_cast<uintptr_t>(from) % 16 || bytes % 16 || bytes == 0)
    block.fail("prefetch: not whole 16 bytes", where);
  for (uint32_t i = 0; i < bytes; ++i) (void)static_cast<const volatile char*>(from)[i];
  prefetched_bytes += bytes;
}

}  // namespace simt

extern "C" {
// Made since the last call.
int64_t simt_tensor_maps() { return std::exchange(simt::tensor_maps, 0); }
// Prefetched since the last call.
int64_t simt_prefetched_bytes() { return std::exchange(simt::prefetched_bytes, 0); }
}
