// What the launcher of backward_units_sm80.cu may choose instead of its own kernel.
#pragma once

#include "hidden/gradients.cuh"
#include "tile/operands.cuh"

namespace mimic {

constexpr int kBackwardUnits90Columns = 256;  // of U, and of W

// Whether the kernel of backward_units_sm90a.cu, which makes dU and dW, is for this problem and this device.
bool takes_backward_units_90(const pymimic_shallow& p);

cudaError_t run_backward_units_90(const pymimic_shallow& p, const void* dy, int64_t lddy, const Gradient& dU,
                                  const Gradient& db, const Gradient& dW, cudaStream_t stream);

}  // namespace mimic
