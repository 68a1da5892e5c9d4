// The kernels whose blocks own rows of the output and sum parts of H, y or dz: their plan, and what forward.cu and
// backward_rows.cu choose from.
#pragma once

#include "tile/launch.cuh"
#include "tile/operands.cuh"
#include "tile/splits.cuh"

namespace mimic {

struct RowPlan : pymimic_plan {
  bool sm90a;
  int U_pieces, W_pieces, chunk_pieces, slabs;  // chunk_pieces: of the output's columns, that a block owns
  int64_t row_blocks;

  dim3 grid() const { return dim3(unsigned(row_blocks), unsigned(splits), unsigned(column_chunks)); }
};

// For an output of so many columns, of which a block can own `most`.
inline RowPlan plan_rows(const pymimic_shallow& p, int rows, int slab, int64_t columns, int most) {
  const int pieces = int(pieces_of(columns, p.precision)), most_pieces = int(pieces_of(most, p.precision));
  RowPlan plan = {};
  plan.row_block = rows, plan.slab = slab;
  plan.row_blocks = (p.B + rows - 1) / rows;
  plan.slabs = int((p.H + slab - 1) / slab);
  plan.U_pieces = p.k > 0 ? int(pieces_of(p.k, p.precision)) : 1;
  plan.W_pieces = int(pieces_of(p.C, p.precision));
  plan.column_chunks = (pieces + most_pieces - 1) / most_pieces;
  plan.chunk_pieces = pieces ? (pieces + plan.column_chunks - 1) / plan.column_chunks : 0;
  plan.splits = choose_splits(p.splits, plan.row_blocks * plan.column_chunks, plan.slabs, multiprocessors());
  plan.workspace = split_bytes(plan.splits, p.B * columns);
  return plan;
}

constexpr int kForwardRows = 128, kForwardC = 192;  // rows and columns of y that a block can own
constexpr int kForwardSmallC = 64;                  // up to here a warp of the sm_80 kernel owns twice the rows
constexpr int kForwardSlabSm80 = 64, kForwardSlabSm90a = 128;

// Where a kernel stores its sums: in y with c added where one block sums all of H, else in the workspace without c.
struct ForwardTarget {
  float* sums;     // (splits, B, C)
  const float* c;  // or null
};

// The sm_90a kernel is for operands of 16 bits and B, H, C > 0.
cudaError_t run_forward_sm80(const pymimic_shallow& p, const RowPlan& plan, const ForwardTarget& target,
                             cudaStream_t stream);
cudaError_t run_forward_sm90a(const pymimic_shallow& p, const RowPlan& plan, const ForwardTarget& target,
                              cudaStream_t stream);
bool has_forward_sm90a();  // on this device

constexpr int kBackwardRows = 128, kBackwardRowsK = 256;  // rows and columns of dz that a block can own
constexpr int kBackwardRowsSm90aC = 192;                  // columns of dy that fit the sm_90a kernel's shared memory

// dz (splits, B, k): the sums of each part of H. The sm_90a kernel is for bfloat16, H, k, C > 0 and one column chunk.
cudaError_t run_backward_rows_sm80(const pymimic_shallow& p, const void* dy, int64_t lddy, const RowPlan& plan,
                                   float* dz, cudaStream_t stream);
cudaError_t run_backward_rows_sm90a(const pymimic_shallow& p, const void* dy, int64_t lddy, const RowPlan& plan,
                                    float* dz, cudaStream_t stream);
bool has_backward_rows_sm90a();  // on this device

}  // namespace mimic
