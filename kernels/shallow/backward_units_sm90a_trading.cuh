// The consumers of backward_units_sm90a.cu where U and W have many columns: the warpgroups trade h and da.
#pragma once

#include "shallow/backward_units_sm90a.cuh"

namespace mimic {
namespace {

// Fragments of a warp of one warpgroup for the same warp of the other one, thread by thread.
struct alignas(kFragmentBytes) Fragment {
  uint32_t at[4];
};

__device__ __forceinline__ uint32_t traded_fragment(const SharedLayout& shared, int step) {
  return shared.traded +
         uint32_t(step * (kConsumerThreads / 2) + fresh_thread() % (kConsumerThreads / 2)) * uint32_t(kFragmentBytes);
}

__device__ __forceinline__ void give(const SharedLayout& shared, const uint32_t (&left)[kSlab / 16][4]) {
#pragma unroll
  for (int step = 0; step < kSlab / 16; ++step)
    store_shared(traded_fragment(shared, step), Fragment{left[step][0], left[step][1], left[step][2], left[step][3]});
}

// A consumer warp: its warpgroup makes h and da of every other slab. The first one makes dU of all slabs, and gives h
// to the second one, which makes dW of all slabs and gives da. A warp takes a slab's fragments before it gives those of
// the next one: so they need one place, and nobody need say that it has taken them.
template <class Columns>
__device__ __forceinline__ void consume_trading(const BackwardUnits& f, const SharedLayout& shared, int group) {
  // Registers are scarce: what can be had from others is computed again.
  const auto lane = [] { return fresh_thread() % 32; };
  const auto warp_unit = [] { return fresh_thread() / 32 % 4 * 16; };
  const auto given = [&](int by) { return shared.given + uint32_t(by * 4 + fresh_thread() / 32 % 4) * 8; };
  constexpr int kMost = !Columns::kKnown ? kPieces : Columns::kU > Columns::kW ? Columns::kU : Columns::kW;
  const int U_pieces = U_pieces_of<Columns>(f), W_pieces = W_pieces_of<Columns>(f);
  const int pieces = W_pieces + U_pieces, summed = group == 0 ? U_pieces : W_pieces;
  RingPosition next = {shared.ring.stages};  // of this warpgroup's slabs, the piece to read next
  const auto slot_before = [&](int by) { return next.slot - by + (next.slot < by ? next.stages : 0); };
  // What is summed of a slab, which begins so many pieces before the next one.
  const auto first_summed = [&](int by) {
    return RingPosition{next.stages, slot_before(by - (group == 0 ? W_pieces : 0))};
  };
  const auto release = [&](RingPosition place, int count) {
    for (int piece = 0; piece < count; ++piece, place.advance())
      if (lane() == 0) mbarrier_arrive(shared.ring.emptied(place.slot));
  };

  float sums[kMost][8][4] = {}, db[2] = {};
  uint32_t mine[kSlab / 16][4], theirs[kSlab / 16][4];  // of this warpgroup's last slab; of the other's
  // Asynchronously: += left times the pieces of its slab, for which the warpgroup that made it has waited.
  const auto start_sums = [&](const uint32_t (&left)[kSlab / 16][4], int by) {
    RingPosition place = first_summed(by);
#pragma unroll
    for (int piece = 0; piece < kMost; ++piece) {
      if (piece >= summed) continue;
      start_multiply_down<Bf16>(sums[piece], left, shared.ring.slot(place.slot));
      place.advance();
    }
    wgmma_commit();
  };
  const auto sum_other = [&](int slab, int by) {
    mbarrier_wait(given(1 - group), slab / 2 % 2);
#pragma unroll
    for (int step = 0; step < kSlab / 16; ++step) {
      const Fragment fragment = load_shared<Fragment>(traded_fragment(shared, step));
#pragma unroll
      for (int i = 0; i < 4; ++i) theirs[step][i] = fragment.at[i];
    }
    wgmma_fence();
    start_sums(theirs, by);
  };

  mbarrier_wait(shared.weights_barrier, 0);
  wgmma_fence();
  if (group == 1) next.advance(pieces);
  for (int slab = group; slab < f.slabs; slab += 2) {
    float dh[1][kSlabTiles][4], s[1][kSlabTiles][4];
    if (slab >= 2) start_sums(mine, 2 * pieces);
    start_first_of_W<Columns>(f, dh[0], shared, next);
    wgmma_wait<1>();
    if (slab >= 2) release(first_summed(2 * pieces + 1), summed);
    start_rest<Columns>(f, dh[0], s[0], shared, next);
    MaskBits<kSlabTiles> mask_bits;
    if (f.mask.threshold < 256)
      mask_bits = mask_bits_of_slab(load_shared<MaskState>(shared.mask), lane(), slab * kSlab, warp_unit());
    wgmma_wait<0>();
    wgmma_done(dh[0]);
    wgmma_done(s[0]);
    release({next.stages, slot_before(pieces)}, pieces);
    if (slab >= 1) sum_other(slab - 1, 2 * pieces);  // while h and da are made
    uint32_t h[kSlab / 16][4], da[kSlab / 16][4];
    make_h_and_da<Columns>(f, shared, s, dh, mask_bits, lane(), warp_unit(), h, da, db);
    group == 0 ? give(shared, h) : give(shared, da);
    sync_warp();
    if (lane() == 0) mbarrier_arrive(given(group));
#pragma unroll
    for (int j = 0; j < kSlab / 4; ++j) mine[j / 4][j % 4] = group == 0 ? da[j / 4][j % 4] : h[j / 4][j % 4];
    wgmma_wait<0>();
    if (slab >= 1) release(first_summed(2 * pieces), summed);
    next.advance(pieces);
    wgmma_fence();
  }
  if (group < f.slabs) start_sums(mine, 2 * pieces);
  if (f.slabs % 2 == group) sum_other(f.slabs - 1, pieces);
  wgmma_wait<0>();
#pragma unroll
  for (int piece = 0; piece < kMost; ++piece) wgmma_done(sums[piece]);

  if (group == 1) store_db<false>(shared, db);
  sync_some<kConsumerThreads>(1);
#pragma unroll
  for (int piece = 0; piece < kMost; ++piece)
    if (piece < summed)
      store_piece<false>(shared.ring.slots + (group == 0 ? 0 : kTileBytes) + piece * kTilePieceBytes, sums[piece]);
  if (group == 0) store_db<true>(shared, db);
}

}  // namespace
}  // namespace mimic
