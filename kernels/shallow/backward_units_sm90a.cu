// dU = da^T z, db = column sums of da, dW = h^T dy, stored or used at once for an optimizer step, for sm_90a: wgmma,
// fed by the copy engine. For problems that need both dU and dW and whose units' weights fit shared memory; the
// launcher has backward_units_sm80.cu do the others.
//
// A block owns 64 hidden units. One warp walks ahead over slabs of 64 rows and has the copy engine bring the pieces of
// dy, then those of z, into a ring. Two warpgroups follow; units are the rows of their products. Where U and W have
// many columns, the first warpgroup makes W dy^T and U z^T, and from them, in its registers, da^T as the A operand of
// da^T z; the second makes U z^T as well, and h^T as the A operand of h^T dy. Where they have few columns, the
// warpgroups alternate: each makes both products of every other slab, and h is made once.
#include "shallow/backward_units_sm90a_alternating.cuh"
#include "tile/launch.cuh"

namespace mimic {
namespace {

// A consumer warp of the warpgroup that makes dU and db, or of the one that makes dW.
template <bool makes_dU>
__device__ __forceinline__ void consume(const BackwardUnits& f, const SharedLayout& shared) {
  const int lane = threadIdx.x % 32;
  const auto warp_unit = [] { return fresh_thread() / 32 % 4 * 16; };
  const int pieces = makes_dU ? f.U_pieces : f.W_pieces;
  RingPosition next = {kStages}, oldest = next, first = next;  // to read next; not released; of what is summed
  const auto release = [&](const RingPosition& end) {          // all pieces before it
    for (; oldest.slot != end.slot; oldest.advance())
      if (lane == 0) mbarrier_arrive(shared.ring.emptied(oldest.slot));
  };

  float sums[kPieces][8][4] = {}, dh[1][kSlabTiles][4], s[1][kSlabTiles][4], db[2] = {};
  uint32_t left[kSlab / 16][4];
  const auto make_left = [&](int slab) {
    RingPosition first_dy = next;
    if constexpr (makes_dU) {
      for (int piece = 0; piece < f.W_pieces; ++piece, next.advance()) {
        start_along(dh[0], shared, next, 0, piece, f.W_groups);
        wgmma_wait<1>();
        release(next);
      }
    } else {
      for (int piece = 0; piece < f.W_pieces; ++piece) next.advance();
    }
    const RingPosition first_z = next;
    for (int piece = 0; piece < f.U_pieces; ++piece, next.advance())
      start_along(s[0], shared, next, shared.U, piece, f.U_groups);
    MaskBits<kSlabTiles> mask_bits;
    if (f.mask.threshold < 256)
      mask_bits = mask_bits_of_slab(load_shared<MaskState>(shared.mask), lane, slab * kSlab, warp_unit());
    wgmma_wait<0>();
    wgmma_done(s[0]);
    first = makes_dU ? first_z : first_dy;
    release(first);

    add_unit_bias(s[0], shared.bias + warp_unit() * uint32_t(sizeof(float)), lane);
    if constexpr (makes_dU) {
      wgmma_done(dh[0]);
      activate_and_differentiate<true>(f.activation, s, dh);
    } else {
      activate<true>(f.activation, s[0]);
    }
    float (&made)[kSlabTiles][4] = makes_dU ? dh[0] : s[0];
    if (f.mask.threshold < 256) mask_bits.apply(made, load_shared<MaskState>(shared.mask).scale);
    if constexpr (makes_dU) add_up(db, made);
    to_fragments<Bf16>(left, made);
    wgmma_fence();
  };
  const auto start_sums = [&] {  // asynchronously: the next make_left waits for them
    RingPosition place = first;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      if (piece >= pieces) continue;
      if (!makes_dU) mbarrier_wait(shared.ring.filled(place.slot), place.parity);
      const uint64_t b = piece_descriptor(shared.ring.slot(place.slot));
#pragma unroll
      for (int step = 0; step < kSlab / 16; ++step) wgmma_down<Bf16>(sums[piece], left[step], b + step * kDepthStep);
      place.advance();
    }
    wgmma_commit();
  };

  mbarrier_wait(shared.weights_barrier, 0);
  wgmma_fence();
  make_left(0);
  // ptxas wants no product under way where the loop begins again.
  for (int slab = 1; slab < f.slabs; ++slab) {
    start_sums();
    make_left(slab);
  }
  start_sums();
  wgmma_wait<0>();
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) wgmma_done(sums[piece]);

  // Sums go through shared memory, so that a warp's threads access neighbouring elements.
  sync_some<kConsumerThreads>(1);
  const uint32_t tile = shared.ring.slots + (makes_dU ? 0 : kTileBytes);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const int my_unit = warp_unit() + 8 * i + lane / 4;
#pragma unroll
    for (int n = 0; n < 8 * kPieces; ++n) {
      if (n / 8 >= pieces) continue;
      store_shared(tile + my_unit * kTileStride + (8 * n + 2 * (lane % 4)) * uint32_t(sizeof(float)),
                   float2{sums[n / 8][n % 8][2 * i], sums[n / 8][n % 8][2 * i + 1]});
    }
    if constexpr (makes_dU) {
      db[i] = sum_of_quad(db[i]);
      if (lane % 4 == 0) store_shared(shared.db + my_unit * uint32_t(sizeof(float)), db[i]);
    }
  }
}

// Stores dU, dW and db or takes a step with them, one after the other.
__device__ __forceinline__ void finish_all(const BackwardUnits& f, const SharedLayout& shared, int unit) {
  const int units = f.H - unit < kUnits ? f.H - unit : kUnits;
  finish<2, kConsumerThreads>(f.dU, {shared.ring.slots, kTileStride, unit, units, 0, f.dU.columns});
  finish<2, kConsumerThreads>(f.dW, {shared.ring.slots + kTileBytes, kTileStride, unit, units, 0, f.dW.columns});
  if (f.db.needed) finish_some<2, 1, kConsumerThreads>(f.db, {shared.db, sizeof(float), unit, units, 0, 1}, 0, units);
}

__global__ void __launch_bounds__(kThreads, 1) shallow_backward_units_sm90a(const __grid_constant__ BackwardUnits f) {
  if constexpr (kForSm90a) {
    const int group = uniform(threadIdx.x / 128);
    const SharedLayout shared = shared_layout(f.U_pieces, f.W_pieces);
    const int unit = int(blockIdx.x) * kUnits;
    if (threadIdx.x == 0) {
      MaskState mask = mask_state(f.mask);
      mask.unit_tile += unit / kMaskUnits;  // counted from this block's first unit on
      store_shared(shared.mask, mask);
      mbarrier_init(shared.weights_barrier, 1);
      open_ring(shared.ring, alternates(f.U_pieces + f.W_pieces) ? 4 : kConsumerThreads / 32);
      mbarrier_init_fence();
    }
    if (threadIdx.x < kUnits) {
      const int my_unit = unit + int(threadIdx.x);
      store_shared(shared.bias + threadIdx.x * uint32_t(sizeof(float)), my_unit < f.H ? f.b[my_unit] : 0.0f);
    }
    sync_block();
    if (group == 2) {
      give_registers<kProducerRegisters>();
      if (threadIdx.x == kConsumerThreads) produce(f, unit, shared);
    } else {
      take_registers<kConsumerRegisters>();
      if (alternates(f.U_pieces + f.W_pieces))
        consume_alternating(f, shared, group);
      else
        group == 0 ? consume<true>(f, shared) : consume<false>(f, shared);
      sync_some<kConsumerThreads>(1);
      finish_all(f, shared, unit);
    }
  } else {
    not_for_this_chip();
  }
}

}  // namespace

bool has_backward_units_sm90a() { return has_code_for_sm_90a(shallow_backward_units_sm90a); }

cudaError_t run_backward_units_sm90a(const pymimic_shallow& p, const void* dy, int64_t lddy, const UnitGradients& to,
                                     const UnitPlan& plan, cudaStream_t stream) {
  BackwardUnits f;
  cudaError_t error = make_tensor_map(f.z, p.z, p.ldz, p.B, p.k, p.precision, kSlab);
  if (error == cudaSuccess) error = make_tensor_map(f.dy, dy, lddy, p.B, p.C, p.precision, kSlab);
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
  return launch(shallow_backward_units_sm90a, dim3(unsigned(plan.unit_blocks)), kThreads,
                shared_layout(f.U_pieces, f.W_pieces).bytes, stream, f);
}

}  // namespace mimic
