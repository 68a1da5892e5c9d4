// The dropout mask for kernels that pass over memory: a lane takes quads of neighbouring units.
#pragma once

#include "hidden/mask.cuh"
#include "tile/vec4.cuh"

namespace mimic {

// The warps of a block take neighbouring tiles of the same rows, and then the tiles below them.
constexpr int kTileThreads = 256, kTileUnits = kTileThreads / 32 * kMaskUnits;

inline dim3 tile_grid(int64_t rows, int64_t units) {
  return dim3(unsigned(ceil_div(units, kTileUnits)), blocks_for(rows, kMaskRows, 65535));
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
    if (m.threshold == 256) return;
    // Word j is of units 8 j + 2 (lane % 4) + {0, 1}. Neighbours swap words: even lanes get j = 0, 1, odd ones 2, 3.
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
    return m_.threshold == 256 ? 1.0f : byte < m_.threshold ? m_.scale : 0.0f;
  }

 private:
  MaskState m_;
  uint32_t words_[2][2];
};

}  // namespace mimic
