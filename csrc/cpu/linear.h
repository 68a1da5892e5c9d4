// out = dropout(f(x weight^T + bias)) and back: plain matrix products with what surrounds them. `factorized_matmul`
// is two of these, and z = x V^T one.
#pragma once

#include "elementwise.h"
#include "microkernel.h"
#include "pack.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kDepth = 512;              // run of the sum that is packed at once: 64 KiB of B in float
constexpr int64_t kHeight = 192;             // rows of C that share a packed panel, a multiple of 16
constexpr int64_t kRowStride = kDepth + 16;  // of A's rows when copied: no two fall on the same cache set

// C (M, N) = A (M, S) B (S, N), where A[m, s] = a[m * a_row + s * a_step], one of the strides being 1, and B is
// stored as rows of N (`transposed` = false) or as N rows of S (true). C is contiguous.
template <class T>
struct Matmul {
  int64_t M, N, S;
  const T* a;
  ptrdiff_t a_row, a_step;
  const T* b;
  bool transposed;
  T* c;
};

// One panel of 32 columns and a run of rows: pack a run of B, multiply, go on.
template <class T>
void matmul_block(const Matmul<T>& f, int64_t row0, int64_t rows, int64_t column, int columns, T* packed, T* a_rows) {
  const int64_t depth = least(kDepth, f.S);
  for (int64_t s0 = 0; s0 == 0 || s0 < f.S; s0 += kDepth) {
    const int64_t steps = least(depth, f.S - s0);
    if (f.transposed) {
      pack_transposed(f.b + column * f.S + s0, f.S, columns, steps, packed);
    } else {
      pack_columns(f.b + s0 * f.N + column, f.N, steps, columns, packed);
    }
    const Finish finish = s0 == 0 ? Finish::store : Finish::add;
    if (f.a_step != 1) {
      const T* a = f.a + row0 + s0 * f.a_step;
      multiply<T, 1, 0>(rows, columns, false,
                        {a, 1, f.a_step, 0, 1, steps, packed, f.c + row0 * f.N + column, f.N, finish});
      continue;
    }
    for (int64_t i = 0; i < rows; i += kTileRows) {
      const int64_t height = least(rows - i, int64_t(kTileRows));
      for (int64_t r = 0; r < height; ++r) {
        __builtin_memcpy(a_rows + r * kRowStride, f.a + (row0 + i + r) * f.a_row + s0, size_t(steps) * sizeof(T));
      }
      T* const c = f.c + (row0 + i) * f.N + column;
      multiply<T, kRowStride, 1>(height, columns, false, {a_rows, kRowStride, 1, 0, 1, steps, packed, c, f.N, finish});
    }
  }
}

// finish(row0, rows, column, columns) is called on each block of C when its sums are complete.
template <class T, class F>
void matmul(const Matmul<T>& f, F finish) {
  const int64_t panels = ceil_div(f.N, int64_t(kPanel)), runs = ceil_div(f.M, kHeight), tasks = panels * runs;
  const int members = int(least(int64_t(num_threads()), tasks));
  const int64_t per_member = kDepth * kPanel + kTileRows * kRowStride;
  T* const memory = static_cast<T*>(scratch(size_t(members) * size_t(per_member) * sizeof(T)));
  parallel(members, [&](Team& team) {
    T* const packed = memory + team.rank * per_member;
    for (int64_t task = team.begin(tasks); task < team.end(tasks); ++task) {
      const int64_t row0 = task % runs * kHeight, column = task / runs * kPanel;
      const int64_t rows = least(f.M - row0, kHeight);
      const int columns = int(least(f.N - column, int64_t(kPanel)));
      matmul_block(f, row0, rows, column, columns, packed, packed + kDepth * kPanel);
      finish(row0, rows, column, columns);
    }
  });
}

// For each row of a block of (rows, O): f(pointer to its values, its column count, its mask bytes or null).
template <class F>
MIMIC_INLINE void each_masked_row(const Mask& mask, int64_t row0, int64_t rows, int64_t column, F f) {
  uint8_t bytes[kMaskRows * kMaskUnits];
  for (int64_t i = 0; i < rows; ++i) {
    if (mask.drops() && i % kMaskRows == 0) mask_tile_by_row(mask, mask.row + row0 + i, mask.unit + column, bytes);
    f(row0 + i, mask.drops() ? bytes + i % kMaskRows * kMaskUnits : nullptr);
  }
}

template <class T>
void linear(const Linear<T>& f) {
  const Matmul<T> product = {f.B, f.O, f.I, f.x, f.I, 1, f.weight, true, f.out};
  matmul(product, [&](int64_t row0, int64_t rows, int64_t column, int columns) {
    each_masked_row(f.mask, row0, rows, column, [&](int64_t row, const uint8_t* bytes) {
      T* const out = f.out + row * f.O + column;
      for (int j = 0; f.bias && j < columns; ++j) out[j] += f.bias[column + j];
      if (f.activation != Activation::identity) activate<T>(f.activation, columns, out, out, nullptr);
      if (bytes) apply_mask(columns, bytes, f.mask, out);
    });
  });
}

// f'(a) of one row. From out = f(a) / keep; gelu, which takes a value twice, from the pre-activation in `slope`.
template <class T>
MIMIC_INLINE void slope_of(Activation activation, int columns, const T* out, T scale, T* slope) {
  T value[kPanel];
  if (activation == Activation::gelu) return activate<T>(activation, columns, slope, value, slope);
  for (int j = 0; j < columns; ++j) {
    const T h = out[j] / scale;
    switch (activation) {
      case Activation::relu: slope[j] = h > 0; break;
      case Activation::tanh: slope[j] = 1 - h * h; break;
      case Activation::sigmoid: slope[j] = h * (1 - h); break;
      default: slope[j] = 1;
    }
  }
}

// da (B, O) = dout f'(a) mask.
template <class T>
void linear_da(const LinearBackward<T>& f, T* da) {
  const Linear<T>& l = f.layer;
  const auto finish = [&](int64_t row0, int64_t rows, int64_t column, int columns) {
    each_masked_row(l.mask, row0, rows, column, [&](int64_t row, const uint8_t* bytes) {
      const int64_t at = row * l.O + column;
      T slope[kPanel];
      if (l.activation == Activation::gelu) {
        for (int j = 0; j < columns; ++j) slope[j] = da[at + j] + l.bias[column + j];
      }
      slope_of(l.activation, columns, l.out + at, T(l.mask.scale()), slope);
      if (bytes) apply_mask(columns, bytes, l.mask, slope);
      for (int j = 0; j < columns; ++j) da[at + j] = f.dout[at + j] * slope[j];
    });
  };
  if (l.activation == Activation::gelu) {
    return matmul<T>({l.B, l.O, l.I, l.x, l.I, 1, l.weight, true, da}, finish);
  }
  const int64_t strips = ceil_div(l.B, int64_t(kMaskRows));
  parallel(strips, [&](Team& team) {
    for (int64_t strip = team.begin(strips); strip < team.end(strips); ++strip) {
      const int64_t row0 = strip * kMaskRows;
      for (int64_t column = 0; column < l.O; column += kPanel) {
        finish(row0, least(l.B - row0, int64_t(kMaskRows)), column, int(least(l.O - column, int64_t(kPanel))));
      }
    }
  });
}

template <class T>
void linear_backward(const LinearBackward<T>& f) {
  const Linear<T>& l = f.layer;
  if (f.da) linear_da(f, f.da);
  const T* const da = f.da ? f.da : f.dout;
  const auto nothing = [](int64_t, int64_t, int64_t, int) {};
  if (f.dx) matmul<T>({l.B, l.I, l.O, da, l.O, 1, l.weight, false, f.dx}, nothing);
  if (f.dweight) matmul<T>({l.O, l.I, l.B, da, 1, l.O, l.x, false, f.dweight}, nothing);
  if (!f.dbias) return;
  const int64_t columns = ceil_div(l.O, int64_t(kPanel));
  parallel(columns, [&](Team& team) {
    for (int64_t j = team.begin(l.O); j < team.end(l.O); ++j) f.dbias[j] = 0;
    for (int64_t i = 0; i < l.B; ++i) {
      for (int64_t j = team.begin(l.O); j < team.end(l.O); ++j) f.dbias[j] += da[i * l.O + j];
    }
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
