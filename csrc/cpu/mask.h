// Dropout masks, a tile of 16 rows by 32 units at a time: Philox in vectors of eight lanes.
#pragma once

#include "../common/philox.h"
#include "kernels.h"
#include "simd.h"

namespace mimic {
namespace MIMIC_ISA {

using Words = Vector<uint32_t, 8>;
using Bytes8 = Vector<uint8_t, 8>;
using Halves8 = Vector<uint16_t, 8>;

struct Philox8 {
  Words word[4];
};

// The high and low words of a * m.
MIMIC_INLINE void multiply_wide(Words a, uint32_t m, Words& high, Words& low) {
  using Wide = Vector<uint64_t, 4>;
  Wide even, odd;
  __builtin_memcpy(&even, &a, sizeof(a));
  odd = even >> 32;
  even = (even & 0xFFFFFFFFu) * uint64_t(m);
  odd = odd * uint64_t(m);
  Words e, o;
  __builtin_memcpy(&e, &even, sizeof(e));
  __builtin_memcpy(&o, &odd, sizeof(o));
  low = shuffle<0, 8, 2, 10, 4, 12, 6, 14>(e, o);
  high = shuffle<1, 9, 3, 11, 5, 13, 7, 15>(e, o);
}

MIMIC_INLINE Philox8 philox8(Words lane, uint32_t offset, uint32_t row_tile, uint32_t unit_tile, uint64_t seed) {
  Words c0 = Words{} + offset, c1 = lane, c2 = Words{} + row_tile, c3 = Words{} + unit_tile;
  uint32_t key0 = uint32_t(seed), key1 = uint32_t(seed >> 32);
  for (int round = 0; round < kPhiloxRounds; ++round) {
    Words high0, low0, high1, low1;
    multiply_wide(c0, kPhiloxMul0, high0, low0);
    multiply_wide(c2, kPhiloxMul1, high1, low1);
    c0 = high1 ^ c1 ^ key0, c1 = low1, c2 = high0 ^ c3 ^ key1, c3 = low0;
    key0 += kPhiloxKey0, key1 += kPhiloxKey1;
  }
  return {{c0, c1, c2, c3}};
}

// bytes[unit * unit_stride + row] of one tile; lanes are taken in the order (unit % 8 / 2, row % 8).
MIMIC_INLINE void mask_tile_by_unit(const Mask& m, int64_t row, int64_t unit, uint8_t* bytes, ptrdiff_t unit_stride) {
  for (uint32_t t = 0; t < 4; ++t) {
    const Words lane = Words{0, 4, 8, 12, 16, 20, 24, 28} + t;
    const Philox8 r = philox8(lane, m.offset, uint32_t(row / kMaskRows), uint32_t(unit / kMaskUnits), m.seed);
    MIMIC_UNROLL for (int n = 0; n < 4; ++n) {
      uint8_t* to = bytes + (8 * n + 2 * t) * unit_stride;
      store(to, __builtin_convertvector(r.word[n], Bytes8));
      store(to + unit_stride, __builtin_convertvector(r.word[n] >> 8, Bytes8));
      store(to + 8, __builtin_convertvector(r.word[n] >> 16, Bytes8));
      store(to + unit_stride + 8, __builtin_convertvector(r.word[n] >> 24, Bytes8));
    }
  }
}

// bytes[row * 32 + unit] of one tile; lanes in their own order, so that a word's halves are eight units in a row.
MIMIC_INLINE void mask_tile_by_row(const Mask& m, int64_t row, int64_t unit, uint8_t* bytes) {
  for (int pair = 0; pair < 4; ++pair) {  // rows 2 pair and 2 pair + 1, and the same + 8
    const Words lane = Words{0, 1, 2, 3, 4, 5, 6, 7} + uint32_t(8 * pair);
    const Philox8 r = philox8(lane, m.offset, uint32_t(row / kMaskRows), uint32_t(unit / kMaskUnits), m.seed);
    MIMIC_UNROLL for (int n = 0; n < 4; ++n) {
      MIMIC_UNROLL for (int q = 0; q < 2; ++q) {
        const Halves8 halves = __builtin_convertvector(r.word[n] >> (16 * q), Halves8);
        uint8_t both[16];
        store(both, halves);
        uint8_t* to = bytes + (2 * pair + 8 * q) * kMaskUnits + 8 * n;
        __builtin_memcpy(to, both, 8);
        __builtin_memcpy(to + kMaskUnits, both + 8, 8);
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
