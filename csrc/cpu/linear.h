// out = dropout(f(x weight^T + bias)) and back: plain matrix products with what surrounds them. `factorized_matmul`
// is two of these, and z = x V^T one.
#pragma once

#include "cpu/vector/elementwise.h"
#include "cpu/vector/microkernel.h"
#include "cpu/vector/pack.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kDepth = 1024;             // run of the sum that is packed at once: 128 KiB of a panel in float
constexpr int64_t kPackedBytes = 512 << 10;  // of panels packed at once: half of a common L2
constexpr int64_t kMostPanels = 8;
constexpr int64_t kHeight = 192;             // rows that are worked on at once, a multiple of 12 and of 16
constexpr int64_t kMostHeights = 8;          // that share packed panels
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

// Panels of B from `column` on, of one run of the sum, one after the other.
template <class T>
void pack_panels(const Matmul<T>& f, int64_t s0, int64_t steps, int64_t column, int64_t columns, T* packed) {
  for (int64_t j = 0; j < columns; j += kPanel, packed += steps * kPanel) {
    const int width = int(least(columns - j, int64_t(kPanel)));
    if (f.transposed) {
      pack_transposed(f.b + (column + j) * f.S + s0, f.S, width, steps, packed);
    } else {
      pack_columns(f.b + s0 * f.N + column + j, f.N, steps, width, packed);
    }
  }
}

// Rows [row0, row0 + rows) of C and those columns, for one run of the sum.
template <class T>
void multiply_panels(const Matmul<T>& f, int64_t s0, int64_t steps, int64_t row0, int64_t rows, int64_t column,
                     int64_t columns, const T* packed, T* a_rows) {
  const Finish finish = s0 == 0 ? Finish::store : Finish::add;
  const bool far = f.M * f.N * int64_t(sizeof(T)) > kPackedBytes;
  const auto each_panel = [&](int64_t row, auto product) {
    for (int64_t j = 0; j < columns; j += kPanel) {
      product(int(least(columns - j, int64_t(kPanel))), packed + j * steps, f.c + row * f.N + column + j);
    }
  };
  for (int64_t row = row0; row < row0 + rows; row += kTileRows) {
    const int64_t height = least(row0 + rows - row, int64_t(kTileRows));
    if (f.a_step != 1) {
      const T* const a = f.a + row + s0 * f.a_step;
      each_panel(row, [&](int width, const T* b, T* c) {
        multiply<1, 0>(height, width, Product<T>{a, 1, f.a_step, 0, 1, steps, b, c, f.N, finish, far});
      });
      continue;
    }
    for (int64_t r = 0; r < height; ++r) copy(steps, f.a + (row + r) * f.a_row + s0, a_rows + r * kRowStride);
    each_panel(row, [&](int width, const T* b, T* c) {
      multiply<kRowStride, 1>(height, width, Product<T>{a_rows, kRowStride, 1, 0, 1, steps, b, c, f.N, finish, far});
    });
  }
}

// By the microkernel. finish(row0, rows, column, columns) is called on each block of C when its sums are complete.
struct ByVectors {
  template <class T, class F>
  static void matmul(const Matmul<T>& f, F finish);
};

template <class T, class F>
void ByVectors::matmul(const Matmul<T>& f, F finish) {
  const int threads = threads_for(f.M * f.N * f.S, kProductsWorthAThread);
  const int64_t panels = ceil_div(f.N, int64_t(kPanel)), heights = ceil_div(f.M, kHeight);
  // Few panels and heights a task where there is little work, so that every thread has some.
  const auto shared_out = [&](int64_t most, int64_t all, int64_t others) {
    const int64_t enough = threads > 1 ? all * others / (8 * threads) : most;
    return enough < 1 ? 1 : least(enough, most);
  };
  const int64_t fit = kPackedBytes / (least(kDepth, f.S + 1) * kPanel * int64_t(sizeof(T)));
  const int64_t panels_at_once = shared_out(least(kMostPanels, fit), panels, heights),
                groups = ceil_div(panels, panels_at_once);
  const int64_t heights_at_once = shared_out(kMostHeights, heights, groups), runs = ceil_div(heights, heights_at_once);
  const int members = int(least(int64_t(threads), groups * runs));
  const int64_t per_member = least(kDepth, f.S) * kPanel * panels_at_once + kTileRows * kRowStride;
  T* const memory = static_cast<T*>(scratch(size_t(members) * size_t(per_member) * sizeof(T)));
  share(members, groups * runs, [&](int64_t task, int rank) {
    T *const a_rows = memory + rank * per_member, *const packed = a_rows + kTileRows * kRowStride;
    const int64_t column = task / runs * panels_at_once * kPanel;
    const int64_t columns = least(f.N - column, panels_at_once * kPanel);
    const int64_t row0 = task % runs * heights_at_once * kHeight, end = least(f.M, row0 + heights_at_once * kHeight);
    for (int64_t s0 = 0; s0 == 0 || s0 < f.S; s0 += kDepth) {
      const int64_t steps = least(kDepth, f.S - s0);
      pack_panels(f, s0, steps, column, columns, packed);
      for (int64_t row = row0; row < end; row += kHeight) {
        const int64_t rows = least(end - row, kHeight);
        multiply_panels(f, s0, steps, row, rows, column, columns, packed, a_rows);
        if (s0 + steps >= f.S) finish(row, rows, column, int(columns));
      }
    }
  });
}

template <class By, class T>
void linear(const Linear<T>& f) {
  const Matmul<T> product = {f.B, f.O, f.I, f.x, f.I, 1, f.weight, true, f.out};
  By::matmul(product, [&](int64_t row0, int64_t rows, int64_t column0, int columns) {
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
// With gelu da holds x weight^T before.
template <class T>
void linear_da(const LinearBackward<T>& f) {
  const Linear<T>& l = f.layer;
  T* const da = f.da;
  const bool gelu = l.activation == Activation::gelu, relu = l.activation == Activation::relu;
  Mask mask = l.mask;
  if (relu) mask.threshold = 256;
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

extern template void linear_da(const LinearBackward<float>&);  // compiled once, in isa/linear.cpp

template <class By, class T>
void linear_backward(const LinearBackward<T>& f) {
  const Linear<T>& l = f.layer;
  const auto nothing = [](int64_t, int64_t, int64_t, int) {};
  if (l.activation == Activation::gelu && f.da)
    By::matmul(Matmul<T>{l.B, l.O, l.I, l.x, l.I, 1, l.weight, true, f.da}, nothing);
  if (f.da || f.dbias) linear_da(f);
  const T* const da = f.da ? f.da : f.dout;
  if (f.dx) By::matmul(Matmul<T>{l.B, l.I, l.O, da, l.O, 1, l.weight, false, f.dx}, nothing);
  if (f.dweight) By::matmul(Matmul<T>{l.O, l.I, l.B, da, 1, l.O, l.x, false, f.dweight}, nothing);
}

template <class By, class T>
constexpr LinearKernels<T> linear_kernels = {linear<By, T>, linear_backward<By, T>};

}  // namespace MIMIC_ISA
}  // namespace mimic
