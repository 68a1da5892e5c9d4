// One element's optimizer step on the device: csrc/common/optimizer.h over the arrays of a pymimic_parameter.
#pragma once

#include "../csrc/common/bfloat16.h"
#include "../csrc/common/optimizer.h"
#include "launch.h"

namespace mimic {

__device__ __forceinline__ Update<float> update_of(const pymimic_parameter& p) {
  pymimic_update u = p.update;
  if (p.device_update) u = *p.device_update;
  return {u.rule == PYMIMIC_SGD ? Rule::sgd : Rule::adamw,
          u.nesterov != 0,
          u.learning_rate,
          u.weight_decay,
          u.momentum,
          u.beta1,
          u.beta2,
          u.epsilon,
          u.step_size,
          u.inverse_correction2};
}

// An element's value and what its slots hold of it.
struct Stepped {
  float value, slot[2];
};

__device__ __forceinline__ int slots_of(const Update<float>& u) {
  return u.rule == Rule::adamw ? 2 : u.momentum != 0 ? 1 : 0;
}

__device__ __forceinline__ void step(Stepped& s, float gradient, const Update<float>& u) {
  if (u.rule == Rule::adamw)
    adamw(s.value, s.slot[0], s.slot[1], gradient, u);
  else if (u.momentum != 0)
    sgd_momentum(s.value, s.slot[0], gradient, u);
  else
    sgd(s.value, gradient, u);
}

// Element i of an operand of 2 (bfloat16) or 4 bytes an element.
template <int bytes>
__device__ __forceinline__ void store_working(void* operand, int64_t i, float value) {
  if constexpr (bytes == 2)
    static_cast<uint16_t*>(operand)[i] = bfloat16_from(value);
  else
    static_cast<float*>(operand)[i] = value;
}

}  // namespace mimic
