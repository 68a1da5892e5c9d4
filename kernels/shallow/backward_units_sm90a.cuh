// What the kernel of backward_units_sm90a.cu is made of: the layout of shared memory, the producer that fills the ring,
// and steps that both kinds of consumers take.
#pragma once

#include "hidden/fragments.cuh"
#include "hidden/gradients.cuh"
#include "shallow/backward_units.cuh"
#include "shallow/columns.cuh"
#include "tile/ring_sm90a.cuh"
#include "tile/tensor_map.cuh"

namespace mimic {
namespace {

constexpr int kUnits = kBackwardUnits, kSlab = 64, kSlabTiles = kSlab / 8, kConsumerThreads = 256;
constexpr int kThreads = kConsumerThreads + 128, kStages = 20, kPieces = kBackwardUnitsSm90aColumns / kBoxColumns;
constexpr uint32_t kPieceBytes = kSlab * kPieceRowBytes;
// All of dU and all of dW, which are stored over the ring at the end.
constexpr uint32_t kTileStride = (kBackwardUnitsSm90aColumns + 8) * sizeof(float), kTileBytes = kUnits * kTileStride;
constexpr uint32_t kTilePieceBytes = kBoxColumns * sizeof(float);  // of a row
constexpr uint32_t kNarrowPieceBytes = kSlab * kGroupBytes;
// Where the warpgroups trade fragments, these take a slot of the ring. All pieces of two slabs must fit beside them: a
// slot's phase that a warpgroup does not wait for then ends before it waits for the next one.
constexpr int kTradingStages = kStages - 1, kFragmentBytes = 4 * sizeof(uint32_t);
static_assert(kConsumerThreads / 2 * (kSlab / 16) * kFragmentBytes <= kPieceBytes);
static_assert(kUnits == kSlab && kTradingStages >= 2 * 2 * kPieces && 2 * kTileBytes <= kTradingStages * kPieceBytes);
constexpr int kAlternatingPieces = 4;  // of U and W together: one warpgroup has registers for the sums of so many
// Prefetches begin so many slabs before the last one, but not before the ring is full: after kFirstSlabs.
constexpr int kPrefetchSlabs = 4, kFirstSlabs = 2;
// Each of 384 threads starts with 168 registers.
constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

struct BackwardUnits {
  TensorMap z, dy, U, W;
  const float* b;
  Gradient dU, db, dW;
  int H, slabs, U_pieces, W_pieces, U_groups, W_groups;
  pymimic_activation activation;
  pymimic_mask mask;
};

// Whether each warpgroup makes dU and dW of every other slab; otherwise they trade h and da.
MIMIC_HD constexpr bool alternates(int pieces) { return pieces <= kAlternatingPieces; }

// W, then U, then the ring. `given`: barriers of the first warpgroup's warps, then of the second's.
struct SharedLayout {
  PieceRing ring;
  uint32_t U, traded, mask, bias, db, weights_barrier, given, bytes;
};

MIMIC_HD SharedLayout shared_layout(int U_pieces, int W_pieces) {
  SharedLayout s;
  s.U = W_pieces * kPieceBytes;
  const int pieces = U_pieces + W_pieces;
  // Where the warpgroups alternate, a slot always belongs to the same one: it then waits for each of the slot's phases.
  s.ring = {alternates(pieces) ? kStages - kStages % (2 * pieces) : kTradingStages, s.U + U_pieces * kPieceBytes,
            kPieceBytes, 0};
  s.traded = s.ring.slots + kTradingStages * kPieceBytes;
  s.mask = s.ring.slots + kStages * kPieceBytes;
  s.bias = s.mask + uint32_t(sizeof(MaskState));
  s.db = s.bias + kUnits * uint32_t(sizeof(float));
  s.ring.barriers = s.db + kUnits * uint32_t(sizeof(float));
  s.weights_barrier = s.ring.barriers + kStages * 16;
  s.given = s.weights_barrier + 8;
  s.bytes = s.given + kConsumerThreads / 32 * 8;
  return s;
}

// Prefetches what an optimizer step will read of these units, whose rows are contiguous in memory.
__device__ __forceinline__ void prefetch_parameter(const Gradient& to, int unit, int end_unit) {
  if (!to.needed || to.stored) return;
  const int64_t first = int64_t(unit) * to.columns;
  const int units = end_unit - unit < kUnits ? end_unit - unit : kUnits;
  const uint32_t bytes = uint32_t(units * to.columns) * uint32_t(sizeof(float)) / 16 * 16;
  for (const float* from : {to.parameter.value, to.parameter.slot[0], to.parameter.slot[1]})
    if (from && bytes > 0 && reinterpret_cast<uintptr_t>(from + first) % 16 == 0) prefetch(from + first, bytes);
}

// The producer thread: starts the copies. Before the last slabs, but not before the ring is full, it prefetches the
// weights and optimizer slots that a step will need, so that they arrive while products run.
template <class Columns>
__device__ __forceinline__ void produce(const BackwardUnits& f, int unit, const SharedLayout& shared) {
  const int U_pieces = U_pieces_of<Columns>(f), W_pieces = W_pieces_of<Columns>(f);
  mbarrier_arrive_expecting(shared.weights_barrier, (W_pieces + U_pieces) * kPieceBytes);
  for (int piece = 0; piece < W_pieces; ++piece)
    copy_box(piece * kPieceBytes, f.W, piece * kBoxColumns, unit, shared.weights_barrier);
  for (int piece = 0; piece < U_pieces; ++piece)
    copy_box(shared.U + piece * kPieceBytes, f.U, piece * kBoxColumns, unit, shared.weights_barrier);
  RingPosition next = {shared.ring.stages};
  const auto prefetch_all = [&] {
    prefetch_parameter(f.dU, unit, f.H);
    prefetch_parameter(f.dW, unit, f.H);
  };
  const int prefetch_slab = f.slabs - kPrefetchSlabs > kFirstSlabs ? f.slabs - kPrefetchSlabs : kFirstSlabs;
  for (int slab = 0; slab < f.slabs; ++slab) {
    if (slab == prefetch_slab) prefetch_all();
#pragma unroll 1
    for (int piece = 0; piece < W_pieces + U_pieces; ++piece, next.advance()) {
      const uint32_t to = shared.ring.slot(next.slot), filled = shared.ring.filled(next.slot);
      mbarrier_wait(shared.ring.emptied(next.slot), next.parity ^ 1);
      mbarrier_arrive_expecting(filled, Columns::kNarrow && piece < W_pieces ? kNarrowPieceBytes : kPieceBytes);
      if (piece < W_pieces)
        copy_box(to, f.dy, piece * kBoxColumns, slab * kSlab, filled);
      else
        copy_box(to, f.z, (piece - W_pieces) * kBoxColumns, slab * kSlab, filled);
    }
  }
  if (f.slabs <= prefetch_slab) prefetch_all();
}

// The mask of this warp's 16 units by a slab of rows. Its units are half of those of a mask's tile.
__device__ __forceinline__ MaskBits<kSlabTiles> mask_bits_of_slab(const MaskState& m, int lane, int row, int unit) {
  const int tile_unit = unit / kMaskUnits * kMaskUnits, shift = unit % kMaskUnits;
  MaskBits<kSlabTiles> mask_bits = {};
#pragma unroll 1  // one after the other: both at once would take too many registers
  for (int half = 0; half < 2; ++half)
    mask_bits.word[0] |= (mask_bits_of_units<4>(m, lane, row + half * (kSlab / 2), tile_unit) >> shift & 0xFFFFu)
                         << (16 * half);
  return mask_bits;
}

// Starts dh = W times the first piece of a slab of dy, along their rows, when it has come. `next` moves on, as below.
template <class Columns>
__device__ __forceinline__ void start_first_of_W(const BackwardUnits& f, float (&dh)[kSlabTiles][4],
                                                 const SharedLayout& shared, RingPosition& next) {
  mbarrier_wait(shared.ring.filled(next.slot), next.parity);
  if constexpr (Columns::kNarrow) {
    wgmma_along_first<Bf16>(dh, piece_descriptor(0), narrow_descriptor(shared.ring.slot(next.slot)));
    wgmma_commit();
  } else {
    start_multiply_along<Bf16>(dh, 0, shared.ring.slot(next.slot), W_groups_from<Columns>(f, 0));
  }
  next.advance();
}

// The other pieces, each when it has come, and s = U times the pieces of z.
template <class Columns>
__device__ __forceinline__ void start_rest(const BackwardUnits& f, float (&dh)[kSlabTiles][4],
                                           float (&s)[kSlabTiles][4], const SharedLayout& shared, RingPosition& next) {
  const auto add = [&](float (&products)[kSlabTiles][4], uint32_t weights, int groups) {
    mbarrier_wait(shared.ring.filled(next.slot), next.parity);
    start_multiply_along<Bf16>(products, weights, shared.ring.slot(next.slot), groups, true);
    next.advance();
  };
  for (int piece = 1; piece < W_pieces_of<Columns>(f); ++piece)
    add(dh, piece * kPieceBytes, W_groups_from<Columns>(f, piece));
  mbarrier_wait(shared.ring.filled(next.slot), next.parity);
  start_multiply_along<Bf16>(s, shared.U, shared.ring.slot(next.slot), U_groups_from<Columns>(f, 0));
  next.advance();
  for (int piece = 1; piece < U_pieces_of<Columns>(f); ++piece)
    add(s, shared.U + piece * kPieceBytes, U_groups_from<Columns>(f, piece));
}

// s += bias, which is in shared memory: rows are units here.
template <int tiles>
__device__ __forceinline__ void add_unit_bias(float (&s)[tiles][4], uint32_t bias, int lane) {
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float b = load_shared<float>(bias + (8 * i + lane / 4) * uint32_t(sizeof(float)));
#pragma unroll
    for (int j = 0; j < 2 * tiles; ++j) s[j / 2][2 * i + j % 2] += b;
  }
}

// db += the sums over this lane's columns, for its two units.
template <int tiles>
__device__ __forceinline__ void add_up(float (&db)[2], const float (&da)[tiles][4]) {
#pragma unroll
  for (int j = 0; j < 4 * tiles; ++j) db[j % 4 / 2] += da[j / 4][j % 4];
}

__device__ __forceinline__ float sum_of_quad(float x) {
  x += shuffle_xor(x, 1);
  return x + shuffle_xor(x, 2);
}

// From z U^T and dy W^T of this warp's units by a slab of rows: h and da as A operands. Adds to db.
template <class Columns>
__device__ __forceinline__ void make_h_and_da(const BackwardUnits& f, const SharedLayout& shared,
                                              float (&s)[1][kSlabTiles][4], float (&dh)[1][kSlabTiles][4],
                                              const MaskBits<kSlabTiles>& mask_bits, int lane, int warp_unit,
                                              uint32_t (&h)[kSlab / 16][4], uint32_t (&da)[kSlab / 16][4],
                                              float (&db)[2]) {
  add_unit_bias(s[0], shared.bias + warp_unit * uint32_t(sizeof(float)), lane);
  if (activation_of<Columns>(f) == PYMIMIC_RELU && f.mask.threshold == 256) {
    differentiate_relu(s[0], dh[0]);
    to_fragments<Bf16, true>(h, s[0]);
  } else {
    activate_and_differentiate<true>(activation_of<Columns>(f), s, dh);
    if (f.mask.threshold < 256) {
      const float scale = load_shared<MaskState>(shared.mask).scale;
      mask_bits.apply(s[0], scale);
      mask_bits.apply(dh[0], scale);
    }
    to_fragments<Bf16>(h, s[0]);
  }
  add_up(db, dh[0]);
  to_fragments<Bf16>(da, dh[0]);
}

// At the end sums go through shared memory, so that a warp's threads access neighbouring elements: 64 columns of a tile
// of gradients are stored, or added to what is there.
template <bool add>
__device__ __forceinline__ void store_piece(uint32_t tile, const float (&sums)[8][4]) {
  const int thread = fresh_thread();
  tile += (thread / 32 % 4 * 16 + thread % 32 / 4) * kTileStride + thread % 4 * uint32_t(sizeof(float2));
#pragma unroll
  for (int i = 0; i < 2; ++i)
#pragma unroll
    for (int n = 0; n < 8; ++n) {
      const uint32_t at = tile + 8 * i * kTileStride + 8 * n * uint32_t(sizeof(float));
      const float2 before = add ? load_shared<float2>(at) : float2{0, 0};
      store_shared(at, float2{before.x + sums[n][2 * i], before.y + sums[n][2 * i + 1]});
    }
}

template <bool add>
__device__ __forceinline__ void store_db(const SharedLayout& shared, const float (&db)[2]) {
  const int thread = fresh_thread();
#pragma unroll
  for (int i = 0; i < 2; ++i) {
    const float sum = sum_of_quad(db[i]);
    const uint32_t at = shared.db + (thread / 32 % 4 * 16 + 8 * i + thread % 32 / 4) * uint32_t(sizeof(float));
    if (thread % 4 == 0) store_shared(at, add ? load_shared<float>(at) + sum : sum);
  }
}

}  // namespace
}  // namespace mimic
