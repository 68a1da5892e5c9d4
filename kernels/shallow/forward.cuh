// What the forward kernels of all generations share: how a problem is cut up, and the launcher's choice among them.
#pragma once

#include "tile/operands.cuh"

namespace mimic {

// What the shapes decide.
struct ForwardPlan {
  int U_pieces, W_pieces, column_blocks, slabs, splits;  // W_pieces: of one block
  int64_t row_blocks;
};

constexpr int kForwardRows = 128, kForwardC = 192;  // of y that a block can own
constexpr int kForwardSlab80 = 64, kForwardSlab90 = 128;

// Where a kernel leaves its sums: y with c where it makes all of H, else its part of the workspace without.
struct ForwardTarget {
  float* sums;     // (splits, B, C)
  const float* c;  // or null
};

// forward_sm90a.cu, for operands of 16 bits and B, H, C > 0; and whether the device has it.
cudaError_t run_forward_90(const pymimic_shallow& p, const ForwardPlan& how, const ForwardTarget& target,
                           cudaStream_t stream);
bool has_forward_90();

}  // namespace mimic
