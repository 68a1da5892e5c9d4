// An optimizer's numbers on the device, and its step for one element: csrc/common/optimizer.h.
#pragma once

#include "common/optimizer.h"
#include "launch.h"
#include "tile/operands.cuh"

namespace mimic {

__device__ __forceinline__ Update<float> update_of(const pymimic_parameter& p) {
  Update<float> u = p.device_update ? *p.device_update : p.update;
  u.nesterov = u.nesterov != 0;  // for the compiler: a predicate, not a number
  return u;
}

// The parameter has 0 slots (plain sgd), 1 (momentum) or 2 (adamw).
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

// Whether its slots fit its rule, where the host can tell, and its working operand has `columns` columns.
inline bool is_valid(const pymimic_parameter& p, int64_t columns) {
  if (p.working && !is_operand(p.working, p.ld, columns)) return false;
  if (p.slot[1] && !p.slot[0]) return false;
  return p.device_update || p.update.rule != Rule::adamw || slots_of(p) == 2;
}

}  // namespace mimic
