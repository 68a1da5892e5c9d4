// Dropout masks, a tile of 16 rows by 32 units at a time: Philox in vectors of sixteen lanes.
#pragma once

#include "../common/philox.h"
#include "kernels.h"
#include "simd.h"

namespace mimic {
namespace MIMIC_ISA {

using Words = Vector<uint32_t, 16>;
using Bytes16 = Vector<uint8_t, 16>;
using Halves16 = Vector<uint16_t, 16>;

struct Philox16 {
  Words word[4];
};

// The high words of a * m: products of even and of odd lanes, each where its high word belongs.
MIMIC_INLINE Words multiply_high(Words a, uint32_t m) {
  using Wide = Vector<uint64_t, 8>;
  Wide wide;
  __builtin_memcpy(&wide, &a, sizeof(a));
  const Wide even = (wide & 0xFFFFFFFFu) * uint64_t(m), odd = (wide >> 32) * uint64_t(m);
  const Wide high = (even >> 32) | (odd & 0xFFFFFFFF00000000u);
  Words result;
  __builtin_memcpy(&result, &high, sizeof(high));
  return result;
}

MIMIC_INLINE Philox16 philox16(Words lane, const Mask& m, int64_t row, int64_t unit) {
  Words c0 = Words{} + m.offset, c1 = lane;
  Words c2 = Words{} + uint32_t(row / kMaskRows), c3 = Words{} + uint32_t(unit / kMaskUnits);
  uint32_t key0 = uint32_t(m.seed), key1 = uint32_t(m.seed >> 32);
  MIMIC_UNROLL for (int round = 0; round < kPhiloxRounds; ++round) {
    const Words high0 = multiply_high(c0, kPhiloxMul0), high1 = multiply_high(c2, kPhiloxMul1);
    const Words low0 = c0 * kPhiloxMul0, low1 = c2 * kPhiloxMul1;
    c0 = high1 ^ c1 ^ key0, c1 = low1, c2 = high0 ^ c3 ^ key1, c3 = low0;
    key0 += kPhiloxKey0, key1 += kPhiloxKey1;
  }
  return {{c0, c1, c2, c3}};
}

// bytes[unit * unit_stride + row] of one tile; lanes are taken in the order (unit % 8 / 2, row % 8).
MIMIC_INLINE void mask_tile_by_unit(const Mask& m, int64_t row, int64_t unit, uint8_t* bytes, ptrdiff_t unit_stride) {
  for (uint32_t t = 0; t < 4; t += 2) {
    const Words lane = Words{0, 4, 8, 12, 16, 20, 24, 28, 1, 5, 9, 13, 17, 21, 25, 29} + t;
    const Philox16 r = philox16(lane, m, row, unit);
    MIMIC_UNROLL for (int n = 0; n < 4; ++n) {
      MIMIC_UNROLL for (int j = 0; j < 4; ++j) {  // byte j: unit j % 2 of the lane's two, row + 8 (j / 2)
        uint8_t two[16];
        store(two, __builtin_convertvector(r.word[n] >> (8 * j), Bytes16));
        uint8_t* const to = bytes + (8 * n + 2 * t + j % 2) * unit_stride + 8 * (j / 2);
        __builtin_memcpy(to, two, 8);
        __builtin_memcpy(to + 2 * unit_stride, two + 8, 8);
      }
    }
  }
}

// bytes[row * row_stride + unit] of one tile; lanes in their own order, so that a word's halves are eight units in a
// row.
MIMIC_INLINE void mask_tile_by_row(const Mask& m, int64_t row, int64_t unit, uint8_t* bytes, ptrdiff_t row_stride) {
  for (int first = 0; first < 8; first += 4) {  // rows first to first + 3, and the same + 8
    const Words lane = Words{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15} + uint32_t(4 * first);
    const Philox16 r = philox16(lane, m, row, unit);
    MIMIC_UNROLL for (int n = 0; n < 4; ++n) {
      MIMIC_UNROLL for (int q = 0; q < 2; ++q) {
        uint8_t four[32];
        store(four, __builtin_convertvector(r.word[n] >> (16 * q), Halves16));
        uint8_t* const to = bytes + (first + 8 * q) * row_stride + 8 * n;
        MIMIC_UNROLL for (int i = 0; i < 4; ++i) __builtin_memcpy(to + i * row_stride, four + 8 * i, 8);
      }
    }
  }
}

// bytes[u][row] for `units` units from u0 and the 32 rows of a panel; room for whole tiles of units is needed.
inline void mask_panel(const Mask& m, int64_t row, int64_t u0, int64_t units, uint8_t* bytes) {
  for (int64_t u = 0; u < units; u += kMaskUnits) {
    for (int half = 0; half < kPanel; half += kMaskRows) {
      mask_tile_by_unit(m, m.row + row + half, m.unit + u0 + u, bytes + u * kPanel + half, kPanel);
    }
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
