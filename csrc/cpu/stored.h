// A few vectors times a stored matrix: float32 as it is or in panels, bfloat16, int8. Bound by reading the matrix once.
#pragma once

#include "narrow.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int kServed = 16;  // lanes of packed weights

using Served = Vector<float, kServed>;
using ServedInt = Vector<int32_t, kServed>;
using ServedWord = Vector<uint32_t, kServed>;

// Vectors that are multiplied with a matrix: as they are, or for int8 as 16-bit integers of 1 / `step`, in two digits
// of 8 bits plus 2^15. A vector that is not finite has step NaN, and so will its products.
struct Digits {
  uint8_t *high, *low;  // (rows, size rounded up to 4)
  float* step;
};

MIMIC_INLINE int64_t padded4(int64_t size) { return ceil_div(size, int64_t(4)) * 4; }

inline void digits_of(int64_t rows, int64_t size, const float* x, int64_t x_row, const Digits& to) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* const v = x + r * x_row;
    float largest = 0, sum = 0;
    for (int64_t i = 0; i < size; ++i) {
      const float a = __builtin_fabsf(v[i]);
      largest = a > largest ? a : largest;
      sum += v[i] * 0;  // NaN where any value is not finite
    }
    const bool tiny = largest < 1e-30f;  // whose inverse may be infinite: taken for zeros
    const float step = tiny ? 0 : largest / 32767, inverse = tiny ? 0 : 32767 / largest;
    to.step[r] = step + sum;
    for (int64_t i = 0; i < padded4(size); ++i) {
      const float scaled = i < size && sum == 0 ? v[i] * inverse : 0;
      const int32_t digit = int32_t(scaled + (scaled < 0 ? -0.5f : 0.5f)) + 32768;
      to.high[r * padded4(size) + i] = uint8_t(digit >> 8);
      to.low[r * padded4(size) + i] = uint8_t(digit & 255);
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

// out (R, 16 units) from a panel [size / 4][16 units][4].
template <bool kVnni, int R>
void int8_panel(const Digits& x, int64_t r0, int64_t size, const int8_t* panel, const float* scale,
                const int32_t* total, float* out, ptrdiff_t out_row) {
  ServedInt high[R] = {}, low[R] = {};
  const int64_t words = padded4(size) / 4;
  for (int64_t p = 0; p < words; ++p) {
    __builtin_prefetch(panel + p * 64 + 8192, 0, 2);
    const ServedWord weights = load<ServedWord>(panel + p * 64);
    MIMIC_UNROLL for (int r = 0; r < R; ++r) {
      uint32_t h, l;
      __builtin_memcpy(&h, x.high + ((r0 + r) * words + p) * 4, 4);
      __builtin_memcpy(&l, x.low + ((r0 + r) * words + p) * 4, 4);
      high[r] = dot4<kVnni>(high[r], h, weights);
      low[r] = dot4<kVnni>(low[r], l, weights);
    }
  }
  const Served step = load<Served>(scale);
  const ServedInt all = load<ServedInt>(total);
  for (int r = 0; r < R; ++r) {
    const Served digits =
        __builtin_convertvector(high[r] - 128 * all, Served) * 256.0f + __builtin_convertvector(low[r], Served);
    store(out + r * out_row, digits * (step * x.step[r0 + r]));
  }
}

// out (R, 32 units) from a panel [size][32].
template <int R>
void float_panel(const float* x, ptrdiff_t x_row, int64_t size, const float* panel, float* out, ptrdiff_t out_row) {
  Served first[R] = {}, second[R] = {};
  for (int64_t p = 0; p < size; ++p, panel += 2 * kServed) {
    __builtin_prefetch(panel + 4096, 0, 2);
    __builtin_prefetch(panel + 4096 + kServed, 0, 2);
    MIMIC_UNROLL for (int r = 0; r < R; ++r) {
      first[r] += x[r * x_row + p] * load<Served>(panel);
      second[r] += x[r * x_row + p] * load<Served>(panel + kServed);
    }
  }
  for (int r = 0; r < R; ++r) {
    store(out + r * out_row, first[r]);
    store(out + r * out_row + kServed, second[r]);
  }
}

// out (R, 32 units) from a panel [size][16 words]; a word holds unit i below and unit i + 16 above.
template <int R>
void bf16_panel(const float* x, ptrdiff_t x_row, int64_t size, const uint32_t* panel, float* out, ptrdiff_t out_row) {
  Served below[R] = {}, above[R] = {};
  for (int64_t p = 0; p < size; ++p) {
    __builtin_prefetch(panel + p * kServed + 4096, 0, 2);
    const ServedWord words = load<ServedWord>(panel + p * kServed);
    const Served first = same_bits<Served>(words << 16), second = same_bits<Served>(words & 0xFFFF0000u);
    MIMIC_UNROLL for (int r = 0; r < R; ++r) {
      below[r] += x[r * x_row + p] * first;
      above[r] += x[r * x_row + p] * second;
    }
  }
  for (int r = 0; r < R; ++r) {
    store(out + r * out_row, below[r]);
    store(out + r * out_row + kServed, above[r]);
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
inline void float_products(bool panels, int64_t rows, const float* x, int64_t size, int64_t first, int64_t steps,
                           const float* M, int64_t begin, int64_t units, float* out, ptrdiff_t out_row) {
  if (!panels)
    return narrow_products(rows, x + first, size, M + begin * size + first, size, steps, units, out, out_row);
  for (int64_t u = 0; u < units; u += kPanel) {
    const float* const panel = M + (begin + u) * size + first * kPanel;
    const auto go = [&](auto kernel) {
      return [=](int64_t r) { kernel(x + r * size + first, size, steps, panel, out + r * out_row + u, out_row); };
    };
    each_few(rows, go(float_panel<4>), go(float_panel<2>), go(float_panel<1>));
  }
}

// out (rows, units from `begin`, rounded up to 32) = x M^T; M is (any, size), `begin` a multiple of 32. In float32 sums
// longer than `depth` are made in such runs, for which `out` has room a second time.
template <bool kVnni>
void stored_products(Storage storage, int64_t rows, const float* x, int64_t size, int64_t depth, const Digits& digits,
                     const StoredMatrix& M, int64_t begin, int64_t units, float* out, ptrdiff_t out_row) {
  if (storage == Storage::float32 || storage == Storage::panels) {
    float* to = out;
    for (int64_t s = 0; s < size; s += depth, to = out + rows * out_row) {
      const int64_t steps = least(depth, size - s);
      float_products(storage == Storage::panels, rows, x, size, s, steps, static_cast<const float*>(M.values), begin,
                     units, to, out_row);
      for (int64_t r = 0; s > 0 && r < rows; ++r) {
        for (int64_t u = 0; u < units; ++u) out[r * out_row + u] += to[r * out_row + u];
      }
    }
  } else if (storage == Storage::bfloat16) {
    for (int64_t u = 0; u < units; u += kPanel) {
      const uint32_t* const panel = static_cast<const uint32_t*>(M.values) + (begin + u) / 2 * size;
      const auto go = [&](auto kernel) {
        return [=](int64_t r) { kernel(x + r * size, size, size, panel, out + r * out_row + u, out_row); };
      };
      each_few(rows, go(bf16_panel<4>), go(bf16_panel<2>), go(bf16_panel<1>));
    }
  } else {
    for (int64_t u = 0; u < units; u += kServed) {
      const int8_t* const panel = static_cast<const int8_t*>(M.values) + (begin + u) * padded4(size);
      const auto go = [&](auto kernel) {
        return [&, kernel, u, panel](int64_t r) {
          kernel(digits, r, size, panel, M.scale + begin + u, M.total + begin + u, out + r * out_row + u, out_row);
        };
      };
      each_few(rows, go(int8_panel<kVnni, 4>), go(int8_panel<kVnni, 2>), go(int8_panel<kVnni, 1>));
    }
  }
}

MIMIC_INLINE Served widened(const float* p) { return load<Served>(p); }
MIMIC_INLINE Served widened(const uint16_t* p) {
  return same_bits<Served>(__builtin_convertvector(load<Vector<uint16_t, kServed>>(p), ServedWord) << 16);
}
MIMIC_INLINE Served widened(const int8_t* p) {
#if defined(__AVX512F__)
  ServedInt values;  // compilers take three instructions for this one
  asm("vpmovsxbd %1, %0" : "=v"(values) : "m"(*reinterpret_cast<const int8_t (*)[kServed]>(p)));
#else
  const auto halves = __builtin_convertvector(load<Vector<int8_t, kServed>>(p), Vector<int16_t, kServed>);
  const auto values = __builtin_convertvector(halves, ServedInt);
#endif
  return __builtin_convertvector(values, Served);
}

// y[c] = sum over units of h[u] W[u][c] for 16 V columns from `begin` on and N slabs; rows of W are whole vectors.
template <class E, int N, int V>
void widened_columns(int64_t units, const Streams<float, E>& s, int64_t W_row, int64_t begin) {
  constexpr int kLine = 64 / int(sizeof(E));
  const int64_t ahead = ceil_div(kBytesAhead, W_row * int64_t(sizeof(E))) * W_row;
  Served sum[N][V] = {};
  for (int64_t u = 0; u < units; ++u) {
    MIMIC_UNROLL for (int n = 0; n < N; ++n) {
      const E* const W = s.W[n] + u * W_row + begin;
      MIMIC_UNROLL for (int j = 0; j < V * kServed; j += kLine) __builtin_prefetch(W + ahead + j, 0, 2);
      MIMIC_UNROLL for (int j = 0; j < V; ++j) sum[n][j] += s.h[n][u] * widened(W + j * kServed);
    }
  }
  for (int n = 0; n < N; ++n) {
    MIMIC_UNROLL for (int j = 0; j < V; ++j) store(s.y[n] + begin + j * kServed, sum[n][j]);
  }
}

template <class E, int N>
void widened_outputs_of(int64_t units, const Streams<float, E>& s, int64_t W_row) {
  for (int64_t c = 0; c < W_row;) {
    const auto go = [&](auto kernel, int64_t vectors) {
      for (; c + vectors * kServed <= W_row; c += vectors * kServed) kernel(units, s, W_row, c);
    };
    if constexpr (kLanes<float> == kServed) go(widened_columns<E, N, 12>, 12);
    go(widened_columns<E, N, 6>, 6);
    go(widened_columns<E, N, 3>, 3);
    go(widened_columns<E, N, 1>, 1);
  }
}

template <class E>
void widened_outputs(int64_t units, bool pair, const Streams<float, E>& s, int64_t W_row) {
  pair ? widened_outputs_of<E, 2>(units, s, W_row) : widened_outputs_of<E, 1>(units, s, W_row);
}

// y (slabs, rows, C rounded up to 16) = h W over one slab, or a `pair` that begins with it; h (slabs, rows, h_row) is
// scaled in place where the weights are.
inline void stored_outputs(Storage storage, int64_t rows, const Slab& slab, bool pair, const StoredMatrix& W, int64_t C,
                           float* h, ptrdiff_t h_row, float* y) {
  const int64_t row = ceil_div(C, int64_t(kServed)) * kServed, h_slab = rows * h_row, y_slab = rows * row;
  const auto outputs = [&](auto multiply, const auto* values, int64_t W_row) {
    values += slab.begin * W_row;
    multiply(slab.units, pair, {{h, h + h_slab}, {values, values + slab.units * W_row}, {y, y + y_slab}}, W_row);
  };
  for (int64_t r = 0; r < rows; ++r, h += h_row, y += row) {
    if (storage == Storage::float32) {
      outputs(narrow_outputs<float>, static_cast<const float*>(W.values), C);
    } else if (storage == Storage::panels) {
      outputs(widened_outputs<float>, static_cast<const float*>(W.values), row);
    } else if (storage == Storage::bfloat16) {
      outputs(widened_outputs<uint16_t>, static_cast<const uint16_t*>(W.values), row);
    } else {
      for (int64_t u = 0; u < slab.units; ++u) h[u] *= W.scale[slab.begin + u];
      for (int64_t u = 0; pair && u < slab.units; ++u) h[h_slab + u] *= W.scale[slab.begin + slab.units + u];
      outputs(widened_outputs<int8_t>, static_cast<const int8_t*>(W.values), row);
    }
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
