// Dropout masks on the device: each lane of a warp draws the 16 bytes that it needs of a 16 x 32 tile.
#pragma once

#include "../csrc/common/philox.h"
#include "launch.h"
#include "quads.cuh"
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

// A tile of the mask as quads of four units in a row, for 16-byte accesses: each lane takes four, quad q being the
// units [quad_unit, quad_unit + 4) of row quad_row, counted from the tile's first.
constexpr int kMaskQuads = 4;
__device__ __forceinline__ int quad_row(int lane, int q) { return lane / 4 + 8 * (q % 2); }
__device__ __forceinline__ int quad_unit(int lane, int q) { return 16 * (lane % 2) + 8 * (q / 2) + 4 * (lane % 4 / 2); }

class MaskedQuads {
 public:
  // All lanes of a warp together.
  __device__ __forceinline__ MaskedQuads(const MaskState& m, int lane, int64_t row, int64_t unit) : m_(m), words_() {
    if (m.keep == 256) return;
    // Word j is of units 8 j + 2 (lane % 4) + {0, 1}: neighbours trade, the even lane gets j = 0, 1, the odd one 2, 3.
    const Philox4 bytes = mask_lane_bytes(m, lane, row, unit);
    const bool odd = lane % 2;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t low = bytes.word[i], high = bytes.word[i + 2], traded = shuffle_xor(odd ? low : high, 1);
      words_[i][0] = odd ? traded : low;
      words_[i][1] = odd ? high : traded;
    }
  }

  // What unit i of quad q is multiplied by.
  __device__ __forceinline__ float factor(int q, int i) const {
    const uint32_t byte = words_[q / 2][i / 2] >> (8 * (2 * (q % 2) + i % 2)) & 255u;
    return m_.keep == 256 ? 1.0f : byte < m_.keep ? m_.scale : 0.0f;
  }

 private:
  MaskState m_;
  uint32_t words_[2][2];
};

}  // namespace mimic
