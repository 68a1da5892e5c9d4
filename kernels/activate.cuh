// f over the accumulators of a warp: one uniform branch, then straight code.
#pragma once

#include "../csrc/common/activation.h"
#include "launch.h"

namespace mimic {

template <int tiles, class F>
__device__ __forceinline__ void each(float (&a)[tiles][4], F f) {
#pragma unroll
  for (int n = 0; n < tiles; ++n)
#pragma unroll
    for (int i = 0; i < 4; ++i) a[n][i] = f(a[n][i]);
}

template <int tiles>
__device__ __forceinline__ void activate(pymimic_activation activation, float (&a)[tiles][4]) {
  switch (activation) {
    case PYMIMIC_RELU: return each(a, [](float x) { return x < 0 ? 0.0f : x; });  // NaN stays NaN
    case PYMIMIC_IDENTITY: return;
    case PYMIMIC_TANH: return each(a, [](float x) { return activate_tanh(x).value; });
    case PYMIMIC_SIGMOID: return each(a, [](float x) { return activate_sigmoid(x).value; });
    case PYMIMIC_GELU: return each(a, [](float x) { return activate_gelu(x).value; });
  }
}

}  // namespace mimic
