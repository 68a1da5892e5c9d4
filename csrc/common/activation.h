// f(a) and f'(a), for one element. In float the transcendental functions are plain arithmetic, so that loops over them
// become vector code and CPU and GPU agree. In double they are the C library's.
#pragma once

#include "common/host_device.h"

namespace mimic {

enum class Activation : int { relu, identity, tanh, sigmoid, gelu };

template <class T>
struct Activated {
  T value, slope;
};

// e^x by x = n ln 2 + r, |r| <= ln 2 / 2, and the series of e^r: about 1 unit in the last place. Overflows to
// infinity, underflows to 0 below -87, and NaN stays NaN.
MIMIC_HD float exponential(float x) {
  const float clamped = x < -87.0f ? -87.0f : x > 88.7f ? 88.7f : x;
  const float shifted = clamped * 1.44269504f + 12582912.0f;  // rounds to an integer in the low mantissa bits
  const float n = shifted - 12582912.0f;
  const float r = clamped - n * 0.693359375f + n * 2.12194440e-4f;
  float p = 1.0f / 5040;
  p = p * r + 1.0f / 720;
  p = p * r + 1.0f / 120;
  p = p * r + 1.0f / 24;
  p = p * r + 1.0f / 6;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  int32_t exponent;
  __builtin_memcpy(&exponent, &shifted, 4);
  // n reaches 128, one more than an exponent field holds, so 2^n is made in two halves.
  const int32_t whole = exponent - 0x4B400000, half = whole >> 1;
  const int32_t low_bits = (half + 127) << 23, high_bits = (whole - half + 127) << 23;
  float low, high;
  __builtin_memcpy(&low, &low_bits, 4);
  __builtin_memcpy(&high, &high_bits, 4);
  const float e = p * low * high;
  return x != x ? x : x < -87.0f ? 0.0f : x > 88.7f ? __builtin_inff() : e;
}
MIMIC_HD double exponential(double x) { return __builtin_exp(x); }

// 1 / x for x >= 1. A correctly rounded division on the GPU is a branch and a call for each element.
MIMIC_HD float reciprocal(float x) {
#ifdef __CUDA_ARCH__
  float result;
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(result) : "f"(x));
  return result;
#else
  return 1.0f / x;
#endif
}

MIMIC_HD float hyperbolic_tangent(float x) {
  const float size = __builtin_fabsf(x), square = x * x;
  // Odd series below 0.6 (minimax fit), where 1 - 2 / (e^2x + 1) would cancel.
  float p = -0.00586075909f;
  p = p * square + 0.0207695435f;
  p = p * square + -0.0537769973f;
  p = p * square + 0.133318568f;
  p = p * square + -0.33333296f;
  const float small = x + x * square * p;
  const float large = 1.0f - 2.0f * reciprocal(exponential(2.0f * size) + 1.0f);
  return size < 0.6f ? small : __builtin_copysignf(large, x);
}
MIMIC_HD double hyperbolic_tangent(double x) { return __builtin_tanh(x); }

// exp(-x^2) and erfc(x) for x >= 0: erfc = exp(-x^2) t q(t), t = 1 / (1 + 0.4 x), q fitted on [0, 10] to 6e-8.
template <class T>
struct Erfc {
  T gauss, erfc;
};

// erfc(x) = e^-x^2 t q
struct ErfcFactors {
  float t, q;
};

MIMIC_HD ErfcFactors erfc_factors(float x) {
  const float t = reciprocal(1.0f + 0.4f * x);
  float q = 0.0412533315f;
  q = q * t - 0.140320631f;
  q = q * t + 0.0839901064f;
  q = q * t + 0.0879611967f;
  q = q * t + 0.0797585966f;
  q = q * t + 0.193392343f;
  q = q * t + 0.201887802f;
  q = q * t + 0.226443083f;
  q = q * t + 0.225634233f;
  return {t, q};
}

MIMIC_HD Erfc<float> complementary_error(float x) {
  const ErfcFactors f = erfc_factors(x);
  const float gauss = exponential(-x * x);
  return {gauss, gauss * f.t * f.q};
}
MIMIC_HD Erfc<double> complementary_error(double x) { return {__builtin_exp(-x * x), __builtin_erfc(x)}; }

template <class T>
MIMIC_HD Activated<T> activate_tanh(T a) {
  const T h = hyperbolic_tangent(a);
  return {h, 1 - h * h};
}

template <class T>
MIMIC_HD Activated<T> activate_sigmoid(T a) {
  const T h = T(0.5) * (1 + hyperbolic_tangent(T(0.5) * a));
  return {h, h * (1 - h)};
}

// The erf form: a Phi(a), and Phi(a) + a phi(a).
template <class T>
MIMIC_HD Activated<T> activate_gelu(T a) {
  const T x = a * T(0.70710678118654752440), size = x < 0 ? -x : x;
  const Erfc<T> e = complementary_error(size);
  const T cdf = x < 0 ? T(0.5) * e.erfc : 1 - T(0.5) * e.erfc;
  return {a * cdf, cdf + a * T(0.39894228040143267794) * e.gauss};
}

}  // namespace mimic
