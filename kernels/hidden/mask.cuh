// Dropout masks on the device: each lane of a warp draws the 16 bytes that it needs of a 16 x 32 tile.
#pragma once

#include "common/philox.h"
#include "launch.h"
#include "tile/tile.cuh"

namespace mimic {

struct MaskState {
  uint32_t threshold;
  float scale;
  uint64_t seed;
  uint32_t offset;
  uint32_t row_tile, unit_tile;  // of the origin
};

__device__ __forceinline__ MaskState mask_state(const pymimic_mask& m) {
  const int64_t seed = m.device_seed ? *m.device_seed : m.seed, offset = m.device_offset ? *m.device_offset : m.offset;
  return {m.threshold,      256.0f / float(m.threshold), uint64_t(seed),
          uint32_t(offset), uint32_t(m.row / kMaskRows), uint32_t(m.unit / kMaskUnits)};
}

inline bool is_valid(const pymimic_mask& m) {
  return m.threshold > 0 && m.threshold <= 256 && m.row >= 0 && m.row % kMaskRows == 0 && m.unit >= 0 &&
         m.unit % kMaskUnits == 0;
}

// This lane's random bytes of the tile whose first element is (row, unit): byte j is element
// [lane / 4 + 8 (j / 2 % 2), 8 (j / 4) + 2 (lane % 4) + j % 2], the accumulator layout of mma.m16n8.
__device__ __forceinline__ Philox4 mask_lane_bytes(const MaskState& m, int lane, int64_t row, int64_t unit) {
  const Philox4 counter = {{m.offset, uint32_t(lane), m.row_tile + uint32_t(uint64_t(row) / kMaskRows),
                            m.unit_tile + uint32_t(uint64_t(unit) / kMaskUnits)}};
  return philox4x32(counter, uint32_t(m.seed), uint32_t(m.seed >> 32));
}

__device__ __forceinline__ float mask_factor(const MaskState& m, const Philox4& bytes, int j) {
  return (bytes.word[j / 4] >> (8 * (j % 4)) & 255u) < m.threshold ? m.scale : 0.0f;
}

// MASK BITS say which of a warp's accumulators are kept: element [m][n][i] is bit 4 (tiles m + n) + i. While a product
// runs, they take a single register.
template <int rows, int tiles>
__device__ __forceinline__ void apply_mask(float (&x)[rows][tiles][4], uint32_t mask_bits, float scale) {
  static_assert(rows * tiles * 4 <= 32);
#pragma unroll
  for (int j = 0; j < rows * tiles * 4; ++j)
    x[j / 4 / tiles][j / 4 % tiles][j % 4] *= mask_bits >> j & 1 ? scale : 0.0f;
}

// For accumulators [row, unit], 16 rows by 8 tiles units each.
template <int rows, int tiles>
__device__ __forceinline__ uint32_t mask_bits_of_rows(const MaskState& m, int lane, int row, int unit) {
  static_assert(tiles * 8 == kMaskUnits || tiles * 16 == kMaskUnits);
  uint32_t mask_bits = 0;
#pragma unroll
  for (int r = 0; r < rows; ++r) {
    Philox4 bytes = mask_lane_bytes(m, lane, row + 16 * r, unit);
    if (unit % kMaskUnits != 0) bytes = {{bytes.word[2], bytes.word[3]}};
#pragma unroll
    for (int j = 0; j < 4 * tiles; ++j)
      mask_bits |= uint32_t((bytes.word[j / 4] >> (8 * (j % 4)) & 255u) < m.threshold) << (4 * tiles * r + j);
  }
  return mask_bits;
}

// For accumulators [unit, row], 32 units by 8 tiles rows. Two lanes whose units are neighbours need bytes of the same
// two Philox calls: element (unit 8 w + lane / 4, row 8 half + 2 (lane % 4) + e) of a mask's tile is a byte of call e.
// Each of them makes one call, and they exchange half of the bytes.
template <int tiles>
__device__ __forceinline__ uint32_t mask_bits_of_units(const MaskState& m, int lane, int row, int unit) {
  constexpr uint32_t kEven = 0x00FF00FFu;
  const int odd = lane / 4 % 2;  // of the unit; also e of the call that this lane makes
  uint32_t mask_bits = 0;
#pragma unroll
  for (int n = 0; n < tiles; n += 2) {
    const Philox4 made = mask_lane_bytes(m, 4 * (2 * (lane % 4) + odd) + lane / 8, row + 8 * n, unit);
    uint32_t got[2];
#pragma unroll
    for (int i = 0; i < 2; ++i) {
      const uint32_t low = made.word[2 * i] >> (8 - 8 * odd) & kEven,
                     high = made.word[2 * i + 1] >> (8 - 8 * odd) & kEven;
      got[i] = shuffle_xor(low | high << 8, 4);
    }
#pragma unroll
    for (int w = 0; w < 4; ++w) {
      const uint32_t mine = made.word[w] >> (8 * odd) & kEven, other = got[w / 2] >> (8 * (w % 2)) & kEven;
#pragma unroll
      for (int half = 0; half < 2; ++half)
#pragma unroll
        for (int e = 0; e < 2; ++e) {
          const uint32_t byte = (e == odd ? mine : other) >> (16 * half) & 255u;
          mask_bits |= uint32_t(byte < m.threshold) << (4 * (tiles * (w / 2) + n + half) + w % 2 * 2 + e);
        }
    }
  }
  return mask_bits;
}

}  // namespace mimic
