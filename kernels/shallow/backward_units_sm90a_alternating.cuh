// The consumers of backward_units_sm90a.cu where U and W have few columns: the warpgroups alternate.
#pragma once

#include "shallow/backward_units_sm90a.cuh"

namespace mimic {
namespace {

// A consumer warp: its warpgroup makes dU, db and dW of every other slab.
template <class Columns>
__device__ __forceinline__ void consume_alternating(const BackwardUnits& f, const SharedLayout& shared, int group) {
  constexpr int kPieces = Columns::kKnown ? Columns::kU + Columns::kW : kAlternatingPieces;
  static_assert(kPieces <= kAlternatingPieces);
  const int lane = threadIdx.x % 32, W_pieces = W_pieces_of<Columns>(f), pieces = W_pieces + U_pieces_of<Columns>(f);
  const auto warp_unit = [] { return fresh_thread() / 32 % 4 * 16; };
  RingPosition next = {shared.ring.stages}, first = next;  // the piece to read next; the first one of what is summed
  const auto skip_slab = [&] { next.advance(pieces); };

  float sums[kPieces][8][4] = {}, db[2] = {};
  uint32_t h[kSlab / 16][4], da[kSlab / 16][4];
  const auto make_left = [&](int slab) {
    float dh[1][kSlabTiles][4], s[1][kSlabTiles][4];
    RingPosition before = first;
    first = next;
    start_first_of_W<Columns>(f, dh[0], shared, next);
    wgmma_wait<1>();  // for the sums of the slab before
    for (int i = 0; slab >= 2 && i < pieces; ++i, before.advance())
      if (lane == 0) mbarrier_arrive(shared.ring.emptied(before.slot));
    start_rest<Columns>(f, dh[0], s[0], shared, next);
    MaskBits<kSlabTiles> mask_bits;
    if (f.mask.threshold < 256)
      mask_bits = mask_bits_of_slab(load_shared<MaskState>(shared.mask), lane, slab * kSlab, warp_unit());
    wgmma_wait<0>();
    wgmma_done(dh[0]);
    wgmma_done(s[0]);
    make_h_and_da<Columns>(f, shared, s, dh, mask_bits, lane, warp_unit(), h, da, db);
    wgmma_fence();
  };
  const auto start_sums = [&] {  // asynchronously: the next make_left waits for them
    RingPosition place = first;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece, place.advance()) {
      if (piece >= pieces) continue;
      if constexpr (Columns::kNarrow) {
        if (piece == 0) {  // of dW, whose other columns stay 0
          start_multiply_down<Bf16>(reinterpret_cast<float (&)[2][4]>(sums[0]), h, shared.ring.slot(place.slot));
          continue;
        }
      }
      if (piece < W_pieces)
        start_multiply_down<Bf16>(sums[piece], h, shared.ring.slot(place.slot));
      else
        start_multiply_down<Bf16>(sums[piece], da, shared.ring.slot(place.slot));
    }
    wgmma_commit();
  };

  mbarrier_wait(shared.weights_barrier, 0);
  wgmma_fence();
  if (group < f.slabs) {
    if (group == 1) skip_slab();
    make_left(group);
    for (int slab = group + 2; slab < f.slabs; slab += 2) {
      start_sums();
      skip_slab();
      make_left(slab);
    }
    start_sums();
  }
  wgmma_wait<0>();
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) wgmma_done(sums[piece]);

  // Each warpgroup stores every other piece of its sums, and adds the rest to what the other one has stored.
  const auto tile_of = [&](int piece) {
    return shared.ring.slots + (piece < W_pieces ? kTileBytes : 0) +
           (piece < W_pieces ? piece : piece - W_pieces) * kTilePieceBytes;
  };
  sync_some<kConsumerThreads>(1);
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece)
    if (piece < pieces && piece % 2 != group) store_piece<false>(tile_of(piece), sums[piece]);
  if (group == 1) store_db<false>(shared, db);
  sync_some<kConsumerThreads>(1);
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece)
    if (piece < pieces && piece % 2 == group) store_piece<true>(tile_of(piece), sums[piece]);
  if (group == 0) store_db<true>(shared, db);
}

}  // namespace
}  // namespace mimic
