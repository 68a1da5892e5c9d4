// The kernels whose blocks own hidden units: their plan, and what backward_units.cu chooses from.
#pragma once

#include "hidden/gradients.cuh"
#include "tile/operands.cuh"

namespace mimic {

constexpr int kBackwardUnits = 64,
              kBackwardUnitsColumns = 448;       // units, and columns of dU and dW, that a block can own
constexpr int kBackwardUnitsSm90aColumns = 256;  // of dU, and of dW
constexpr int kBackwardUnitsSlabPieces = 2;      // a slab of the sm_80 kernel: so many pieces of rows

struct UnitPlan : pymimic_plan {
  bool sm90a;
  int U_pieces, W_pieces, dU_pieces, dW_pieces;  // the last two: 0 where not needed
  int unit_blocks, chunk_pieces;                 // chunk_pieces: of dU and dW, that a block owns
};

// What is made: dU, db and dW, in memory or in an optimizer step.
struct UnitGradients {
  Gradient dU, db, dW;
};

// The sm_90a kernel is for bfloat16, B, k, C > 0, both dU and dW, and one column chunk.
cudaError_t run_backward_units_sm80(const pymimic_shallow& p, const void* dy, int64_t lddy, const UnitGradients& to,
                                    const UnitPlan& plan, cudaStream_t stream);
cudaError_t run_backward_units_sm90a(const pymimic_shallow& p, const void* dy, int64_t lddy, const UnitGradients& to,
                                     const UnitPlan& plan, cudaStream_t stream);
bool has_backward_units_sm90a();  // on this device

}  // namespace mimic
