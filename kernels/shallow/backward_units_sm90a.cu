// dU = da^T z, db = column sums of da, dW = h^T dy, stored or used at once for an optimizer step, for sm_90a: wgmma,
// fed by the copy engine. For problems that need both dU and dW and whose units' weights fit shared memory; the
// launcher has backward_units_sm80.cu do the others.
//
// A block owns 64 hidden units. One warp walks ahead over slabs of 64 rows and has the copy engine bring the pieces of
// dy, then those of z, into a ring. Two warpgroups follow; units are the rows of their products. Each makes W dy^T and
// U z^T of every other slab, and from them, in its registers, h^T and da^T as A operands. Where U and W have few
// columns, the warpgroup multiplies both of them by dy and z; the two warpgroups' sums are added at the end. Where they
// have many, the first warpgroup makes all of da^T z and the second one all of h^T dy: they trade h and da.
#include "shallow/backward_units_sm90a_alternating.cuh"
#include "shallow/backward_units_sm90a_trading.cuh"
#include "tile/launch.cuh"

namespace mimic {
namespace {

// Stores dU, dW and db or takes a step with them, one after the other.
__device__ __forceinline__ void finish_all(const BackwardUnits& f, const SharedLayout& shared, int unit) {
  const int units = f.H - unit < kUnits ? f.H - unit : kUnits;
  finish<2, kConsumerThreads>(f.dU, {shared.ring.slots, kTileStride, unit, units, 0, f.dU.columns});
  finish<2, kConsumerThreads>(f.dW, {shared.ring.slots + kTileBytes, kTileStride, unit, units, 0, f.dW.columns});
  if (f.db.needed) finish_some<2, 1, kConsumerThreads>(f.db, {shared.db, sizeof(float), unit, units, 0, 1}, 0, units);
}

template <class Columns>
__global__ void __launch_bounds__(kThreads, 1) shallow_backward_units_sm90a(const __grid_constant__ BackwardUnits f) {
  if constexpr (kForSm90a) {
    const int group = uniform(threadIdx.x / 128);
    const int U_pieces = U_pieces_of<Columns>(f), W_pieces = W_pieces_of<Columns>(f);
    const SharedLayout shared = shared_layout(U_pieces, W_pieces);
    const int unit = int(blockIdx.x) * kUnits;
    if (threadIdx.x == 0) {
      MaskState mask = mask_state(f.mask);
      mask.unit_tile += unit / kMaskUnits;  // counted from this block's first unit on
      store_shared(shared.mask, mask);
      mbarrier_init(shared.weights_barrier, 1);
      for (int warp = 0; warp < kConsumerThreads / 32; ++warp) mbarrier_init(shared.given + warp * 8, 1);
      open_ring(shared.ring, alternates(U_pieces + W_pieces) ? 4 : kConsumerThreads / 32);
      mbarrier_init_fence();
    }
    if (threadIdx.x < kUnits) {
      const int my_unit = unit + int(threadIdx.x);
      store_shared(shared.bias + threadIdx.x * uint32_t(sizeof(float)), my_unit < f.H ? f.b[my_unit] : 0.0f);
    }
    sync_block();
    if (group == 2) {
      give_registers<kProducerRegisters>();
      if (threadIdx.x == kConsumerThreads) produce<Columns>(f, unit, shared);
    } else {
      take_registers<kConsumerRegisters>();
      if constexpr (!Columns::kKnown || alternates(Columns::kU + Columns::kW))
        if (alternates(U_pieces + W_pieces)) consume_alternating<Columns>(f, shared, group);
      if constexpr (!Columns::kKnown || !alternates(Columns::kU + Columns::kW))
        if (!alternates(U_pieces + W_pieces)) consume_trading<Columns>(f, shared, group);
      sync_some<kConsumerThreads>(1);
      finish_all(f, shared, unit);
    }
  } else {
    not_for_this_chip();
  }
}

}  // namespace

bool has_backward_units_sm90a() { return has_code_for_sm_90a(shallow_backward_units_sm90a<AnyColumns>); }

cudaError_t run_backward_units_sm90a(const pymimic_shallow& p, const void* dy, int64_t lddy, const UnitGradients& to,
                                     const UnitPlan& plan, cudaStream_t stream) {
  BackwardUnits f;
  cudaError_t error = make_tensor_map(f.z, p.z, p.ldz, p.B, p.k, p.precision, kSlab);
  if (error == cudaSuccess) error = make_tensor_map(f.U, p.U, p.ldu, p.H, p.k, p.precision, kUnits);
  if (error == cudaSuccess) error = make_tensor_map(f.W, p.W, p.ldw, p.H, p.C, p.precision, kUnits);
  if (error != cudaSuccess) return error;
  f.b = p.b;
  f.dU = to.dU, f.db = to.db, f.dW = to.dW;
  f.H = int(p.H);
  f.slabs = int((p.B + kSlab - 1) / kSlab);
  f.U_pieces = plan.U_pieces, f.W_pieces = plan.W_pieces;
  f.U_groups = groups_of(p.k), f.W_groups = groups_of(p.C);
  f.activation = p.activation, f.mask = p.mask;
  return with_columns(p, [&](auto columns) {
    using C = decltype(columns);
    const int box_columns = C::kNarrow ? kNarrowColumns : kBoxColumns;
    const cudaError_t error = make_tensor_map(f.dy, dy, lddy, p.B, p.C, p.precision, kSlab, box_columns);
    if (error != cudaSuccess) return error;
    return launch(shallow_backward_units_sm90a<C>, dim3(unsigned(plan.unit_blocks)), kThreads,
                  shared_layout(f.U_pieces, f.W_pieces).bytes, stream, f);
  });
}

}  // namespace mimic
