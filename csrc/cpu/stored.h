// A few vectors times a stored matrix: float32 as it is or in panels, bfloat16, int8. Bound by reading the matrix once.
#pragma once

#include <type_traits>

#include "narrow.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int kServed = 16;  // lanes of packed weights

using Served = Vector<float, kServed>;
using ServedInt = Vector<int32_t, kServed>;
using ServedWord = Vector<uint32_t, kServed>;

// As many panels of a matrix at once, for one row, as give chains of sums enough to hide the latency of a multiply-add
// and fit into registers; they are streams of their own, too, which are read faster than one.
constexpr int kPanelsAtOnce = kLanes<float> == kServed ? 4 : 2;

// Vectors that are multiplied with a matrix: as they are, or for int8 as 16-bit integers of 1 / `step`, in two digits
// of 8 bits plus 2^15. A vector that is not finite has step NaN, and so will its products.
struct Digits {
  uint8_t *high, *low;  // (rows, digits_row(size))
  float* step;
};

// Bytes from what is read of panels to what is called for: weights that lie in a cache are read faster without.
MIMIC_INLINE ptrdiff_t ahead_in(int64_t weight_bytes) { return weight_bytes > (8 << 20) ? 16 << 10 : 0; }

MIMIC_INLINE int64_t padded4(int64_t size) { return ceil_div(size, int64_t(4)) * 4; }
MIMIC_INLINE int64_t digits_row(int64_t size) { return ceil_div(size, int64_t(kServed)) * kServed; }

inline void digits_of(int64_t rows, int64_t size, const float* x, int64_t x_row, const Digits& to) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* const v = x + r * x_row;
    const auto values = [=](int64_t i) {
      if (i + kServed <= size) return load<Served>(v + i);
      Served last = {};
      __builtin_memcpy(&last, v + i, size_t(size - i) * sizeof(float));
      return last;
    };
    Served magnitudes = {}, zeros = {};
    for (int64_t i = 0; i < size; i += kServed) {
      const Served a = values(i), magnitude = a < 0 ? -a : a;
      magnitudes = magnitude > magnitudes ? magnitude : magnitudes;
      zeros += a * 0;  // NaN where any value is not finite
    }
    float largest = 0, sum = 0;
    for (int i = 0; i < kServed; ++i) {
      largest = magnitudes[i] > largest ? magnitudes[i] : largest;
      sum += zeros[i];
    }
    const bool tiny = largest < 1e-30f;  // whose inverse may be infinite: taken for zeros
    to.step[r] = (tiny ? 0 : largest / 32767) + sum;
    const float inverse = tiny ? 0 : 32767 / largest;
    for (int64_t i = 0; i < size; i += kServed) {
      const Served scaled = sum == 0 ? values(i) * inverse : Served{};
      const Served half = scaled < 0 ? Served{} - 0.5f : Served{} + 0.5f;
      const ServedInt digit = __builtin_convertvector(scaled + half, ServedInt) + 32768;
      const int64_t at = r * digits_row(size) + i;
      store(to.high + at, __builtin_convertvector(digit >> 8, Vector<uint8_t, kServed>));
      store(to.low + at, __builtin_convertvector(digit & 255, Vector<uint8_t, kServed>));
    }
  }
}

// sum += the four products in each 32-bit word: unsigned bytes of `digits`, signed ones of `weights`.
template <bool kVnni>
MIMIC_INLINE ServedInt dot4(ServedInt sum, uint32_t digits, ServedWord weights) {
#if defined(__AVX512F__)
  if (kVnni) {
    const ServedWord all = ServedWord{} + digits;
    asm("vpdpbusd %2, %1, %0" : "+v"(sum) : "v"(all), "v"(weights));
    return sum;
  }
#endif
  MIMIC_UNROLL for (int j = 0; j < 4; ++j) {
    const ServedInt weight = __builtin_convertvector(weights << (24 - 8 * j), ServedInt) >> 24;
    sum += int32_t(digits >> (8 * j) & 255) * weight;
  }
  return sum;
}

// A whole number of 16 bits from the sums of products of its two digits; `total` is the sum of all weights.
MIMIC_INLINE Served of_digits(ServedInt high, ServedInt low, ServedInt total) {
  return __builtin_convertvector(high - 128 * total, Served) * 256.0f + __builtin_convertvector(low, Served);
}

// Words of four steps for 16 units, the next four steps' `step` values and the next 16 units' `panel` values on.
struct Int8Panels {
  const int8_t* values;
  ptrdiff_t step, panel, ahead;
  const int32_t* total;  // of each unit's values
};

// out (R, P x 16 units), not yet scaled, of rows from r0 on.
template <bool kVnni, int R, int P>
void int8_panels(const Digits& x, int64_t r0, int64_t size, const Int8Panels& M, float* out, ptrdiff_t out_row) {
  ServedInt high[R][P] = {}, low[R][P] = {};
  const int64_t x_row = digits_row(size);
  const uint8_t *const x_high = x.high + r0 * x_row, *const x_low = x.low + r0 * x_row;
  const int8_t* at = M.values;
  for (int64_t i = 0; i < size; i += 4, at += M.step) {
    MIMIC_UNROLL for (int p = 0; p < P; ++p) {
      __builtin_prefetch(at + p * M.panel + M.ahead, 0, 2);
      const ServedWord words = load<ServedWord>(at + p * M.panel);
      MIMIC_UNROLL for (int r = 0; r < R; ++r) {
        high[r][p] = dot4<kVnni>(high[r][p], load<uint32_t>(x_high + r * x_row + i), words);
        low[r][p] = dot4<kVnni>(low[r][p], load<uint32_t>(x_low + r * x_row + i), words);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    const ServedInt total = load<ServedInt>(M.total + p * kServed);
    for (int r = 0; r < R; ++r) {
      store(out + r * out_row + p * kServed, of_digits(high[r][p], low[r][p], total) * x.step[r0 + r]);
    }
  }
}

// The two bfloat16 of each of 16 words.
struct TwoBf16 {
  Served below, above;
};
MIMIC_INLINE TwoBf16 two_bf16(const uint32_t* p) {
  const ServedWord words = load<ServedWord>(p);
  return {same_bits<Served>(words << 16), same_bits<Served>(words & 0xFFFF0000u)};
}

// out (R, 32 units) from a panel [size][32].
template <int R>
void float_panel(const float* x, ptrdiff_t x_row, int64_t size, const float* panel, ptrdiff_t ahead, float* out,
                 ptrdiff_t out_row) {
  Served first[R] = {}, second[R] = {};
  for (int64_t i = 0; i < size; ++i, panel += kPanel) {
    const float* const next = panel + ahead / ptrdiff_t(sizeof(float));
    __builtin_prefetch(next, 0, 2);
    __builtin_prefetch(next + kServed, 0, 2);
    MIMIC_UNROLL for (int r = 0; r < R; ++r) {
      first[r] += x[r * x_row + i] * load<Served>(panel);
      second[r] += x[r * x_row + i] * load<Served>(panel + kServed);
    }
  }
  for (int r = 0; r < R; ++r) {
    store(out + r * out_row, first[r]);
    store(out + r * out_row + kServed, second[r]);
  }
}

// out (R, 32 units) from a panel [size][16 words]; a word holds unit i below and unit i + 16 above. Steps take turns in
// chains of sums, as many as fit into registers.
template <int R>
void bf16_panel(const float* x, ptrdiff_t x_row, int64_t size, const uint32_t* panel, ptrdiff_t ahead, float* out,
                ptrdiff_t out_row) {
  constexpr int kChains = kLanes<float> == kServed ? 2 : 1;
  Served below[kChains][R] = {}, above[kChains][R] = {};
  const auto add = [&](int chain, int64_t i) {
    __builtin_prefetch(panel + i * kServed + ahead / ptrdiff_t(sizeof(uint32_t)), 0, 2);
    const TwoBf16 weights = two_bf16(panel + i * kServed);
    MIMIC_UNROLL for (int r = 0; r < R; ++r) {
      below[chain][r] += x[r * x_row + i] * weights.below;
      above[chain][r] += x[r * x_row + i] * weights.above;
    }
  };
  int64_t i = 0;
  for (; i + kChains <= size; i += kChains) {
    MIMIC_UNROLL for (int chain = 0; chain < kChains; ++chain) add(chain, i + chain);
  }
  for (; i < size; ++i) add(0, i);
  for (int r = 0; r < R; ++r) {
    for (int chain = 1; chain < kChains; ++chain) below[0][r] += below[chain][r], above[0][r] += above[chain][r];
    store(out + r * out_row, below[0][r]);
    store(out + r * out_row + kServed, above[0][r]);
  }
}

// f(r) for all rows: four at a time, then two, then one.
template <class Four, class Two, class One>
MIMIC_INLINE void each_few(int64_t rows, Four four, Two two, One one) {
  int64_t r = 0;
  for (; r + 4 <= rows; r += 4) four(r);
  for (; r + 2 <= rows; r += 2) two(r);
  for (; r < rows; ++r) one(r);
}

// out (rows, units rounded up to 32) = x M^T of the columns [first, first + steps); M is (any, size) in float32.
inline void float_products(bool panels, ptrdiff_t ahead, int64_t rows, const float* x, int64_t size, int64_t first,
                           int64_t steps, const float* M, int64_t begin, int64_t units, float* out, ptrdiff_t out_row) {
  if (!panels)
    return narrow_products(rows, x + first, size, M + begin * size + first, size, steps, units, out, out_row);
  for (int64_t u = 0; u < units; u += kPanel) {
    const float* const panel = M + (begin + u) * size + first * kPanel;
    const auto go = [&](auto kernel) {
      return
          [=](int64_t r) { kernel(x + r * size + first, size, steps, panel, ahead, out + r * out_row + u, out_row); };
    };
    each_few(rows, go(float_panel<4>), go(float_panel<2>), go(float_panel<1>));
  }
}

// out (rows, units from `begin`, rounded up to 32) = x M^T; M is (any, size) in int8.
template <bool kVnni>
void int8_products(ptrdiff_t ahead, int64_t rows, const Digits& x, int64_t size, const StoredMatrix& M, int64_t begin,
                   int64_t units, float* out, ptrdiff_t out_row) {
  const int64_t panel = padded4(size) * kServed, many = kPanelsAtOnce * kServed;
  const auto multiply = [&](auto kernel, int64_t r, int64_t u) {
    const int8_t* const values = static_cast<const int8_t*>(M.values) + (begin + u) / kServed * panel;
    kernel(x, r, size, {values, 4 * kServed, panel, ahead, M.total + begin + u}, out + r * out_row + u, out_row);
  };
  for (int64_t u = 0; u < units; u += many) {
    const int64_t end = least(u + many, units);
    const auto one_panel = [&](auto kernel) {
      return [&, kernel](int64_t r) {
        for (int64_t v = u; v < end; v += kServed) multiply(kernel, r, v);
      };
    };
    const auto one_row = [&](int64_t r) {
      u + many <= end ? multiply(int8_panels<kVnni, 1, kPanelsAtOnce>, r, u) : one_panel(int8_panels<kVnni, 1, 1>)(r);
    };
    each_few(rows, one_panel(int8_panels<kVnni, 4, 1>), one_panel(int8_panels<kVnni, 2, 1>), one_row);
  }
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t u = 0; u < units; ++u) out[r * out_row + u] *= M.scale[begin + u];
  }
}

// out (rows, units from `begin`, rounded up to 32) = x M^T; M is (any, size), `begin` a multiple of 32. In float32 sums
// longer than `depth` are made in such runs, for which `out` has room a second time.
template <bool kVnni>
void stored_products(Storage storage, ptrdiff_t ahead, int64_t rows, const float* x, int64_t size, int64_t depth,
                     const Digits& digits, const StoredMatrix& M, int64_t begin, int64_t units, float* out,
                     ptrdiff_t out_row) {
  if (storage == Storage::float32 || storage == Storage::panels) {
    float* to = out;
    for (int64_t s = 0; s < size; s += depth, to = out + rows * out_row) {
      const int64_t steps = least(depth, size - s);
      float_products(storage == Storage::panels, ahead, rows, x, size, s, steps, static_cast<const float*>(M.values),
                     begin, units, to, out_row);
      for (int64_t r = 0; s > 0 && r < rows; ++r) {
        for (int64_t u = 0; u < units; ++u) out[r * out_row + u] += to[r * out_row + u];
      }
    }
  } else if (storage == Storage::bfloat16) {
    for (int64_t u = 0; u < units; u += kPanel) {
      const uint32_t* const panel = static_cast<const uint32_t*>(M.values) + (begin + u) / 2 * size;
      const auto go = [&](auto kernel) {
        return [=](int64_t r) { kernel(x + r * size, size, size, panel, ahead, out + r * out_row + u, out_row); };
      };
      each_few(rows, go(bf16_panel<4>), go(bf16_panel<2>), go(bf16_panel<1>));
    }
  } else {
    int8_products<kVnni>(ahead, rows, digits, size, M, begin, units, out, out_row);
  }
}

// y[c] = sum over units of h[u] W[u][c] for 16 V columns from `begin` on and N slabs; rows of W are whole vectors.
// Words hold two units, of which the second may not be there.
template <class E, int N, int V>
void served_columns(int64_t units, const Streams<float, E>& s, int64_t W_row, int64_t begin) {
  constexpr bool kWords = sizeof(E) == sizeof(uint32_t) && std::is_integral<E>::value;
  constexpr int kUnits = kWords ? 2 : 1;
  const int64_t ahead = ceil_div(kBytesAhead, W_row * int64_t(sizeof(E))) * W_row;
  Served sum[N][V] = {};
  for (int64_t u = 0; u < units; u += kUnits) {
    MIMIC_UNROLL for (int n = 0; n < N; ++n) {
      const E* const W = s.W[n] + u / kUnits * W_row + begin;
      const float h = s.h[n][u], next_h = u + 1 < units ? s.h[n][u + 1] : 0;
      MIMIC_UNROLL for (int j = 0; j < V; ++j) __builtin_prefetch(W + ahead + j * kServed, 0, 2);
      MIMIC_UNROLL for (int j = 0; j < V; ++j) {
        if constexpr (kWords) {
          const TwoBf16 weights = two_bf16(W + j * kServed);
          sum[n][j] += h * weights.below;
          sum[n][j] += next_h * weights.above;
        } else {
          sum[n][j] += h * load<Served>(W + j * kServed);
        }
      }
    }
  }
  for (int n = 0; n < N; ++n) {
    MIMIC_UNROLL for (int j = 0; j < V; ++j) store(s.y[n] + begin + j * kServed, sum[n][j]);
  }
}

template <class E, int N>
void served_outputs_of(int64_t units, const Streams<float, E>& s, int64_t W_row) {
  for (int64_t c = 0; c < W_row;) {
    const auto go = [&](auto kernel, int64_t vectors) {
      for (; c + vectors * kServed <= W_row; c += vectors * kServed) kernel(units, s, W_row, c);
    };
    if constexpr (kLanes<float> == kServed) go(served_columns<E, N, 12>, 12);
    go(served_columns<E, N, 6>, 6);
    go(served_columns<E, N, 3>, 3);
    go(served_columns<E, N, 1>, 1);
  }
}

template <class E>
void served_outputs(int64_t units, bool pair, const Streams<float, E>& s, int64_t W_row) {
  pair ? served_outputs_of<E, 2>(units, s, W_row) : served_outputs_of<E, 1>(units, s, W_row);
}

// y (C rounded up to 16) = h W over one slab of W in int8, by digits of h.
template <bool kVnni>
void int8_outputs(const Slab& slab, int64_t slab_size, const float* h, const StoredMatrix& W, int64_t W_row, float* y) {
  alignas(64) uint8_t high[kMostServedUnits], low[kMostServedUnits];
  float step;
  const Digits digits = {high, low, &step};
  digits_of(1, slab.units, h, slab.units, digits);
  const int8_t* const values = static_cast<const int8_t*>(W.values) + slab.begin * W_row;
  const int32_t* const total = W.total + slab.begin / slab_size * W_row;
  const ptrdiff_t ahead = ceil_div(kBytesAhead, 4 * W_row) * 4 * W_row;
  for (int64_t c = 0; c < W_row;) {
    const auto go = [&](auto kernel, int64_t vectors) {
      for (; c + vectors * kServed <= W_row; c += vectors * kServed) {
        kernel(digits, 0, slab.units, {values + 4 * c, 4 * W_row, 4 * kServed, ahead, total + c}, y + c, 0);
      }
    };
    if constexpr (kLanes<float> == kServed) go(int8_panels<kVnni, 1, 12>, 12);
    go(int8_panels<kVnni, 1, 4>, 4);
    go(int8_panels<kVnni, 1, 1>, 1);
  }
}

// y (slabs, rows, C rounded up to 16) = h W over one slab, or a `pair` that begins with it; h is (slabs, rows, h_row).
template <bool kVnni>
void stored_outputs(Storage storage, int64_t rows, const Slab& slab, int64_t slab_size, bool pair,
                    const StoredMatrix& W, int64_t C, float* h, ptrdiff_t h_row, float* y) {
  const int64_t row = ceil_div(C, int64_t(kServed)) * kServed, h_slab = rows * h_row, y_slab = rows * row;
  const auto outputs = [&](auto multiply, const auto* values, int64_t W_row, int64_t units = 1) {  // in a row of W
    values += slab.begin / units * W_row;
    multiply(slab.units, pair, {{h, h + h_slab}, {values, values + slab.units / units * W_row}, {y, y + y_slab}},
             W_row);
  };
  for (int64_t r = 0; r < rows; ++r, h += h_row, y += row) {
    if (storage == Storage::float32) {
      outputs(narrow_outputs<float>, static_cast<const float*>(W.values), C);
    } else if (storage == Storage::panels) {
      outputs(served_outputs<float>, static_cast<const float*>(W.values), row);
    } else if (storage == Storage::bfloat16) {
      outputs(served_outputs<uint32_t>, static_cast<const uint32_t*>(W.values), row, 2);
    } else {
      for (int n = 0; n <= int(pair); ++n) {
        const Slab here = {slab.begin + n * slab.units, slab.units};
        for (int64_t u = 0; u < slab.units; ++u) h[n * h_slab + u] *= W.scale[here.begin + u];
        int8_outputs<kVnni>(here, slab_size, h + n * h_slab, W, row, y + n * y_slab);
      }
    }
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
