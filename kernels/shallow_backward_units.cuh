// What the launcher of shallow_backward_units.cu may choose instead of its own kernel.
#pragma once

#include "gradients.cuh"
#include "shallow.cuh"

namespace mimic {

constexpr int kBackwardUnits90Columns = 256;  // of U, and of W

// Whether the kernel of shallow_backward_units_90.cu, which makes dU and dW, is for this problem and this device.
bool takes_backward_units_90(const pymimic_shallow& p);

cudaError_t run_backward_units_90(const pymimic_shallow& p, const void* dy, int64_t lddy, const Gradient& dU,
                                  const Gradient& db, const Gradient& dW, cudaStream_t stream);

}  // namespace mimic
