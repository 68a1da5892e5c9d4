// f over the accumulators of a warp, behind one uniform branch.
#pragma once

#include "common/activation.h"
#include "hidden/activate_16bit.cuh"
#include "launch.h"

namespace mimic {

// a = f(a), two tiles in each turn; the other tiles move up through their registers. So the code of a long f appears
// once, and few intermediate values are live at a time.
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

// a = f(a), in one go: for short f.
template <int tiles, class F>
__device__ __forceinline__ void each_at_once(float (&a)[tiles][4], F f) {
#pragma unroll
  for (int j = 0; j < 4 * tiles; ++j) a[j / 4][j % 4] = f(a[j / 4][j % 4]);
}

// With to_16bit the result will be rounded to 16 bits.
template <bool to_16bit = false, int tiles>
__device__ __forceinline__ void activate(pymimic_activation activation, float (&a)[tiles][4]) {
  switch (activation) {
    case PYMIMIC_RELU:
#pragma unroll
      for (int j = 0; j < 4 * tiles; ++j) a[j / 4][j % 4] = relu(a[j / 4][j % 4]);
      return;
    case PYMIMIC_IDENTITY: return;
    case PYMIMIC_TANH:
      if constexpr (to_16bit) return each_at_once(a, [](float x) { return tanh_16bit(x).value; });
      return each_in_turn(a, [](float x) { return activate_tanh(x).value; });
    case PYMIMIC_SIGMOID:
      if constexpr (to_16bit) return each_at_once(a, [](float x) { return sigmoid_16bit(x).value; });
      return each_in_turn(a, [](float x) { return activate_sigmoid(x).value; });
    case PYMIMIC_GELU:
      if constexpr (to_16bit) return each_at_once(a, [](float x) { return gelu_16bit(x).value; });
      return each_in_turn(a, [](float x) { return activate_gelu(x).value; });
  }
}

// The same over two arrays, two elements at a time: f(x, y) changes both.
template <int rows, int tiles, class F>
__device__ __forceinline__ void each_in_turn(float (&a)[rows][tiles][4], float (&d)[rows][tiles][4], F f) {
  constexpr int all = 4 * rows * tiles;
#pragma unroll 1
  for (int turn = 0; turn < all; turn += 2) {
    float done_a[2] = {a[0][0][0], a[0][0][1]}, done_d[2] = {d[0][0][0], d[0][0][1]};
    f(done_a[0], done_d[0]);
    f(done_a[1], done_d[1]);
#pragma unroll
    for (int j = 0; j < all; ++j) {
      const int next = (j + 2) % all;
      float &to_a = a[j / 4 / tiles][j / 4 % tiles][j % 4], &to_d = d[j / 4 / tiles][j / 4 % tiles][j % 4];
      to_a = j < all - 2 ? a[next / 4 / tiles][next / 4 % tiles][next % 4] : done_a[j % 2];
      to_d = j < all - 2 ? d[next / 4 / tiles][next / 4 % tiles][next % 4] : done_d[j % 2];
    }
  }
}

template <int rows, int tiles, class F>
__device__ __forceinline__ void each_at_once(float (&a)[rows][tiles][4], float (&d)[rows][tiles][4], F f) {
#pragma unroll
  for (int j = 0; j < 4 * rows * tiles; ++j)
    f(a[j / 4 / tiles][j / 4 % tiles][j % 4], d[j / 4 / tiles][j / 4 % tiles][j % 4]);
}

// d *= relu'(a).
template <int tiles>
__device__ __forceinline__ void differentiate_relu(const float (&a)[tiles][4], float (&d)[tiles][4]) {
#pragma unroll
  for (int j = 0; j < 4 * tiles; ++j) d[j / 4][j % 4] *= a[j / 4][j % 4] > 0 ? 1.0f : 0.0f;
}

// a = f(a) and d *= f'(a).
template <bool to_16bit = false, int rows, int tiles>
__device__ __forceinline__ void activate_and_differentiate(pymimic_activation activation, float (&a)[rows][tiles][4],
                                                           float (&d)[rows][tiles][4]) {
  const auto both = [](Activated<float> f, float& x, float& slope) { x = f.value, slope *= f.slope; };
  switch (activation) {
    case PYMIMIC_RELU:
#pragma unroll
      for (int j = 0; j < 4 * rows * tiles; ++j) {
        float &x = a[j / 4 / tiles][j / 4 % tiles][j % 4], &slope = d[j / 4 / tiles][j / 4 % tiles][j % 4];
        slope *= x > 0 ? 1.0f : 0.0f;
        x = relu(x);
      }
      return;
    case PYMIMIC_IDENTITY: return;
    case PYMIMIC_TANH:
      if constexpr (to_16bit) return each_at_once(a, d, [&](float& x, float& slope) { both(tanh_16bit(x), x, slope); });
      return each_in_turn(a, d, [&](float& x, float& slope) { both(activate_tanh(x), x, slope); });
    case PYMIMIC_SIGMOID:
      if constexpr (to_16bit)
        return each_at_once(a, d, [&](float& x, float& slope) { both(sigmoid_16bit(x), x, slope); });
      return each_in_turn(a, d, [&](float& x, float& slope) { both(activate_sigmoid(x), x, slope); });
    case PYMIMIC_GELU:
      if constexpr (to_16bit) return each_at_once(a, d, [&](float& x, float& slope) { both(gelu_16bit(x), x, slope); });
      return each_in_turn(a, d, [&](float& x, float& slope) { both(activate_gelu(x), x, slope); });
  }
}

}  // namespace mimic
