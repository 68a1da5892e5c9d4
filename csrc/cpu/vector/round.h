// Matrices rounded to bfloat16, as the microkernel takes pairs: along rows (two columns of one row in a word) or down
// columns (two rows of one column). Sources are float32 or bfloat16 already.
#pragma once

#include "common/bfloat16.h"
#include "cpu/kernels.h"
#include "cpu/vector/pack.h"
#include "cpu/vector/pairs.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int kRounded = 16;
using Bf16Words = Vector<uint32_t, kRounded>;  // bfloat16 in the upper halves

MIMIC_INLINE Bf16Words rounded(Bf16Words bits) {
  const Bf16Words to_even = (bits + 0x7FFFu + (bits >> 16 & 1u)) & 0xFFFF0000u;
  const auto nan = (bits & 0x7FFFFFFFu) > 0x7F800000u;
  return nan ? (bits | 0x400000u) & 0xFFFF0000u : to_even;
}
MIMIC_INLINE Bf16Words rounded(const float* p) { return rounded(load<Bf16Words>(p)); }
MIMIC_INLINE Bf16Words rounded(Vector<float, kRounded> x) { return rounded(same_bits<Bf16Words>(x)); }
MIMIC_INLINE Bf16Words rounded(const uint16_t* p) {
  return __builtin_convertvector(load<Vector<uint16_t, kRounded>>(p), Bf16Words) << 16;
}
MIMIC_INLINE uint32_t rounded_one(const float* p) { return uint32_t(bfloat16_from(*p)) << 16; }
MIMIC_INLINE uint32_t rounded_one(const uint16_t* p) { return uint32_t(*p) << 16; }

// 32 values as 16 words: those of `first` in order, then those of `second`; both are vectors of float32, or pointers.
template <class E, class S>
MIMIC_NOINLINE Vector<uint16_t, 2 * kRounded> rounded_both(S first, S second) {
  using Half = Vector<uint16_t, kRounded>;
  Vector<uint16_t, 2 * kRounded> both;
  Half halves[2] = {__builtin_convertvector(rounded(first) >> 16, Half),
                    __builtin_convertvector(rounded(second) >> 16, Half)};
  __builtin_memcpy(&both, halves, sizeof(both));
  return both;
}
#if defined(__AVX512F__)
template <>
MIMIC_INLINE Vector<uint16_t, 2 * kRounded> rounded_both<NativePair>(Vector<float, kRounded> first,
                                                                     Vector<float, kRounded> second) {
  Vector<uint16_t, 2 * kRounded> both;
  asm("vcvtne2ps2bf16 %1, %2, %0" : "=v"(both) : "v"(first), "v"(second));
  return both;
}
template <>
MIMIC_INLINE Vector<uint16_t, 2 * kRounded> rounded_both<NativePair>(const float* first, const float* second) {
  return rounded_both<NativePair>(load<Vector<float, kRounded>>(first), load<Vector<float, kRounded>>(second));
}
#endif

// The values of its two halves in turn.
MIMIC_INLINE Vector<uint16_t, 2 * kRounded> interleaved(Vector<uint16_t, 2 * kRounded> both) {
  return shuffle<0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29,
                 14, 30, 15, 31>(both, both);
}

// to[i] = the word of from[2 i] and from[2 i + 1]; a last one alone goes with a zero.
template <class E, class S>
MIMIC_INLINE void round_along(ptrdiff_t n, const S* from, uint32_t* to) {
  ptrdiff_t i = 0;
  for (; i + 2 * kRounded <= n; i += 2 * kRounded) store(to + i / 2, rounded_both<E>(from + i, from + i + kRounded));
  for (; i < n; i += 2) to[i / 2] = rounded_one(from + i) >> 16 | (i + 1 < n ? rounded_one(from + i + 1) : 0);
}

// to[i] = the word of first[i] and second[i]; `second` may be null, for zeros.
template <class E, class S>
MIMIC_INLINE void round_down(ptrdiff_t n, const S* first, const S* second, uint32_t* to) {
  ptrdiff_t i = 0;
  for (; second && i + kRounded <= n; i += kRounded) {
    store(to + i, interleaved(rounded_both<E>(first + i, second + i)));
  }
  for (; i < n; ++i) to[i] = rounded_one(first + i) >> 16 | (second ? rounded_one(second + i) : 0);
}

MIMIC_INLINE float value_of(float x) { return x; }
MIMIC_INLINE float value_of(uint16_t x) { return float_from(x); }

// The sum of bfloat16, a line of sixteen pairs at a time, in a fixed order.
class PairSum {
 public:
  MIMIC_INLINE void add(const uint32_t* line) {
    const Bf16Words words = load<Bf16Words>(line);
    low_ += same_bits<Sums>(words << 16);
    high_ += same_bits<Sums>(words & 0xFFFF0000u);
  }
  float total() const {
    const Sums both = low_ + high_;
    float sum = 0;
    for (int lane = 0; lane < kRounded; ++lane) sum += both[lane];
    return sum;
  }

 private:
  using Sums = Vector<float, kRounded>;
  Sums low_ = {}, high_ = {};
};

// sums[i] (+)= sum over the 32 rows of each tile of unit i: [tile][unit][16 pairs of rows].
MIMIC_INLINE void sum_pairs(const uint32_t* tiles, int64_t units, int64_t count, ptrdiff_t stride, bool add,
                            float* sums) {
  for (int64_t u = 0; u < units; ++u) {
    PairSum sum;
    for (int64_t i = 0; i < count; ++i) sum.add(tiles + i * stride + u * kPanel / 2);
    sums[u] = add ? sums[u] + sum.total() : sum.total();
  }
}

// Calls f with a pointer to the source's values, whichever their type.
template <class F>
MIMIC_INLINE void with_source(const Source& source, F f) {
  source.bfloat16 ? f(static_cast<const uint16_t*>(source.values)) : f(static_cast<const float*>(source.values));
}

MIMIC_INLINE int64_t pairs_of(int64_t n) { return (n + 1) / 2; }

// Rows [begin, end) of M (rows, columns), begin even: along into [row][pairs], down into [row / 2][columns].
template <class E>
MIMIC_NOINLINE void round_rows(const Source& M, int64_t rows, int64_t columns, int64_t begin, int64_t end,
                               uint32_t* along, uint32_t* down) {
  with_source(M, [&](const auto* values) {
    for (int64_t i = begin; i < end; ++i) {
      const auto* const row = values + i * columns;
      if (along) round_along<E>(columns, row, along + (i - begin) * pairs_of(columns));
      if (down && i % 2 == 0) {
        round_down<E>(columns, row, i + 1 < rows ? row + columns : nullptr, down + (i - begin) / 2 * columns);
      }
    }
  });
}

// Up to 32 rows as columns of a panel: [pairs of columns][32], words along rows. `words` has room for the rows' words.
template <class E>
MIMIC_NOINLINE void round_panel(const Source& M, int64_t rows, int64_t columns, int64_t row, uint32_t* words,
                                uint32_t* panel) {
  const int here = int(least(rows - row, int64_t(kPanel)));
  round_rows<E>(M, rows, columns, row, row + here, words, nullptr);
  pack_transposed(words, pairs_of(columns), here, pairs_of(columns), panel);
}

// Up to 32 rows as steps of panels of columns: [columns / 32] panels, `panel_stride` apart, of [16 pairs of rows][32].
template <class E>
MIMIC_NOINLINE void round_steps(const Source& M, int64_t rows, int64_t columns, int64_t row, ptrdiff_t panel_stride,
                                uint32_t* panels) {
  with_source(M, [&](const auto* values) {
    for (int64_t j = 0; j < columns; j += kPanel) {
      const int width = int(least(columns - j, int64_t(kPanel)));
      uint32_t* const to = panels + j / kPanel * panel_stride;
      __builtin_memset(to, 0, kPanel / 2 * kPanel * sizeof(uint32_t));
      for (int64_t i = 0; i < kPanel && row + i < rows; i += 2) {
        const auto* const first = values + (row + i) * columns + j;
        round_down<E>(width, first, row + i + 1 < rows ? first + columns : nullptr, to + i / 2 * kPanel);
      }
    }
  });
}

// The tile of one slab and panel, from float32: [unit][16 pairs of rows] and [pair of units][32 rows].
template <class E>
MIMIC_NOINLINE void round_tile(int64_t units, const float* tile, uint32_t* along, uint32_t* down) {
  for (int64_t u = 0; u < units; ++u) {
    const float* const row = tile + u * kPanel;
    if (along) round_along<E>(kPanel, row, along + u * kPanel / 2);
    if (down && u % 2 == 0) round_down<E>(kPanel, row, u + 1 < units ? row + kPanel : nullptr, down + u / 2 * kPanel);
  }
}

// dc (C) = sums of dy (B, C) over its rows, as they came.
MIMIC_INLINE void sum_rows(const Source& dy, int64_t B, int64_t C, float* dc) {
  with_source(dy, [&](const auto* values) {
    for (int64_t j = 0; j < C; ++j) dc[j] = 0;
    for (int64_t i = 0; i < B; ++i) {
      for (int64_t j = 0; j < C; ++j) dc[j] += value_of(values[i * C + j]);
    }
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
