// A few vectors times a stored matrix: float32 as it is or in panels, bfloat16, int8. Bound by reading the matrix once.
#pragma once

#include "cpu/serving/weights_int8.h"

namespace mimic {
namespace MIMIC_ISA {

// The two bfloat16 of each of a register's words.
struct TwoBf16 {
  Served below, above;
};
MIMIC_INLINE TwoBf16 two_bf16(const uint32_t* p) {
  const ServedWord words = load<ServedWord>(p);
  return {same_bits<Served>(words << 16), same_bits<Served>(words & 0xFFFF0000u)};
}

// out (R, 32 units) from a panel [size][32]: unit i of a register goes with unit i + 16.
template <int R>
void float_panel(const float* x, ptrdiff_t x_row, int64_t size, const float* panel, ptrdiff_t ahead, float* out,
                 ptrdiff_t out_row) {
  for (int lane = 0; lane < kServed; lane += kRegister) {
    Served first[R] = {}, second[R] = {};
    const float* at = panel + lane;
    for (int64_t i = 0; i < size; ++i, at += kPanel) {
      const float* const next = at + ahead / ptrdiff_t(sizeof(float));
      __builtin_prefetch(next, 0, 2);
      __builtin_prefetch(next + kServed, 0, 2);
      MIMIC_UNROLL for (int r = 0; r < R; ++r) {
        first[r] += x[r * x_row + i] * load<Served>(at);
        second[r] += x[r * x_row + i] * load<Served>(at + kServed);
      }
    }
    for (int r = 0; r < R; ++r) {
      store(out + r * out_row + lane, first[r]);
      store(out + r * out_row + lane + kServed, second[r]);
    }
  }
}

// out (R, 32 units) from a panel [size][16 words]; a word holds unit i below and unit i + 16 above. Steps are added to
// several sums in turn, as many as fit into registers, because additions to one sum wait for each other.
template <int R>
void bf16_panel(const float* x, ptrdiff_t x_row, int64_t size, const uint32_t* panel, ptrdiff_t ahead, float* out,
                ptrdiff_t out_row) {
  constexpr int kChains = kRegister == kServed ? 2 : 1;
  for (int lane = 0; lane < kServed; lane += kRegister) {
    Served below[kChains][R] = {}, above[kChains][R] = {};
    const auto add = [&](int chain, int64_t i) {
      const uint32_t* const at = panel + i * kServed + lane;
      __builtin_prefetch(at + ahead / ptrdiff_t(sizeof(uint32_t)), 0, 2);
      const TwoBf16 weights = two_bf16(at);
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
      store(out + r * out_row + lane, below[0][r]);
      store(out + r * out_row + lane + kServed, above[0][r]);
    }
  }
}

// out (rows, units rounded up to 32) = x M^T of the columns [first, first + steps); M is (any, size) in float32.
inline void float_products(bool panels, ptrdiff_t ahead, int64_t rows, const float* x, int64_t size, int64_t first,
                           int64_t steps, const float* M, int64_t begin, int64_t units, float* out, ptrdiff_t out_row) {
  if (!panels)
    return few_rows_products(rows, x + first, size, M + begin * size + first, size, steps, units, out, out_row);
  for (int64_t u = 0; u < units; u += kPanel) {
    const float* const panel = M + (begin + u) * size + first * kPanel;
    const auto go = [&](auto kernel) {
      return
          [=](int64_t r) { kernel(x + r * size + first, size, steps, panel, ahead, out + r * out_row + u, out_row); };
    };
    each_few(rows, go(float_panel<4>), go(float_panel<2>), go(float_panel<1>));
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

// y[c] = sum over units of h[u] W[u][c] for V registers of columns from `begin` on and N slabs; rows of W are whole
// lanes. A word holds two units, the last one perhaps only one.
template <class E, int N, int V>
void served_columns(int64_t units, const Streams<float, E>& s, int64_t W_row, int64_t begin) {
  constexpr bool kWords = std::is_same<E, uint32_t>::value;
  constexpr int kUnits = kWords ? 2 : 1;
  const int64_t ahead = ceil_div(kBytesAhead, W_row * int64_t(sizeof(E))) * W_row;
  Served sum[N][V] = {};
  for (int64_t u = 0; u < units; u += kUnits) {
    MIMIC_UNROLL for (int n = 0; n < N; ++n) {
      const E* const W = s.W[n] + u / kUnits * W_row + begin;
      const float h = s.h[n][u], next_h = u + 1 < units ? s.h[n][u + 1] : 0;
      MIMIC_UNROLL for (int j = 0; j < V; ++j) __builtin_prefetch(W + ahead + j * kRegister, 0, 2);
      MIMIC_UNROLL for (int j = 0; j < V; ++j) {
        if constexpr (kWords) {
          const TwoBf16 weights = two_bf16(W + j * kRegister);
          sum[n][j] += h * weights.below;
          sum[n][j] += next_h * weights.above;
        } else {
          sum[n][j] += h * load<Served>(W + j * kRegister);
        }
      }
    }
  }
  for (int n = 0; n < N; ++n) {
    MIMIC_UNROLL for (int j = 0; j < V; ++j) store(s.y[n] + begin + j * kRegister, sum[n][j]);
  }
}

template <class E, int N>
void served_outputs_of(int64_t units, const Streams<float, E>& s, int64_t W_row) {
  each_columns(W_row, [&](auto V, int64_t c) { served_columns<E, N, V.value>(units, s, W_row, c); });
}

template <class E>
void served_outputs(int64_t units, bool pair, const Streams<float, E>& s, int64_t W_row) {
  pair ? served_outputs_of<E, 2>(units, s, W_row) : served_outputs_of<E, 1>(units, s, W_row);
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
      outputs(few_rows_outputs<float>, static_cast<const float*>(W.values), C);
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
