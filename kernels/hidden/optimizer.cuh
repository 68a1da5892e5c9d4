// An optimizer's numbers on the device, and its step for one element: csrc/common/optimizer.h.
#pragma once

#include "common/optimizer.h"
#include "launch.h"
#include "tile/operands.cuh"

namespace mimic {

__device__ __forceinline__ Update<float> update_of(const pymimic_parameter& p) {
  const pymimic_update u = p.device_update ? *p.device_update : p.update;
  return {u.rule == PYMIMIC_ADAMW ? Rule::adamw : Rule::sgd,
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

// `slots` is how many the parameter has: 0 (plain sgd), 1 (momentum) or 2 (adamw).
__device__ __forceinline__ void step(const Update<float>& u, int slots, float& value, float& first, float& second,
                                     float grad) {
  if (slots == 2)
    adamw(value, first, second, grad, u);
  else if (slots == 1)
    sgd_momentum(value, first, grad, u);
  else
    sgd(value, grad, u);
}

MIMIC_HD int slots_of(const pymimic_parameter& p) { return p.slot[0] == nullptr ? 0 : p.slot[1] == nullptr ? 1 : 2; }

// Slots as its rule has them, where the host can tell, and the working operand of that many columns.
inline bool is_valid(const pymimic_parameter& p, int64_t columns) {
  if (p.working && !is_operand(p.working, p.ld, columns)) return false;
  if (p.slot[1] && !p.slot[0]) return false;
  return p.device_update || p.update.rule != PYMIMIC_ADAMW || slots_of(p) == 2;
}

}  // namespace mimic
