// The passes whose products are of bfloat16, whichever way these are made.
#pragma once

#include "cpu/amx/shallow.h"
#include "cpu/shallow_pairs.h"

namespace mimic {
namespace MIMIC_ISA {

// By the microkernel, on pairs of type E.
template <class E>
struct ByPairs {
  static void forward(const ShallowForwardBf16& f) { shallow_forward_bf16<E>(f); }
  static void backward(const ShallowBackwardBf16& f, const Gradients<float>& out) {
    shallow_backward_bf16_into<E>(f, out);
  }
};

// By tiles, of format F.
template <class F>
struct ByTiles {
  static void forward(const ShallowForwardBf16& f) { shallow_forward_tiles<F>(f); }
  static void backward(const ShallowBackwardBf16& f, const Gradients<float>& out) {
    shallow_backward_tiles_into<F>(f, out);
  }
};

// dc (C) = sums of dy (B, C) over its rows, as they came.
inline void sum_rows(const Source& dy, int64_t B, int64_t C, float* dc) {
  with_source(dy, [&](const auto* values) {
    for (int64_t j = 0; j < C; ++j) dc[j] = 0;
    for (int64_t i = 0; i < B; ++i) {
      for (int64_t j = 0; j < C; ++j) dc[j] += value_of(values[i * C + j]);
    }
  });
}

template <class By>
void backward_bf16(const ShallowBackwardBf16& f) {
  By::backward(f, Gradients<float>(f.shape, f.dU, f.db, f.dW));
  if (f.dc) sum_rows(f.dy, f.shape.B, f.shape.C, f.dc);
}

template <class By>
void step_bf16(const ShallowStepBf16& f) {
  sum_rows(f.dy, f.shape.B, f.shape.C, f.dc);
  const ShallowBackwardBf16 back = {
      f.shape, f.dy,    f.z,    {f.U.value, false}, {f.W.value, false}, f.b.value, f.saved, f.dz, nullptr,
      nullptr, nullptr, nullptr};
  By::backward(back, Gradients<float>(f.shape, f.U, f.b, f.W));
  update_range<float>(0, f.shape.C, f.dc, f.c);
}

template <class By>
constexpr ShallowBf16Kernels bf16_kernels = {By::forward, backward_bf16<By>, step_bf16<By>};

}  // namespace MIMIC_ISA
}  // namespace mimic
