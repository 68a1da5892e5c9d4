// f over the accumulators of a warp, behind one uniform branch.
#pragma once

#include "../csrc/common/activation.h"
#include "launch.h"

namespace mimic {

// a = f(a), two tiles at a time, the others moving up through their registers meanwhile: the code of a long f stays
// short, and so does the list of what must be held at once.
template <int tiles, class F>
__device__ __forceinline__ void each_in_turn(float (&a)[tiles][4], F f) {
  static_assert(tiles % 2 == 0);
#pragma unroll 1
  for (int turn = 0; turn < tiles; turn += 2) {
    float done[2][4];
#pragma unroll
    for (int j = 0; j < 8; ++j) done[j / 4][j % 4] = f(a[j / 4][j % 4]);
#pragma unroll
    for (int n = 0; n < tiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) a[n][i] = n < tiles - 2 ? a[(n + 2) % tiles][i] : done[n % 2][i];
  }
}

template <int tiles>
__device__ __forceinline__ void activate(pymimic_activation activation, float (&a)[tiles][4]) {
  switch (activation) {
    case PYMIMIC_RELU:
#pragma unroll
      for (int j = 0; j < 4 * tiles; ++j)
        a[j / 4][j % 4] = a[j / 4][j % 4] < 0 ? 0.0f : a[j / 4][j % 4];  // NaN stays NaN
      return;
    case PYMIMIC_IDENTITY: return;
    case PYMIMIC_TANH: return each_in_turn(a, [](float x) { return activate_tanh(x).value; });
    case PYMIMIC_SIGMOID: return each_in_turn(a, [](float x) { return activate_sigmoid(x).value; });
    case PYMIMIC_GELU: return each_in_turn(a, [](float x) { return activate_gelu(x).value; });
  }
}

}  // namespace mimic
