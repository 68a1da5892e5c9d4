// One element's optimizer step: what `pymimic.backends.reference` defines in NumPy.
#pragma once

#include "common/host_device.h"

namespace mimic {

enum class Rule : int { sgd, adamw };

// The numbers of one step, the same for every element of an array. Kernels read them from device memory too.
template <class T>
struct Update {
  Rule rule;
  int nesterov;
  T learning_rate, weight_decay;
  T momentum;      // sgd; 0 means that there is no slot
  T beta1, beta2;  // adamw ...
  T epsilon;
  T step_size;            // learning_rate / (1 - beta1^t)
  T inverse_correction2;  // 1 / (1 - beta2^t)
};

template <class T>
MIMIC_HD void sgd(T& param, T grad, const Update<T>& u) {
  param -= u.learning_rate * (grad + u.weight_decay * param);
}

template <class T>
MIMIC_HD void sgd_momentum(T& param, T& velocity, T grad, const Update<T>& u) {
  const T g = grad + u.weight_decay * param;
  velocity = u.momentum * velocity + g;
  param -= u.learning_rate * (u.nesterov ? g + u.momentum * velocity : velocity);
}

MIMIC_HD float square_root(float x) { return __builtin_sqrtf(x); }
MIMIC_HD double square_root(double x) { return __builtin_sqrt(x); }

// Loshchilov & Hutter 2019, algorithm 2.
template <class T>
MIMIC_HD void adamw(T& param, T& mean, T& square, T grad, const Update<T>& u) {
  mean += (1 - u.beta1) * (grad - mean);
  square += (1 - u.beta2) * (grad * grad - square);
  param *= 1 - u.learning_rate * u.weight_decay;
  param -= u.step_size * mean / (square_root(square * u.inverse_correction2) + u.epsilon);
}

}  // namespace mimic
