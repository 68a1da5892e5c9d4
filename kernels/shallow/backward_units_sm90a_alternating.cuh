// The consumers of backward_units_sm90a.cu where U and W have few columns: the warpgroups alternate.
#pragma once

#include "shallow/backward_units_sm90a.cuh"

namespace mimic {
namespace {

// A consumer warp: its warpgroup makes dU, db and dW of every other slab.
__device__ __forceinline__ void consume_alternating(const BackwardUnits& f, const SharedLayout& shared, int group) {
  const int lane = threadIdx.x % 32, pieces = f.W_pieces + f.U_pieces;
  const auto warp_unit = [] { return fresh_thread() / 32 % 4 * 16; };
  RingPosition next = {shared.ring.stages}, first = next;  // the piece to read next; the first one of what is summed
  const auto skip_slab = [&] {
    for (int piece = 0; piece < pieces; ++piece) next.advance();
  };
  const auto start_next = [&](float (&products)[kSlabTiles][4], uint32_t weights, int piece, int groups) {
    start_along(products, shared, next, weights, piece, groups);
    next.advance();
  };

  float sums[kAlternatingPieces][8][4] = {}, dh[1][kSlabTiles][4], s[1][kSlabTiles][4], db[2] = {};
  uint32_t h[kSlab / 16][4], da[kSlab / 16][4];
  const auto make_h_and_da = [&](int slab) {
    RingPosition before = first;
    first = next;
    start_next(dh[0], 0, 0, f.W_groups);
    wgmma_wait<1>();  // for the sums of the slab before
    for (int i = 0; slab >= 2 && i < pieces; ++i, before.advance())
      if (lane == 0) mbarrier_arrive(shared.ring.emptied(before.slot));
    for (int piece = 1; piece < f.W_pieces; ++piece) start_next(dh[0], 0, piece, f.W_groups);
    for (int piece = 0; piece < f.U_pieces; ++piece) start_next(s[0], shared.U, piece, f.U_groups);
    wgmma_wait<0>();
    wgmma_done(dh[0]);
    wgmma_done(s[0]);
    add_unit_bias(s[0], shared.bias + warp_unit() * uint32_t(sizeof(float)), lane);
    activate_and_differentiate<true>(f.activation, s, dh);
    if (f.mask.threshold < 256) {
      const MaskState mask = load_shared<MaskState>(shared.mask);
      const MaskBits<kSlabTiles> mask_bits = mask_bits_of_slab(mask, lane, slab * kSlab, warp_unit());
      mask_bits.apply(s[0], mask.scale);
      mask_bits.apply(dh[0], mask.scale);
    }
    add_up(db, dh[0]);
    to_fragments<Bf16>(h, s[0]);
    to_fragments<Bf16>(da, dh[0]);
    wgmma_fence();
  };
  const auto start_sums = [&] {  // asynchronously: the next make_h_and_da waits for them
    RingPosition place = first;
#pragma unroll
    for (int piece = 0; piece < kAlternatingPieces; ++piece, place.advance()) {
      if (piece >= pieces) continue;
      const uint64_t b = piece_descriptor(shared.ring.slot(place.slot));
      if (piece < f.W_pieces) {
#pragma unroll
        for (int step = 0; step < kSlab / 16; ++step) wgmma_down<Bf16>(sums[piece], h[step], b + step * kDepthStep);
      } else {
#pragma unroll
        for (int step = 0; step < kSlab / 16; ++step) wgmma_down<Bf16>(sums[piece], da[step], b + step * kDepthStep);
      }
    }
    wgmma_commit();
  };

  mbarrier_wait(shared.weights_barrier, 0);
  wgmma_fence();
  if (group < f.slabs) {
    if (group == 1) skip_slab();
    make_h_and_da(group);
    for (int slab = group + 2; slab < f.slabs; slab += 2) {
      start_sums();
      skip_slab();
      make_h_and_da(slab);
    }
    start_sums();
  }
  wgmma_wait<0>();
#pragma unroll
  for (int piece = 0; piece < kAlternatingPieces; ++piece) wgmma_done(sums[piece]);

  // The second warpgroup stores its sums, then the first one adds its own.
  const int thread = fresh_thread(), my_lane = thread % 32;
  const bool is_first = thread < 128;
  sync_some<kConsumerThreads>(1);
  if (is_first) sync_some<kConsumerThreads>(1);
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const uint32_t my_unit = thread / 32 % 4 * 16 + 8 * i + my_lane / 4;
#pragma unroll
    for (int n = 0; n < 8 * kAlternatingPieces; ++n) {
      if (n / 8 >= pieces) continue;
      const bool of_dU = n / 8 >= f.W_pieces;
      const uint32_t column = 8 * (of_dU ? n - 8 * f.W_pieces : n) + 2 * (my_lane % 4);
      const uint32_t at =
          shared.ring.slots + (of_dU ? 0 : kTileBytes) + my_unit * kTileStride + column * uint32_t(sizeof(float));
      const float2 other = is_first ? load_shared<float2>(at) : float2{0, 0};
      store_shared(at, float2{other.x + sums[n / 8][n % 8][2 * i], other.y + sums[n / 8][n % 8][2 * i + 1]});
    }
    const uint32_t at = shared.db + my_unit * uint32_t(sizeof(float));
    db[i] = sum_of_quad(db[i]);
    if (my_lane % 4 == 0) store_shared(at, is_first ? load_shared<float>(at) + db[i] : db[i]);
  }
  if (!is_first) sync_some<kConsumerThreads>(1);
}

}  // namespace
}  // namespace mimic
