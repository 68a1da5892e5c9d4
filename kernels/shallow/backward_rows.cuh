// What the launcher of backward_rows_sm80.cu may choose instead of its own kernel.
#pragma once

#include "tile/operands.cuh"

namespace mimic {

constexpr int kBackwardRows90K = 256, kBackwardRows90C = 192;

// Whether the kernel of backward_rows_sm90a.cu is for this problem and this device.
bool takes_backward_rows_90(const pymimic_shallow& p);

// dz (splits, B, k): the sums of each part of H, which has `slabs` slabs of 64 units.
cudaError_t run_backward_rows_90(const pymimic_shallow& p, const void* dy, int64_t lddy, int slabs, int splits,
                                 float* dz, cudaStream_t stream);

}  // namespace mimic
