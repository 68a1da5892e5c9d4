// Dropout masks on the device: each lane of a warp draws the 16 bytes that it needs of a 16 x 32 tile.
#pragma once

#include "../csrc/common/philox.h"
#include "launch.h"
#include "tile.cuh"

namespace mimic {

struct MaskState {
  uint32_t keep;
  float scale;
  uint64_t seed;
  uint32_t offset;
  uint32_t row_tile, unit_tile;  // of the origin
};

__device__ __forceinline__ MaskState mask_state(const pymimic_mask& m) {
  const int64_t seed = m.device_seed ? *m.device_seed : m.seed, offset = m.device_offset ? *m.device_offset : m.offset;
  return {m.keep,           256.0f / float(m.keep),      uint64_t(seed),
          uint32_t(offset), uint32_t(m.row / kMaskRows), uint32_t(m.unit / kMaskUnits)};
}

inline bool is_valid(const pymimic_mask& m) {
  return m.keep > 0 && m.keep <= 256 && m.row >= 0 && m.row % kMaskRows == 0 && m.unit >= 0 && m.unit % kMaskUnits == 0;
}

// This lane's random bytes of the tile whose first element is (row, unit): byte j is element
// [lane / 4 + 8 (j / 2 % 2), 8 (j / 4) + 2 (lane % 4) + j % 2], the accumulator layout of mma.m16n8.
__device__ __forceinline__ Philox4 mask_lane_bytes(const MaskState& m, int lane, int64_t row, int64_t unit) {
  const Philox4 counter = {{m.offset, uint32_t(lane), m.row_tile + uint32_t(uint64_t(row) / kMaskRows),
                            m.unit_tile + uint32_t(uint64_t(unit) / kMaskUnits)}};
  return philox4x32(counter, uint32_t(m.seed), uint32_t(m.seed >> 32));
}

__device__ __forceinline__ float mask_factor(const MaskState& m, const Philox4& bytes, int j) {
  return (bytes.word[j / 4] >> (8 * (j % 4)) & 255u) < m.keep ? m.scale : 0.0f;
}

// The same tile for accumulators [unit, row]: byte (e, w, half) is unit 8 w + lane / 4, row 8 half + 2 (lane % 4) + e.
// Two lanes whose units are neighbours need the same two calls: each makes one and trades half of its bytes.
struct UnitMaskBytes {
  uint32_t word[2][4];

  __device__ float factor(const MaskState& m, int e, int w, int half) const {
    return (word[e][w] >> (16 * half) & 255u) < m.keep ? m.scale : 0.0f;
  }
};

__device__ __forceinline__ UnitMaskBytes mask_unit_bytes(const MaskState& m, int lane, int64_t row, int64_t unit) {
  const int odd = lane / 4 % 2;  // of the unit; of the rows whose call this lane makes, too
  const Philox4 made = mask_lane_bytes(m, 4 * (2 * (lane % 4) + odd) + lane / 8, row, unit);
  constexpr uint32_t kEven = 0x00FF00FFu;
  uint32_t own[4], other[4];
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    own[w] = made.word[w] >> (8 * odd) & kEven;
    other[w] = made.word[w] >> (8 - 8 * odd) & kEven;
  }
  const uint32_t low = shuffle_xor(other[0] | other[1] << 8, 4), high = shuffle_xor(other[2] | other[3] << 8, 4);
  UnitMaskBytes bytes;
#pragma unroll
  for (int w = 0; w < 4; ++w) {
    const uint32_t got = (w < 2 ? low : high) >> (8 * (w % 2)) & kEven;
    bytes.word[0][w] = odd ? got : own[w];
    bytes.word[1][w] = odd ? own[w] : got;
  }
  return bytes;
}

}  // namespace mimic
