// Dropout masks, a tile of 16 rows by 32 units at a time: Philox in vectors.
#pragma once

#include "common/philox.h"
#include "cpu/kernels.h"
#include "cpu/vector/simd.h"

namespace mimic {
namespace MIMIC_ISA {

using Words = Vector<uint32_t>;
using Wide = Vector<uint64_t>;  // a lane holds a word in its lower half; its upper half is ignored
constexpr int kWords = kLanes<uint32_t>;

struct Random {
  Words word[4];
};

// Products of the lower halves. In asm, because compilers multiply all 64 bits, in three instructions or more.
MIMIC_INLINE Wide low_products(Wide a, Wide b) {
#if defined(__AVX2__)
  Wide product;
  asm("vpmuludq %2, %1, %0" : "=v"(product) : "v"(a), "v"(b));
  return product;
#else
  return (a & 0xFFFFFFFFu) * (b & 0xFFFFFFFFu);
#endif
}

// philox4x32 of common/philox.h, for every other lane. The two halves of a product are two words of the next round.
struct Philox {
  Wide c0, c1, c2, c3;

  void round(uint32_t key0, uint32_t key1) {
    const Wide p0 = low_products(c0, Wide{} + kPhiloxMul0), p1 = low_products(c2, Wide{} + kPhiloxMul1);
    c0 = upper(p1) ^ c1 ^ key0, c1 = p1, c2 = upper(p0) ^ c3 ^ key1, c3 = p0;
  }
  static Wide upper(Wide p) {  // by a shuffle, because shifts share a port with products
    const Words words = same_bits<Words>(p);
    return same_bits<Wide>(shuffle_sixteens<1, 1, 3, 3>(words, words));
  }
};

MIMIC_INLINE Random philox(Words lane, const Mask& m, int64_t row, int64_t unit) {
  const Wide offset = Wide{} + m.offset, rows = Wide{} + uint32_t(row / kMaskRows),
             units = Wide{} + uint32_t(unit / kMaskUnits), lanes = same_bits<Wide>(lane);
  Philox even = {offset, lanes, rows, units}, odd = {offset, lanes >> 32, rows, units};
  uint32_t key0 = uint32_t(m.seed), key1 = uint32_t(m.seed >> 32);
  MIMIC_UNROLL for (int round = 0; round < kPhiloxRounds; ++round) {
    even.round(key0, key1), odd.round(key0, key1);
    key0 += kPhiloxKey0, key1 += kPhiloxKey1;
  }
  const auto word = [](Wide low, Wide high) { return same_bits<Words>((low & 0xFFFFFFFFu) | high << 32); };
  return {{word(even.c0, odd.c0), word(even.c1, odd.c1), word(even.c2, odd.c2), word(even.c3, odd.c3)}};
}

// bytes[unit * unit_stride + row] of one tile. Sixteen neighbouring bytes that are drawn belong to four rows and a pair
// of units; their words hold (row, unit), (row, unit + 1), (row + 8, unit) and (row + 8, unit + 1).
MIMIC_INLINE void mask_tile_by_unit(const Mask& m, int64_t row, int64_t unit, uint8_t* bytes, ptrdiff_t unit_stride) {
  static constexpr uint32_t lanes[] = {0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15};
  for (int at = 0; at < 16; at += kWords) {
    const Words lane = load<Words>(lanes + at);
    const Random first = philox(lane, m, row, unit), second = philox(lane + 16, m, row, unit);
    MIMIC_UNROLL for (int n = 0; n < 4; ++n) {
      const auto by_unit = [](Words words) {
        const auto p = same_bits<Vector<uint8_t>>(words);
        return same_bits<Words>(shuffle_sixteens<0, 4, 8, 12, 2, 6, 10, 14, 1, 5, 9, 13, 3, 7, 11, 15>(p, p));
      };
      const Words low = by_unit(first.word[n]), high = by_unit(second.word[n]);
      uint8_t* const to = bytes + (8 * n + at / 2) * unit_stride;
      store_sixteens(shuffle_sixteens<0, 4, 1, 5>(low, high), to, 2 * unit_stride);
      store_sixteens(shuffle_sixteens<2, 6, 3, 7>(low, high), to + unit_stride, 2 * unit_stride);
    }
  }
}

// bytes[row * row_stride + unit] of one tile. Sixteen neighbouring bytes that are drawn belong to eight units of two
// rows, row and row + 8.
MIMIC_NOINLINE inline void mask_tile_by_row(const Mask& m, int64_t row, int64_t unit, uint8_t* bytes,
                                            ptrdiff_t row_stride) {
  static constexpr uint32_t lanes[] = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
  for (uint32_t at = 0; at < 32; at += kWords) {
    const Random r = philox(load<Words>(lanes) + at, m, row, unit);
    MIMIC_UNROLL for (int n = 0; n < 4; n += 2) {
      const auto by_row = [](Words words) {
        const auto p = same_bits<Vector<uint16_t>>(words);
        return same_bits<Wide>(shuffle_sixteens<0, 2, 4, 6, 1, 3, 5, 7>(p, p));
      };
      const Wide left = by_row(r.word[n]), right = by_row(r.word[n + 1]);
      uint8_t* const to = bytes + at / 4 * row_stride + 8 * n;
      store_sixteens(shuffle_sixteens<0, 2>(left, right), to, row_stride);
      store_sixteens(shuffle_sixteens<1, 3>(left, right), to + 8 * row_stride, row_stride);
    }
  }
}

// bytes[u][row] for `units` units from u0 and the 32 rows of a panel; room for whole tiles of units is needed.
MIMIC_NOINLINE inline void mask_panel(const Mask& m, int64_t row, int64_t u0, int64_t units, uint8_t* bytes) {
  for (int64_t u = 0; u < units; u += kMaskUnits) {
    for (int half = 0; half < kPanel; half += kMaskRows) {
      mask_tile_by_unit(m, m.row + row + half, m.unit + u0 + u, bytes + u * kPanel + half, kPanel);
    }
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
