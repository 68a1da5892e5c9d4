// Dropout masks on the device: each lane of a warp draws the 16 bytes that it needs of a 16 x 32 tile.
#pragma once

#include "../csrc/common/philox.h"
#include "launch.h"

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

}  // namespace mimic
