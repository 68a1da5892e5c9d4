// How a block of the backward kernels divides its shared memory. It owns some rows of two operands and streams pieces
// of two others through a ring of slots. Where the device has room, what it owns stays in shared memory (is RESIDENT).
// Elsewhere each streamed piece brings the owned piece that it is multiplied by. The sums have the same bits.
#pragma once

#include "tile/launch.cuh"
#include "tile/swizzled.cuh"

namespace mimic {

constexpr int kMostStages = 3;

struct Ring {
  bool resident;
  int stages;
  uint32_t slots, slot_bytes;  // resident pieces come before the slots
  uint32_t rest, bytes;        // where the kernel's other memory begins; the end

  __device__ uint32_t after(uint32_t slot) const { return slot + slot_bytes < rest ? slot + slot_bytes : slots; }
  __device__ uint32_t before(uint32_t slot) const { return (slot > slots ? slot : rest) - slot_bytes; }
};

// The best division that fits; false where none does.
inline bool fit_ring(Ring& ring, int owned_pieces, uint32_t owned_bytes, uint32_t streamed_bytes, uint32_t rest_bytes,
                     size_t most_bytes) {
  for (const bool resident : {true, false})
    for (int stages = kMostStages; stages >= 2; --stages) {
      const size_t slots = resident ? size_t(owned_pieces) * owned_bytes : 0;
      const size_t slot_bytes = resident ? streamed_bytes : streamed_bytes + owned_bytes;
      const size_t rest = slots + slot_bytes * size_t(stages);
      if (rest + rest_bytes > most_bytes) continue;
      ring = {resident, stages, uint32_t(slots), uint32_t(slot_bytes), uint32_t(rest), uint32_t(rest + rest_bytes)};
      return true;
    }
  return false;
}

// Waits for the oldest copy under way, where copies to all slots but one are.
__device__ __forceinline__ void wait_for_piece(const Ring& ring) {
  if (ring.stages == kMostStages)
    copy_async_wait<kMostStages - 2>();
  else
    copy_async_wait<0>();
}

}  // namespace mimic
