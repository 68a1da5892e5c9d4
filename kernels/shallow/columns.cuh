// How many columns the sm_90a kernels have: in kernels of their own where the compiler knows it. Then no branch on it
// is left, which would take instructions and end a group of products.
#pragma once

#include "tile/operands.cuh"
#include "tile/swizzled.cuh"

namespace mimic {

// Pieces of U and W, all groups of columns in each; 0 where the problem says how many. Known ones go with relu alone.
// With `narrow_W`, W has one group: the products whose columns are those of W have 16 of them, not 64.
template <int U, int W, bool narrow_W = false>
struct Columns {
  static constexpr int kU = U, kW = W;
  static constexpr bool kKnown = U > 0, kNarrow = narrow_W;
};
using AnyColumns = Columns<0, 0>;
using NarrowColumns = Columns<1, 1, true>;

template <class C, class Kernel>
__device__ __forceinline__ int U_pieces_of(const Kernel& f) {
  return C::kKnown ? C::kU : f.U_pieces;
}
template <class C, class Kernel>
__device__ __forceinline__ int W_pieces_of(const Kernel& f) {
  return C::kKnown ? C::kW : f.W_pieces;
}

template <class C, class Kernel>
__device__ __forceinline__ pymimic_activation activation_of(const Kernel& f) {
  return C::kKnown ? PYMIMIC_RELU : f.activation;
}

// Groups of columns from a piece on.
template <class C, class Kernel>
__device__ __forceinline__ int U_groups_from(const Kernel& f, int piece) {
  return C::kKnown ? kPieceGroups : f.U_groups - piece * kPieceGroups;
}
template <class C, class Kernel>
__device__ __forceinline__ int W_groups_from(const Kernel& f, int piece) {
  return C::kNarrow ? 1 : C::kKnown ? kPieceGroups : f.W_groups - piece * kPieceGroups;
}

// run(Columns) with those for a problem.
template <class Run>
cudaError_t with_columns(const pymimic_shallow& p, Run run) {
  const int U = groups_of(p.k), W = groups_of(p.C);
  if (p.activation != PYMIMIC_RELU) return run(AnyColumns());
  if (U >= 1 && U <= kPieceGroups && W == 1) return run(NarrowColumns());
  if (U == 2 * kPieceGroups && W == 2 * kPieceGroups) return run(Columns<2, 2>());
  if (U == 4 * kPieceGroups && W == 3 * kPieceGroups) return run(Columns<4, 3>());
  return run(AnyColumns());
}

}  // namespace mimic
