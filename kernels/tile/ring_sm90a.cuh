// A ring of pieces in shared memory: one warp, the producer, has them copied, and the products of others use them.
#pragma once

#include "common/host_device.h"
#include "tile/swizzled.cuh"
#include "tile/tile_sm90a.cuh"

namespace mimic {

struct PieceRing {
  int stages;
  uint32_t slots, slot_bytes;
  uint32_t barriers;  // two for each slot: filled (by the copy engine) and emptied (by all users)

  __device__ uint32_t slot(int i) const { return slots + i * slot_bytes; }
  __device__ uint32_t filled(int i) const { return barriers + 16 * i; }
  __device__ uint32_t emptied(int i) const { return barriers + 16 * i + 8; }
};

// One thread calls it, before mbarrier_init_fence.
__device__ __forceinline__ void open_ring(const PieceRing& ring, int users) {
  for (int i = 0; i < ring.stages; ++i) {
    mbarrier_init(ring.filled(i), 1);
    mbarrier_init(ring.emptied(i), users);
  }
}

// Starts sums (64 x 8 tiles) = a b^T, or with `add` += a b^T, along the first `groups` groups of columns of a piece of
// each, as one group of products.
template <class Element, int tiles>
__device__ __forceinline__ void start_multiply_along(float (&sums)[tiles][4], uint32_t a, uint32_t b, int groups,
                                                     bool add) {
  constexpr uint64_t kStep = kGroupBytes >> 4;  // in descriptors
  const uint64_t a_at = piece_descriptor(a), b_at = piece_descriptor(b);
  if (groups >= kPieceGroups) {  // with a commit of its own: nvcc 13.0 ends a group at every branch
#pragma unroll
    for (int i = 0; i < kPieceGroups; ++i) wgmma_along<Element>(sums, a_at + i * kStep, b_at + i * kStep, add || i > 0);
    wgmma_commit();
  } else {
#pragma unroll 1
    for (int i = 0; i < groups; ++i) wgmma_along<Element>(sums, a_at + i * kStep, b_at + i * kStep, add || i > 0);
    wgmma_commit();
  }
}

// The same with sums = a b^T: sums that nobody reads before take no registers.
template <class Element, int tiles>
__device__ __forceinline__ void start_multiply_along(float (&sums)[tiles][4], uint32_t a, uint32_t b, int groups) {
  constexpr uint64_t kStep = kGroupBytes >> 4;
  const uint64_t a_at = piece_descriptor(a), b_at = piece_descriptor(b);
  if (groups >= kPieceGroups) {
    wgmma_along_first<Element>(sums, a_at, b_at);
#pragma unroll
    for (int i = 1; i < kPieceGroups; ++i) wgmma_along<Element>(sums, a_at + i * kStep, b_at + i * kStep, true);
    wgmma_commit();
  } else {
    wgmma_along_first<Element>(sums, a_at, b_at);
#pragma unroll 1
    for (int i = 1; i < groups; ++i) wgmma_along<Element>(sums, a_at + i * kStep, b_at + i * kStep, true);
    wgmma_commit();
  }
}

// Starts sums += a times the rows of a piece, or of a narrow piece for sums of 16 columns.
template <class Element, int tiles, int steps>
__device__ __forceinline__ void start_multiply_down(float (&sums)[tiles][4], const uint32_t (&a)[steps][4],
                                                    uint32_t piece) {
  static_assert(tiles == 8 || tiles == 2);
  constexpr uint64_t kStep = 16 * (tiles == 8 ? kPieceRowBytes : kGroupBytes) >> 4;  // in descriptors
  const uint64_t b = tiles == 8 ? piece_descriptor(piece) : narrow_descriptor(piece);
#pragma unroll
  for (int step = 0; step < steps; ++step) wgmma_down<Element>(sums, a[step], b + step * kStep);
}

// The slabs of a part of H. Parts have `each` slabs, and the first ones one more where the division has a remainder.
struct Slabs {
  int first, end;
};

__device__ __forceinline__ Slabs slabs_of(int part, int parts, int slabs, int each) {
  const int longer = slabs - each * parts, first = part * each + (part < longer ? part : longer);
  return {first, first + each + (part < longer ? 1 : 0)};
}

// A slot of the ring, and the parity of its phase.
struct RingPosition {
  int stages, slot = 0;
  uint32_t parity = 0;

  __device__ void advance() {
    if (++slot == stages) slot = 0, parity ^= 1;
  }
  __device__ void advance(int by) {  // at most `stages`
    slot += by;
    if (slot >= stages) slot -= stages, parity ^= 1;
  }
};

// A slab's biases in the registers of a warp, which loads them well before it stores them to shared memory.
template <int slab>
struct Biases {
  float next[slab / 32];

  __device__ void load(const float* b, int64_t first, int64_t units, int lane) {
#pragma unroll
    for (int i = 0; i < slab / 32; ++i) {
      const int64_t unit = first + lane + 32 * i;
      next[i] = unit < units ? b[unit] : 0.0f;
    }
  }
  __device__ void store(uint32_t at, int lane) const {
#pragma unroll
    for (int i = 0; i < slab / 32; ++i) store_shared(at + (lane + 32 * i) * uint32_t(sizeof(float)), next[i]);
  }
};

}  // namespace mimic
