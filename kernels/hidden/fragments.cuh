// From the sums z U^T of 16 rows by a slab of units, in a warp's registers, to h as the A operand of h W.
#pragma once

#include "hidden/activate.cuh"
#include "hidden/mask.cuh"
#include "tile/mma_products.cuh"

namespace mimic {

// s += the bias in shared memory.
template <int tiles>
__device__ __forceinline__ void add_bias(float (&s)[tiles][4], uint32_t bias, int lane) {
#pragma unroll
  for (int n = 0; n < tiles; ++n) {
    const float2 b = load_shared<float2>(bias + (8 * n + 2 * (lane % 4)) * sizeof(float));
#pragma unroll
    for (int i = 0; i < 4; ++i) s[n][i] += i % 2 ? b.y : b.x;
  }
}

// The mask of 16 rows by 8 tiles units, a bit each: made while products run, applied when they are done.
template <int tiles>
struct MaskBits {
  uint32_t word[tiles / 8];

  __device__ void make(const MaskState& m, int lane, int row, int unit) {
#pragma unroll
    for (int i = 0; i < tiles / 8; ++i)
      word[i] = mask_bits_of_rows<1, 4>(m, lane, row, unit + 2 * i * kMaskUnits) |
                mask_bits_of_rows<1, 4>(m, lane, row, unit + (2 * i + 1) * kMaskUnits) << 16;
  }
  __device__ void apply(float (&x)[tiles][4], float scale) const {
#pragma unroll
    for (int j = 0; j < 4 * tiles; ++j) x[j / 4][j % 4] *= word[j / 32] >> (j % 32) & 1 ? scale : 0.0f;
  }
};

// Bias, activation, mask, rounding. Overwrites s.
template <class Element, int tiles>
__device__ __forceinline__ void make_hidden(uint32_t (&h)[tiles * 8 / kDepth<Element>][4], float (&s)[tiles][4],
                                            uint32_t bias, pymimic_activation activation, const MaskState& mask,
                                            int lane, int64_t row, int64_t unit) {
  add_bias(s, bias, lane);
  activate<kElementBytes<Element> == 2>(activation, s);
  if (mask.threshold < 256) {
#pragma unroll
    for (int part = 0; part < tiles * 8 / kMaskUnits; ++part) {
      const Philox4 bytes = mask_lane_bytes(mask, lane, row, unit + part * kMaskUnits);
#pragma unroll
      for (int j = 0; j < 16; ++j) s[4 * part + j / 4][j % 4] *= mask_factor(mask, bytes, j);
    }
  }
  to_fragments<Element>(h, s);
}

}  // namespace mimic
