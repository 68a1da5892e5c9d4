// What the kernel of backward_units_sm90a.cu is made of: the layout of shared memory, the producer that fills the ring,
// and steps that both kinds of consumers take.
#pragma once

#include "hidden/fragments.cuh"
#include "hidden/gradients.cuh"
#include "shallow/backward_units.cuh"
#include "tile/ring_sm90a.cuh"
#include "tile/tensor_map.cuh"

namespace mimic {
namespace {

constexpr int kUnits = kBackwardUnits, kSlab = 64, kSlabTiles = kSlab / 8, kConsumerThreads = 256;
constexpr int kThreads = kConsumerThreads + 128, kStages = 20, kPieces = kBackwardUnitsSm90aColumns / kBoxColumns;
constexpr uint32_t kPieceBytes = kSlab * kPieceRowBytes;
// All of dU and all of dW, which are stored over the ring at the end.
constexpr uint32_t kTileStride = (kBackwardUnitsSm90aColumns + 8) * sizeof(float), kTileBytes = kUnits * kTileStride;
constexpr uint64_t kDepthStep = 16 * kPieceRowBytes >> 4;  // in descriptors
// The slower warpgroup may still need a whole slab while it waits for the next one.
static_assert(kUnits == kSlab && kStages >= 2 * 2 * kPieces && 2 * kTileBytes <= kStages * kPieceBytes);
constexpr int kAlternatingPieces = 3;  // of U and W together: one warpgroup has registers for the sums of so many
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

// Whether the warpgroups alternate: each makes all of every other slab.
MIMIC_HD bool alternates(int pieces) { return pieces <= kAlternatingPieces; }

// W, then U, then the ring.
struct SharedLayout {
  PieceRing ring;
  uint32_t U, mask, bias, db, weights_barrier, bytes;
};

MIMIC_HD SharedLayout shared_layout(int U_pieces, int W_pieces) {
  SharedLayout s;
  s.U = W_pieces * kPieceBytes;
  const int pieces = U_pieces + W_pieces;
  // Where the warpgroups alternate, a slot always belongs to the same one: it then waits for each of the slot's phases.
  s.ring = {alternates(pieces) ? kStages - kStages % (2 * pieces) : kStages, s.U + U_pieces * kPieceBytes, kPieceBytes,
            0};
  s.mask = s.ring.slots + kStages * kPieceBytes;
  s.bias = s.mask + uint32_t(sizeof(MaskState));
  s.db = s.bias + kUnits * uint32_t(sizeof(float));
  s.ring.barriers = s.db + kUnits * uint32_t(sizeof(float));
  s.weights_barrier = s.ring.barriers + kStages * 16;
  s.bytes = s.weights_barrier + 8;
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
__device__ __forceinline__ void produce(const BackwardUnits& f, int unit, const SharedLayout& shared) {
  mbarrier_arrive_expecting(shared.weights_barrier, (f.W_pieces + f.U_pieces) * kPieceBytes);
  for (int piece = 0; piece < f.W_pieces; ++piece)
    copy_box(piece * kPieceBytes, f.W, piece * kBoxColumns, unit, shared.weights_barrier);
  for (int piece = 0; piece < f.U_pieces; ++piece)
    copy_box(shared.U + piece * kPieceBytes, f.U, piece * kBoxColumns, unit, shared.weights_barrier);
  RingPosition next = {shared.ring.stages};
  const auto prefetch_all = [&] {
    prefetch_parameter(f.dU, unit, f.H);
    prefetch_parameter(f.dW, unit, f.H);
  };
  const int prefetch_slab = f.slabs - kPrefetchSlabs > kFirstSlabs ? f.slabs - kPrefetchSlabs : kFirstSlabs;
  for (int slab = 0; slab < f.slabs; ++slab) {
    if (slab == prefetch_slab) prefetch_all();
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

// Starts products = or += weights times a piece of the ring, along their rows; waits for that piece.
__device__ __forceinline__ void start_along(float (&products)[kSlabTiles][4], const SharedLayout& shared,
                                            const RingPosition& position, uint32_t weights, int piece, int groups) {
  mbarrier_wait(shared.ring.filled(position.slot), position.parity);
  start_multiply_along<Bf16>(products, weights + piece * kPieceBytes, shared.ring.slot(position.slot),
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

}  // namespace
}  // namespace mimic
