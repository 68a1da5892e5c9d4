// What the launcher of shallow_backward_rows.cu may choose instead of its own kernel.
#pragma once

#include "shallow.cuh"

namespace mimic {

constexpr int kBackwardRows90K = 256, kBackwardRows90C = 192;

// Whether the kernel of shallow_backward_rows_90.cu is for this problem and this device.
bool takes_backward_rows_90(const pymimic_shallow& p);

// dz (splits, B, k): the sums of each part of H, which has `slabs` slabs of 64 units.
cudaError_t run_backward_rows_90(const pymimic_shallow& p, const void* dy, int64_t lddy, int slabs, int splits,
                                 float* dz, cudaStream_t stream);

}  // namespace mimic
