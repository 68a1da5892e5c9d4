// One value in, one value out: activations, masks, dropout, optimizers, sums over rows. Plain loops that the
// compiler turns into vector code.
#pragma once

#include "../common/bfloat16.h"
#include "kernels.h"
#include "mask.h"
#include "parallel.h"
#include "simd.h"

namespace mimic {
namespace MIMIC_ISA {

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

// values[i] *= bytes[i] < keep ? scale : 0.
template <class T>
MIMIC_INLINE void apply_mask(ptrdiff_t n, const uint8_t* bytes, const Mask& mask, T* values) {
  const T scale = T(mask.scale());
  for (ptrdiff_t i = 0; i < n; ++i) values[i] *= bytes[i] < mask.keep ? scale : T(0);
}

// out = x times the mask, row-major, for each of `outer` blocks of rows by units.
template <class T>
void dropout(const T* x, T* out, int64_t outer, int64_t rows, int64_t units, const Mask& mask) {
  const int64_t strips = ceil_div(rows, int64_t(kMaskRows));
  parallel(strips, [&](Team& team) {
    uint8_t bytes[kMaskRows * kMaskUnits];
    for (int64_t strip = team.begin(strips); strip < team.end(strips); ++strip) {
      const int64_t row = strip * kMaskRows, height = least(rows - row, int64_t(kMaskRows));
      for (int64_t unit = 0; unit < units; unit += kMaskUnits) {
        const int64_t width = least(units - unit, int64_t(kMaskUnits));
        if (mask.drops()) mask_tile_by_row(mask, mask.row + row, mask.unit + unit, bytes);
        for (int64_t block = 0; block < outer; ++block) {
          for (int64_t i = 0; i < height; ++i) {
            const int64_t at = (block * rows + row + i) * units + unit;
            __builtin_memmove(out + at, x + at, size_t(width) * sizeof(T));
            if (mask.drops()) apply_mask(width, bytes + i * kMaskUnits, mask, out + at);
          }
        }
      }
    }
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

template <class T>
void update(int64_t size, const T* grad, const Parameter<T>& parameter) {
  constexpr int64_t kWorthAThread = 1 << 14;
  parallel(size / kWorthAThread, [&](Team& team) {
    const int64_t begin = team.begin(size), end = team.end(size);
    update_range(begin, end, grad + begin, parameter);
  });
}

}  // namespace MIMIC_ISA
}  // namespace mimic
