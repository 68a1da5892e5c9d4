// Products of pieces in shared memory, summed in a warp's registers. Rows come in tiles of 16, columns in tiles of 8:
// sums[row tile][column tile][4], in the accumulator layout of mma.
#pragma once

#include <string.h>

#include "tile/swizzled.cuh"

namespace mimic {

__device__ __forceinline__ float float_from_bits(uint32_t bits) {
  float x;
  memcpy(&x, &bits, 4);
  return x;
}

__device__ __forceinline__ uint32_t bits_from_float(float x) {
  uint32_t bits;
  memcpy(&bits, &x, 4);
  return bits;
}

// Beside Bf16 and Fp16, two ways to multiply float32 operands: rounded to 10 bits of mantissa (Tf32), or split into a
// large and a small part, in three products that leave out small times small (ThreeTf32).
struct Tf32 {};
struct ThreeTf32 {};

template <class Element>
constexpr int kElementBytes = 2;
template <>
constexpr int kElementBytes<Tf32> = 4;
template <>
constexpr int kElementBytes<ThreeTf32> = 4;

template <class Element>
constexpr bool kThreeProducts = false;
template <>
constexpr bool kThreeProducts<ThreeTf32> = true;

template <class Element>
constexpr int kDepth = int(kGroupBytes) / kElementBytes<Element>;  // k of one mma

template <class Element>
constexpr int kPieceColumns = int(kPieceRowBytes) / kElementBytes<Element>;

// d += a b, from operands as they are in memory.
template <class Element>
__device__ __forceinline__ void multiply_add(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
  if constexpr (kElementBytes<Element> == 2) {
    mma<Element>(d, a, b0, b1);
  } else {
    const uint32_t in[6] = {a[0], a[1], a[2], a[3], b0, b1};
    uint32_t large[6], small[6];
#pragma unroll
    for (int i = 0; i < 6; ++i) {
      large[i] = to_tf32(float_from_bits(in[i]));
      small[i] = to_tf32(float_from_bits(in[i]) - float_from_bits(large[i]));
    }
    const uint32_t large_a[4] = {large[0], large[1], large[2], large[3]};
    const uint32_t small_a[4] = {small[0], small[1], small[2], small[3]};
    if constexpr (kThreeProducts<Element>) {
      mma_tf32(d, small_a, large[4], large[5]);
      mma_tf32(d, large_a, small[4], small[5]);
    }
    mma_tf32(d, large_a, large[4], large[5]);
  }
}

// sums += one group of columns of 16 row_tiles rows of a times the same columns of 8 column_tiles rows of b. Both are
// this lane's addresses (fragment_at, fragment_along_at) in a piece.
template <class Element, int row_tiles, int column_tiles>
__device__ __forceinline__ void multiply_along(float (&sums)[row_tiles][column_tiles][4], uint32_t a, uint32_t b) {
  uint32_t a_fragment[row_tiles][4];
#pragma unroll
  for (int r = 0; r < row_tiles; ++r) load_matrices(a_fragment[r], a + r * 16 * kPieceRowBytes);
#pragma unroll
  for (int n = 0; n < column_tiles; n += 2) {
    uint32_t b_fragment[4];
    load_matrices(b_fragment, b + n * 8 * kPieceRowBytes);
#pragma unroll
    for (int r = 0; r < row_tiles; ++r) {
      multiply_add<Element>(sums[r][n], a_fragment[r], b_fragment[0], b_fragment[1]);
      multiply_add<Element>(sums[r][n + 1], a_fragment[r], b_fragment[2], b_fragment[3]);
    }
  }
}

// The same for all groups of pieces a and b, or their first `groups`. a_at and b_at are this lane's offsets in them.
template <class Element, int row_tiles, int column_tiles>
__device__ __forceinline__ void multiply_piece_along(float (&sums)[row_tiles][column_tiles][4], uint32_t a,
                                                     uint32_t a_at, uint32_t b, uint32_t b_at, int groups) {
  const int most = groups < kPieceGroups ? groups : kPieceGroups;
#pragma unroll 2  // one group's fragments load while the other multiplies; more would take too many registers
  for (int i = 0; i < most; ++i)
    multiply_along<Element>(sums, a + (a_at ^ i * kGroupBytes), b + (b_at ^ i * kGroupBytes));
}

// Sums as the A operand of the next product, whose k runs over their columns. With with_relu, which is for
// elements of 16 bits, relu(sums).
template <class Element, int tiles>
using Fragments = uint32_t[tiles * 8 / kDepth<Element>][4];

template <class Element, bool with_relu = false, int tiles>
__device__ __forceinline__ void to_fragments(Fragments<Element, tiles>& to, const float (&sums)[tiles][4]) {
#pragma unroll
  for (int step = 0; step < tiles * 8 / kDepth<Element>; ++step)
#pragma unroll
    for (int j = 0; j < 4; ++j) {
      if constexpr (with_relu)
        to[step][j] = pack2_relu<Element>(sums[2 * step + j / 2][j % 2 * 2], sums[2 * step + j / 2][j % 2 * 2 + 1]);
      else if constexpr (kElementBytes<Element> == 2)
        to[step][j] = pack2<Element>(sums[2 * step + j / 2][j % 2 * 2], sums[2 * step + j / 2][j % 2 * 2 + 1]);
      else  // mma's columns t and t + 4 are columns 2 t and 2 t + 1 here; multiply_down takes its rows in this order
        to[step][j] = bits_from_float(sums[step][j % 2 * 2 + j / 2]);
    }
}

// The same through shared memory, for other warps to load: into 16 rows of a piece from `rows` on, from its 16-byte
// chunk `chunk` on. load_matrices at fragment_at gives what to_fragments gives.
template <class Element, int tiles>
__device__ __forceinline__ void store_fragments(uint32_t rows, int chunk, const float (&sums)[tiles][4], int lane) {
  const int t = lane % 4, g = lane / 4;
#pragma unroll
  for (int n = 0; n < tiles; ++n)
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const float even = sums[n][2 * half], odd = sums[n][2 * half + 1];
      if constexpr (kElementBytes<Element> == 2) {
        store_shared(rows + piece_at(g + 8 * half, chunk + n) + 4 * t, pack2<Element>(even, odd));
      } else {
        store_shared(rows + piece_at(g + 8 * half, chunk + 2 * n) + 4 * t, even);
        store_shared(rows + piece_at(g + 8 * half, chunk + 2 * n + 1) + 4 * t, odd);
      }
    }
}

// sums, from tile `first` on, += a times `count` groups of columns of a piece at b, from `at_group` on (or the first
// `groups` of these), k running down its rows. Tensor cores cut sums off instead of rounding them, so that float32
// operands, whose sums run over all of H or B, are summed apart here and added outside.
template <class Element, bool all_groups, int count = kPieceGroups, int row_tiles, int column_tiles, int steps>
__device__ __forceinline__ void multiply_down(float (&sums)[row_tiles][column_tiles][4],
                                              const uint32_t (&a)[row_tiles][steps][4], int first, int groups,
                                              uint32_t b, int lane, int at_group = 0) {
  if constexpr (kElementBytes<Element> == 2) {
    const uint32_t at = fragment_at(lane) ^ at_group * kGroupBytes;
#pragma unroll
    for (int step = 0; step < steps; ++step)
#pragma unroll
      for (int group = 0; group < count; ++group) {
        if (!all_groups && group >= groups) continue;
        uint32_t b_fragment[4];
        load_matrices_transposed(b_fragment, b + step * kDepth<Element> * kPieceRowBytes + (at ^ group * kGroupBytes));
#pragma unroll
        for (int r = 0; r < row_tiles; ++r) {
          multiply_add<Element>(sums[r][first + 2 * group], a[r][step], b_fragment[0], b_fragment[1]);
          multiply_add<Element>(sums[r][first + 2 * group + 1], a[r][step], b_fragment[2], b_fragment[3]);
        }
      }
  } else {
    const int t = lane % 4, g = lane / 4;
    const uint32_t at = (piece_at(2 * t, g / 4) + g % 4 * 4) ^ at_group * kGroupBytes;
#pragma unroll
    for (int group = 0; group < count; ++group) {
      if (!all_groups && group >= groups) continue;
      float apart[row_tiles][4] = {};
#pragma unroll
      for (int step = 0; step < steps; ++step) {
        const uint32_t from = b + step * kDepth<Element> * kPieceRowBytes;
        const uint32_t even = load_shared<uint32_t>(from + (at ^ group * kGroupBytes));
        // One row further down: a chunk is exchanged with its neighbour.
        const uint32_t odd = load_shared<uint32_t>(from + kPieceRowBytes + (at ^ group * kGroupBytes ^ 16));
#pragma unroll
        for (int r = 0; r < row_tiles; ++r) multiply_add<Element>(apart[r], a[r][step], even, odd);
      }
#pragma unroll
      for (int j = 0; j < 4 * row_tiles; ++j) sums[j / 4][first + group][j % 4] += apart[j / 4][j % 4];
    }
  }
}

}  // namespace mimic
