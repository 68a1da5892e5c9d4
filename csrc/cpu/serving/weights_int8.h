// A few vectors times a matrix in int8, the vectors in two digits of 8 bits: sums are exact.
#pragma once

#include "cpu/serving/lanes.h"

namespace mimic {
namespace MIMIC_ISA {

// How many panels of a matrix are multiplied by one row at once: enough independent sums to hide the latency of a
// multiply-add, as far as registers reach. Several panels are several streams, too, which are read faster than one.
constexpr int kPanelsAtOnce = kRegister == kServed ? 4 : 2;

// Vectors as 16-bit integers: value / `step` + 2^15, in two digits of 8 bits. A vector that is not finite has step
// NaN, and so will its products.
struct Digits {
  uint8_t *high, *low;  // (rows, digits_row(size))
  float* step;
};

MIMIC_INLINE int64_t padded4(int64_t size) { return ceil_div(size, int64_t(4)) * 4; }
MIMIC_INLINE int64_t digits_row(int64_t size) { return ceil_div(size, int64_t(kServed)) * kServed; }

inline void digits_of(int64_t rows, int64_t size, const float* x, int64_t x_row, const Digits& to) {
  for (int64_t r = 0; r < rows; ++r) {
    const float* const v = x + r * x_row;
    const auto values = [=](int64_t i) {
      if (i + kRegister <= size) return load<Served>(v + i);
      Served last = {};
      __builtin_memcpy(&last, v + i, size_t(size - i) * sizeof(float));
      return last;
    };
    Served magnitudes = {}, zeros = {};
    for (int64_t i = 0; i < size; i += kRegister) {
      const Served a = values(i), magnitude = a < 0 ? -a : a;
      magnitudes = magnitude > magnitudes ? magnitude : magnitudes;
      zeros += a * 0;  // NaN where any value is not finite
    }
    float largest = 0, sum = 0;
    for (int i = 0; i < kRegister; ++i) {
      largest = magnitudes[i] > largest ? magnitudes[i] : largest;
      sum += zeros[i];
    }
    const bool tiny = largest < 1e-30f;  // whose inverse may be infinite: taken for zeros
    to.step[r] = (tiny ? 0 : largest / 32767) + sum;
    const float inverse = tiny ? 0 : 32767 / largest;
    for (int64_t i = 0; i < size; i += kRegister) {
      const Served scaled = sum == 0 ? values(i) * inverse : Served{};
      const Served half = scaled < 0 ? Served{} - 0.5f : Served{} + 0.5f;
      const ServedInt digit = __builtin_convertvector(scaled + half, ServedInt) + 32768;
      const int64_t at = r * digits_row(size) + i;
      store(to.high + at, __builtin_convertvector(digit >> 8, Vector<uint8_t, kRegister>));
      store(to.low + at, __builtin_convertvector(digit & 255, Vector<uint8_t, kRegister>));
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

// Sums of products with 16-bit integers, from the sums for their two digits; `total` is the sum of all weights.
MIMIC_INLINE Served of_digits(ServedInt high, ServedInt low, ServedInt total) {
  return __builtin_convertvector(high - 128 * total, Served) * 256.0f + __builtin_convertvector(low, Served);
}

// Words that hold four steps of a unit. The next four steps are `step` values on; the next register is `panel` values
// and `units` units on.
struct Int8Panels {
  const int8_t* values;
  ptrdiff_t step, panel, ahead;
  const int32_t* total;  // of each unit's values
  ptrdiff_t units;
};

// out (R, P registers of units), not yet scaled, of rows from r0 on.
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
    const ServedInt total = load<ServedInt>(M.total + p * M.units);
    for (int r = 0; r < R; ++r) {
      store(out + r * out_row + p * M.units, of_digits(high[r][p], low[r][p], total) * x.step[r0 + r]);
    }
  }
}

// out (rows, units from `begin`, rounded up to 32) = x M^T; M is (any, size) in int8.
template <bool kVnni>
void int8_products(ptrdiff_t ahead, int64_t rows, const Digits& x, int64_t size, const StoredMatrix& M, int64_t begin,
                   int64_t units, float* out, ptrdiff_t out_row) {
  const int64_t panel = padded4(size) * kServed, many = kPanelsAtOnce * kServed;
  const auto multiply = [&](auto kernel, int64_t r, int64_t u) {
    const int8_t* const values = static_cast<const int8_t*>(M.values) + (begin + u) / kServed * panel;
    for (int lane = 0; lane < kServed; lane += kRegister) {
      const Int8Panels panels = {values + 4 * lane, 4 * kServed, panel, ahead, M.total + begin + u + lane, kServed};
      kernel(x, r, size, panels, out + r * out_row + u + lane, out_row);
    }
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
  each_columns(W_row, [&](auto V, int64_t c) {
    const Int8Panels columns = {values + 4 * c, 4 * W_row, 4 * kRegister, ahead, total + c, kRegister};
    int8_panels<kVnni, 1, V.value>(digits, 0, slab.units, columns, y + c, 0);
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
