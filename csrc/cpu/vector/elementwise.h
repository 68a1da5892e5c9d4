// One value in, one value out: activations, masks, dropout, optimizers, sums over rows. Plain loops that the
// compiler turns into vector code.
#pragma once

#include "common/bfloat16.h"
#include "cpu/kernels.h"
#include "cpu/parallel.h"
#include "cpu/vector/mask.h"
#include "cpu/vector/simd.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kValuesWorthAThread = 1 << 15;

// value[i] = f(a[i]) and, where it is asked for, slope[i] = f'(a[i]). Either may be `a` itself.
template <class T, class F>
MIMIC_INLINE void each_activated(ptrdiff_t n, const T* a, T* value, T* slope, F f) {
  if (slope) {
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < n; ++i) {
      const Activated<T> r = f(a[i]);
      value[i] = r.value;
      slope[i] = r.slope;
    }
  } else {
#pragma GCC ivdep
    for (ptrdiff_t i = 0; i < n; ++i) value[i] = f(a[i]).value;
  }
}

template <class T>
void activate(Activation activation, ptrdiff_t n, const T* a, T* value, T* slope) {
  switch (activation) {
    case Activation::relu:
      return each_activated(n, a, value, slope, [](T x) { return Activated<T>{x < 0 ? 0 : x, T(x > 0)}; });
    case Activation::identity: return each_activated(n, a, value, slope, [](T x) { return Activated<T>{x, 1}; });
    case Activation::tanh: return each_activated(n, a, value, slope, [](T x) { return activate_tanh(x); });
    case Activation::sigmoid: return each_activated(n, a, value, slope, [](T x) { return activate_sigmoid(x); });
    case Activation::gelu: return each_activated(n, a, value, slope, [](T x) { return activate_gelu(x); });
  }
}

template <class T>
MIMIC_INLINE void to_bfloat16(ptrdiff_t n, const T* values, uint16_t* to) {
  for (ptrdiff_t i = 0; i < n; ++i) to[i] = bfloat16_from(float(values[i]));
}

template <class T>
MIMIC_INLINE void from_bfloat16(ptrdiff_t n, const uint16_t* values, T* to) {
  for (ptrdiff_t i = 0; i < n; ++i) to[i] = T(float_from(values[i]));
}

// out[i] = x[i] * (bytes[i] < threshold ? scale : 0).
template <class T>
MIMIC_INLINE void apply_mask(ptrdiff_t n, const uint8_t* bytes, const Mask& mask, const T* x, T* out) {
  const T scale = T(mask.scale());
  const uint32_t threshold = mask.threshold;
#pragma GCC ivdep
  for (ptrdiff_t i = 0; i < n; ++i) out[i] = x[i] * (bytes[i] < threshold ? scale : T(0));
}

constexpr int64_t kRun = 1024;  // columns that are worked on at once, row by row

// For each row of a block, in runs of columns: f(width, column, index of the run's first value in (any, units), its
// mask bytes or null).
template <class F>
MIMIC_INLINE void each_masked_run(const Mask& mask, int64_t units, int64_t row0, int64_t rows, int64_t column0,
                                  int64_t columns, F f) {
  uint8_t bytes[kMaskRows * kRun];
  for (int64_t row = row0; row < row0 + rows; row += kMaskRows) {
    const int64_t height = least(row0 + rows - row, int64_t(kMaskRows));
    for (int64_t column = column0; column < column0 + columns; column += kRun) {
      const int64_t width = least(column0 + columns - column, kRun);
      for (int64_t u = 0; mask.drops() && u < width; u += kMaskUnits) {
        mask_tile_by_row(mask, mask.row + row, mask.unit + column + u, bytes + u, kRun);
      }
      for (int64_t i = 0; i < height; ++i) {
        const int64_t at = (row + i) * units + column;
        const uint8_t* const drawn = mask.drops() ? bytes + i * kRun : nullptr;
        width == kPanel ? f(int64_t(kPanel), column, at, drawn) : f(width, column, at, drawn);
      }
    }
  }
}

// out = x times the mask, row-major, for each of `outer` blocks of rows by units.
template <class T>
void dropout(const T* x, T* out, int64_t outer, int64_t rows, int64_t units, const Mask& mask) {
  const int64_t strips = ceil_div(rows, int64_t(kMaskRows));
  share(threads_for(outer * rows * units, kValuesWorthAThread), strips, [&](int64_t strip, int) {
    const int64_t row = strip * kMaskRows, height = least(rows - row, int64_t(kMaskRows));
    each_masked_run(mask, units, row, height, 0, units, [&](int64_t width, int64_t, int64_t at, const uint8_t* bytes) {
      for (int64_t block = 0; block < outer; ++block, at += rows * units) {
        bytes ? apply_mask(width, bytes, mask, x + at, out + at) : copy(width, x + at, out + at);
      }
    });
  });
}

// sums[i] (+)= sum over j of source[block][i][j], 32 values each, in a fixed order.
template <class T>
void sum_panels(const T* source, ptrdiff_t rows, ptrdiff_t blocks, ptrdiff_t block_stride, bool add, T* sums) {
  constexpr int kVectors = kPanel / kLanes<T>;
  for (ptrdiff_t i = 0; i < rows; ++i) {
    Vector<T> sum[kVectors] = {};
    for (ptrdiff_t block = 0; block < blocks; ++block) {
      for (int j = 0; j < kVectors; ++j) {
        sum[j] += load<Vector<T>>(source + block * block_stride + i * kPanel + j * kLanes<T>);
      }
    }
    for (int j = 1; j < kVectors; ++j) sum[0] += sum[j];
    T total = 0;
    for (int lane = 0; lane < kLanes<T>; ++lane) total += sum[0][lane];
    sums[i] = add ? sums[i] + total : total;
  }
}

template <class T>
void update_range(int64_t begin, int64_t end, const T* grad, const Parameter<T>& parameter) {
  T* const value = parameter.value;
  const Update<T> u = parameter.update;
  if (u.rule == Rule::adamw) {
    T *const mean = parameter.slot[0], *const square = parameter.slot[1];
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) adamw(value[i], mean[i], square[i], grad[i - begin], u);
  } else if (parameter.slot[0]) {
    T* const velocity = parameter.slot[0];
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) sgd_momentum(value[i], velocity[i], grad[i - begin], u);
  } else {
#pragma GCC ivdep
    for (int64_t i = begin; i < end; ++i) sgd(value[i], grad[i - begin], u);
  }
}

// Compiled once, in isa/elementwise.cpp.
extern template void activate(Activation, ptrdiff_t, const float*, float*, float*);
extern template void activate(Activation, ptrdiff_t, const double*, double*, double*);
extern template void update_range(int64_t, int64_t, const float*, const Parameter<float>&);
extern template void update_range(int64_t, int64_t, const double*, const Parameter<double>&);

template <class T>
void update(int64_t size, const T* grad, const Parameter<T>& parameter) {
  constexpr int64_t kPart = 1 << 14;
  share(threads_for(size, kValuesWorthAThread), ceil_div(size, kPart), [&](int64_t part, int) {
    update_range(part * kPart, least(size, (part + 1) * kPart), grad + part * kPart, parameter);
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
