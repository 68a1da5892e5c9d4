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
constexpr int64_t kMostStrips = 64;          // of rows, each with its part of the bias gradient
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
      multiply<1, 0>(rows, columns, false,
                     Product<T>{a, 1, f.a_step, 0, 1, steps, packed, f.c + row0 * f.N + column, f.N, finish});
      continue;
    }
    for (int64_t i = 0; i < rows; i += kTileRows) {
      const int64_t height = least(rows - i, int64_t(kTileRows));
      for (int64_t r = 0; r < height; ++r) {
        __builtin_memcpy(a_rows + r * kRowStride, f.a + (row0 + i + r) * f.a_row + s0, size_t(steps) * sizeof(T));
      }
      T* const c = f.c + (row0 + i) * f.N + column;
      multiply<kRowStride, 1>(height, columns, false,
                              Product<T>{a_rows, kRowStride, 1, 0, 1, steps, packed, c, f.N, finish});
    }
  }
}

// finish(row0, rows, column, columns) is called on each block of C when its sums are complete.
template <class T, class F>
void matmul(const Matmul<T>& f, F finish) {
  const int64_t panels = ceil_div(f.N, int64_t(kPanel)), runs = ceil_div(f.M, kHeight), tasks = panels * runs;
  const int members = int(least(int64_t(threads_for(f.M * f.N * f.S, kProductsWorthAThread)), tasks));
  const int64_t per_member = kDepth * kPanel + kTileRows * kRowStride;
  T* const memory = static_cast<T*>(scratch(size_t(members) * size_t(per_member) * sizeof(T)));
  share(members, tasks, [&](int64_t task, int rank) {
    T* const packed = memory + rank * per_member;
    const int64_t row0 = task % runs * kHeight, column = task / runs * kPanel;
    const int64_t rows = least(f.M - row0, kHeight);
    const int columns = int(least(f.N - column, int64_t(kPanel)));
    matmul_block(f, row0, rows, column, columns, packed, packed + kDepth * kPanel);
    finish(row0, rows, column, columns);
  });
}

template <class T>
void linear(const Linear<T>& f) {
  const Matmul<T> product = {f.B, f.O, f.I, f.x, f.I, 1, f.weight, true, f.out};
  matmul(product, [&](int64_t row0, int64_t rows, int64_t column0, int columns) {
    const auto finish = [&](int64_t width, int64_t column, int64_t at, const uint8_t* bytes) {
      T* const out = f.out + at;
      for (int64_t j = 0; f.bias && j < width; ++j) out[j] += f.bias[column + j];
      if (f.activation != Activation::identity) activate<T>(f.activation, width, out, out, nullptr);
      if (bytes) apply_mask(width, bytes, f.mask, out, out);
    };
    each_masked_run(f.mask, f.O, row0, rows, column0, columns, finish);
  });
}

// f'(a) times the mask, of one row. From out = f(a) * mask; gelu, which takes a value twice, from the pre-activation in
// `slope`. With relu a positive `out` says both "active" and "kept".
template <class T>
MIMIC_INLINE void slope_of(const Linear<T>& l, int64_t width, const T* out, const uint8_t* bytes, T* slope) {
  const T scale = T(l.mask.scale());
  switch (l.activation) {
    case Activation::relu:
      for (int64_t j = 0; j < width; ++j) slope[j] = out[j] > 0 ? scale : T(0);
      return;
    case Activation::gelu: {
      T value[kRun];
      activate<T>(l.activation, width, slope, value, slope);
      break;
    }
    case Activation::tanh:
      for (int64_t j = 0; j < width; ++j) slope[j] = 1 - (out[j] / scale) * (out[j] / scale);
      break;
    case Activation::sigmoid:
      for (int64_t j = 0; j < width; ++j) slope[j] = out[j] / scale * (1 - out[j] / scale);
      break;
    case Activation::identity:
      for (int64_t j = 0; j < width; ++j) slope[j] = 1;
  }
  if (bytes) apply_mask(width, bytes, l.mask, slope, slope);
}

// da (B, O) = dout f'(a) mask, and dbias, in one pass: bias gradients of a strip of rows first, then of all strips.
template <class T>
void linear_da(const LinearBackward<T>& f, T* da) {
  const Linear<T>& l = f.layer;
  const bool gelu = l.activation == Activation::gelu, relu = l.activation == Activation::relu;
  if (gelu) matmul<T>({l.B, l.O, l.I, l.x, l.I, 1, l.weight, true, da}, [](int64_t, int64_t, int64_t, int) {});
  Mask mask = l.mask;
  if (relu) mask.keep = 256;
  const int64_t height = (l.B / (kMostStrips * kMaskRows) + 1) * kMaskRows;
  const int64_t strips = ceil_div(l.B, height);
  T* const sums = static_cast<T*>(scratch(size_t(strips) * size_t(l.O) * sizeof(T)));
  share(threads_for(l.B * l.O, kValuesWorthAThread), strips, [&](int64_t strip, int) {
    const int64_t row0 = strip * height, rows = least(l.B - row0, height);
    T* const sum = sums + strip * l.O;
    __builtin_memset(sum, 0, size_t(l.O) * sizeof(T));
    const auto gate = [&](int64_t width, int64_t column, int64_t at, const uint8_t* bytes) {
      T values[kRun];
      for (int64_t j = 0; gelu && j < width; ++j) values[j] = da[at + j] + l.bias[column + j];
      slope_of(l, width, l.out + at, bytes, values);
      T* const to = sum + column;
      const T* const dout = f.dout + at;
#pragma GCC ivdep
      for (int64_t j = 0; j < width; ++j) {
        values[j] *= dout[j];
        to[j] += values[j];
      }
      if (da) copy(width, values, da + at);
    };
    each_masked_run(mask, l.O, row0, rows, 0, l.O, gate);
  });
  for (int64_t j = 0; f.dbias && j < l.O; ++j) {
    f.dbias[j] = 0;
    for (int64_t strip = 0; strip < strips; ++strip) f.dbias[j] += sums[strip * l.O + j];
  }
}

template <class T>
void linear_backward(const LinearBackward<T>& f) {
  const Linear<T>& l = f.layer;
  if (f.da || f.dbias) linear_da(f, f.da);
  const T* const da = f.da ? f.da : f.dout;
  const auto nothing = [](int64_t, int64_t, int64_t, int) {};
  if (f.dx) matmul<T>({l.B, l.I, l.O, da, l.O, 1, l.weight, false, f.dx}, nothing);
  if (f.dweight) matmul<T>({l.O, l.I, l.B, da, 1, l.O, l.x, false, f.dweight}, nothing);
}

}  // namespace MIMIC_ISA
}  // namespace mimic
