// What the warps of a block of backward_units_sm90a.cu share: its shared memory, the ring's producer, sums that
// stay in registers.
#pragma once

#include "hidden/fragments.cuh"
#include "hidden/gradients.cuh"
#include "shallow/backward_units.cuh"
#include "tile/ring_sm90a.cuh"
#include "tile/tensor_map.cuh"

namespace mimic {
namespace {

constexpr int kUnits = 64, kSlab = 64, kSlabTiles = kSlab / 8, kConsumerThreads = 256;
constexpr int kThreads = kConsumerThreads + 128, kStages = 20, kPieces = kBackwardUnits90Columns / kBoxColumns;
constexpr uint32_t kPieceBytes = kSlab * kPieceRowBytes;
// All of dU and all of dW, in the place of the ring when it is done.
constexpr uint32_t kTileStride = (kBackwardUnits90Columns + 8) * sizeof(float), kTileBytes = kUnits * kTileStride;
constexpr uint64_t kDepthStep = 16 * kPieceRowBytes >> 4;  // in descriptors
// The slower warpgroup may hold a whole slab while it waits for the next one.
static_assert(kUnits == kSlab && kStages >= 2 * 2 * kPieces && 2 * kTileBytes <= kStages * kPieceBytes);
constexpr int kFewPieces = 3;  // of U and W together, whose sums one warpgroup has the registers for
constexpr int kPrefetchSlabs = 4, kFirstSlabs = 2;  // before the last, beside those in the ring; what a ring holds
// Of the 168 registers that each of 384 threads starts with.
constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

struct BackwardUnits90 {
  TensorMap z, dy, U, W;
  const float* b;
  Gradient dU, db, dW;
  int H, slabs, U_pieces, W_pieces, U_groups, W_groups;
  pymimic_activation activation;
  pymimic_mask mask;
};

// Whether each warpgroup makes all of every other slab.
MIMIC_HD bool takes_turns(int pieces) { return pieces <= kFewPieces; }

// W, then U, then the ring.
struct SharedLayout {
  PieceRing ring;
  uint32_t U, mask, bias, db, weights_there, bytes;
};

MIMIC_HD SharedLayout shared_layout(int U_pieces, int W_pieces) {
  SharedLayout s;
  s.U = W_pieces * kPieceBytes;
  const int pieces = U_pieces + W_pieces;
  // Where the warpgroups take turns, a slot is always of the same one, which so waits for each of its phases.
  s.ring = {takes_turns(pieces) ? kStages - kStages % (2 * pieces) : kStages, s.U + U_pieces * kPieceBytes, kPieceBytes,
            0};
  s.mask = s.ring.slots + kStages * kPieceBytes;
  s.bias = s.mask + uint32_t(sizeof(MaskState));
  s.db = s.bias + kUnits * uint32_t(sizeof(float));
  s.ring.barriers = s.db + kUnits * uint32_t(sizeof(float));
  s.weights_there = s.ring.barriers + kStages * 16;
  s.bytes = s.weights_there + 8;
  return s;
}

// Asks for what an optimizer will read of these units, all of whose columns lie side by side.
__device__ __forceinline__ void send_for(const Gradient& to, int unit, int end_unit) {
  if (!to.needed || to.stored) return;
  const int64_t first = int64_t(unit) * to.columns;
  const int units = end_unit - unit < kUnits ? end_unit - unit : kUnits;
  const uint32_t bytes = uint32_t(units * to.columns) * uint32_t(sizeof(float)) / 16 * 16;
  for (const float* from : {to.parameter.value, to.parameter.slot[0], to.parameter.slot[1]})
    if (from && bytes > 0 && reinterpret_cast<uintptr_t>(from + first) % 16 == 0) prefetch(from + first, bytes);
}

// The part of the thread that talks to the copy engine. Near the end, but behind the ring's first filling, it sends for
// the weights and slots that a step will need, so that they come while products run.
__device__ __forceinline__ void produce(const BackwardUnits90& f, int unit, const SharedLayout& shared) {
  mbarrier_arrive_expecting(shared.weights_there, (f.W_pieces + f.U_pieces) * kPieceBytes);
  for (int piece = 0; piece < f.W_pieces; ++piece)
    copy_box(piece * kPieceBytes, f.W, piece * kBoxColumns, unit, shared.weights_there);
  for (int piece = 0; piece < f.U_pieces; ++piece)
    copy_box(shared.U + piece * kPieceBytes, f.U, piece * kBoxColumns, unit, shared.weights_there);
  Place next = {shared.ring.stages};
  const auto send = [&] {
    send_for(f.dU, unit, f.H);
    send_for(f.dW, unit, f.H);
  };
  const int in_time = f.slabs - kPrefetchSlabs > kFirstSlabs ? f.slabs - kPrefetchSlabs : kFirstSlabs;
  for (int slab = 0; slab < f.slabs; ++slab) {
    if (slab == in_time) send();
    for (int piece = 0; piece < f.W_pieces + f.U_pieces; ++piece, next.advance()) {
      const uint32_t to = shared.ring.slot(next.slot), filled = shared.ring.filled(next.slot);
      mbarrier_wait(shared.ring.emptied(next.slot), next.parity ^ 1);
      mbarrier_arrive_expecting(filled, kPieceBytes);
      if (piece < f.W_pieces)
        copy_box(to, f.dy, piece * kBoxColumns, slab * kSlab, filled);
      else
        copy_box(to, f.z, (piece - f.W_pieces) * kBoxColumns, slab * kSlab, filled);
    }
  }
  if (f.slabs <= in_time) send();
}

// Which of this warp's 16 units by a slab of rows are kept; its units are half of those of a mask's tile.
__device__ __forceinline__ Kept<kSlabTiles> kept_slab(const MaskState& m, int lane, int row, int unit) {
  const int tile_unit = unit / kMaskUnits * kMaskUnits, shift = unit % kMaskUnits;
  Kept<kSlabTiles> kept = {};
#pragma unroll 1  // one after the other, as registers are short
  for (int half = 0; half < 2; ++half)
    kept.word[0] |= (kept_units<4>(m, lane, row + half * (kSlab / 2), tile_unit) >> shift & 0xFFFFu) << (16 * half);
  return kept;
}

// products = or += weights times the piece at that place of the ring, along.
__device__ __forceinline__ void start_along(float (&products)[kSlabTiles][4], const SharedLayout& shared,
                                            const Place& place, uint32_t weights, int piece, int groups) {
  mbarrier_wait(shared.ring.filled(place.slot), place.parity);
  multiply_along<Bf16>(products, weights + piece * kPieceBytes, shared.ring.slot(place.slot),
                       groups - piece * kPieceGroups, piece > 0);
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

// Sums over this lane's columns, of its two units.
template <int tiles>
__device__ __forceinline__ void add_up(float (&db)[2], const float (&da)[tiles][4]) {
#pragma unroll
  for (int j = 0; j < 4 * tiles; ++j) db[j % 4 / 2] += da[j / 4][j % 4];
}

__device__ __forceinline__ float sum_of_quad(float x) {
  x += shuffle_xor(x, 1);
  return x + shuffle_xor(x, 2);
}

}  // namespace
}  // namespace mimic
