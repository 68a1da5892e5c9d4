// dU = da^T z, db = column sums of da, dW = h^T dy, stored or used at once for an optimizer step, for chips with
// mma.sync and cp.async. h = mask(f(a)), da = (dy W^T) f'(a) mask and a = z U^T + b are made again.
//
// A block owns 64 hidden units and up to kColumns columns of dU and dW, taken as one row of columns. It walks over
// slabs of rows, twice as many as a piece has columns. A ring of asynchronous copies brings pieces of dy, of z, and
// then once more the pieces of dy and z that the block's columns need. The eight warps are two rows of four: each makes
// da and h of 32 units and a quarter of the slab's rows, they exchange them through shared memory, and each sums, for
// its units, a quarter of the columns of every piece.
#include "hidden/activate.cuh"
#include "hidden/mask.cuh"
#include "shallow/backward_units.cuh"
#include "tile/launch.cuh"
#include "tile/mma_products.cuh"
#include "tile/ring.cuh"

namespace mimic {
namespace {

constexpr int kThreads = 256, kUnits = kBackwardUnits, kColumns = kBackwardUnitsColumns, kQuarters = 4,
              kWarpUnitTiles = 2;
constexpr int kWarpUnits = 16 * kWarpUnitTiles, kSlabPieces = kBackwardUnitsSlabPieces;
constexpr uint32_t kUnitPieceBytes = kUnits * kPieceRowBytes, kTileBytes = kSlabPieces * kUnitPieceBytes;

template <class Element>
constexpr int kSlab = kSlabPieces * kPieceColumns<Element>;

struct BackwardUnits {
  Operand z, dy, U, W;
  const float* b;
  Gradient dU, db, dW;
  int slabs, U_pieces, W_pieces;
  int dU_pieces, dW_pieces;  // 0 where not needed
  int chunk_pieces;          // of both, that one block makes
  pymimic_activation activation;
  pymimic_mask mask;
  Ring ring;
};

// s becomes h and dh becomes da: s is U z^T, 16 kWarpUnitTiles units by 8 tiles rows.
template <class Element, int tiles>
__device__ __forceinline__ void to_h_and_da(float (&s)[kWarpUnitTiles][tiles][4], float (&dh)[kWarpUnitTiles][tiles][4],
                                            uint32_t bias, pymimic_activation activation, bool has_mask,
                                            uint32_t mask_at, uint32_t mask_bits, int lane) {
#pragma unroll
  for (int w = 0; w < 2 * kWarpUnitTiles; ++w) {
    const float b = load_shared<float>(bias + (8 * w + lane / 4) * sizeof(float));
#pragma unroll
    for (int n = 0; n < tiles; ++n) s[w / 2][n][w % 2 * 2] += b, s[w / 2][n][w % 2 * 2 + 1] += b;
  }
  activate_and_differentiate<kElementBytes<Element> == 2>(activation, s, dh);
  if (!has_mask) return;
  const float scale = load_shared<MaskState>(mask_at).scale;
  apply_mask(s, mask_bits, scale);
  apply_mask(dh, mask_bits, scale);
}

template <class Element>
__global__ void __launch_bounds__(kThreads, 1) shallow_backward_units(const BackwardUnits f) {
  constexpr uint32_t kSlabPieceBytes = kSlab<Element> * kPieceRowBytes;
  constexpr int kRowTiles = kSlab<Element> / 8 / kQuarters, kPieceTiles = kPieceColumns<Element> / 8 / kQuarters;
  constexpr int kChunkPieces = kColumns / kPieceColumns<Element>, kSteps = kSlabPieces * kPieceGroups;
  const Ring& ring = f.ring;
  const int lane = threadIdx.x % 32, quarter = threadIdx.x / 32 % kQuarters;
  const int warp_unit = int(threadIdx.x) / (32 * kQuarters) * kWarpUnits, unit = int(blockIdx.x) * kUnits;
  // Of the pieces of dU and dW in a row, this block's are [first_piece, end_piece).
  const int first_piece = blockIdx.y * f.chunk_pieces, all_pieces = f.dU_pieces + f.dW_pieces;
  const int end_piece = first_piece + f.chunk_pieces < all_pieces ? first_piece + f.chunk_pieces : all_pieces;
  const bool makes_db = f.db.needed && blockIdx.y == 0;
  const int dy_pieces = makes_db || first_piece < f.dU_pieces ? f.W_pieces : 0;  // for dh
  const uint32_t W_at = 0, U_at = f.W_pieces * kUnitPieceBytes;
  const uint32_t da_at = ring.rest, h_at = da_at + kTileBytes, bias_at = h_at + kTileBytes;
  const uint32_t mask_at = bias_at + kUnits * sizeof(float), db_at = mask_at + sizeof(MaskState);

  int load_slab = 0, load_piece = 0;
  uint32_t use_slot = ring.slots;
  const auto load_next = [&](uint32_t slot) {
    const int thread = fresh_thread();
    if (load_slab < f.slabs) {
      const int row = load_slab * kSlab<Element>, past_dy = load_piece - dy_pieces, past_z = past_dy - f.U_pieces;
      const int column_piece = first_piece + past_z, past_dU = column_piece - f.dU_pieces;
      const bool of_dy = past_dy < 0 || (past_z >= 0 && past_dU >= 0);
      const int piece = past_dy < 0 ? load_piece : past_z < 0 ? past_dy : past_dU < 0 ? column_piece : past_dU;
      const Operand rows = of_dy ? Operand(f.dy) : Operand(f.z);
      copy_piece<kSlab<Element>, kThreads>(slot, rows, row, piece, thread);
      if (!ring.resident && past_z < 0) {
        const Operand units = of_dy ? Operand(f.W) : Operand(f.U);
        copy_piece<kUnits, kThreads>(slot + kSlabPieceBytes, units, unit, piece, thread);
      }
      if (++load_piece == dy_pieces + f.U_pieces + end_piece - first_piece) load_piece = 0, ++load_slab;
    }
    copy_async_commit();
  };
  // Waits for the next piece, returns its slot, and refills the slot before it, which nobody reads after the barrier.
  const auto next_slot = [&] {
    wait_for_piece(ring);
    sync_block();
    const uint32_t slot = use_slot;
    load_next(ring.before(slot));
    use_slot = ring.after(slot);
    return slot;
  };

  if (threadIdx.x < kUnits) {
    const bool is_unit = unit + int(threadIdx.x) < f.U.rows;
    store_shared(bias_at + threadIdx.x * sizeof(float), is_unit ? f.b[unit + threadIdx.x] : 0.0f);
  }
  static_assert(kThreads == kQuarters * kUnits);
  store_shared(db_at + threadIdx.x * uint32_t(sizeof(float)), 0.0f);
  if (threadIdx.x == 0) store_shared(mask_at, mask_state(f.mask));  // in shared memory, as registers are short
  if (ring.resident && f.slabs > 0) {
    for (int piece = 0; piece < dy_pieces; ++piece)
      copy_piece<kUnits, kThreads>(W_at + piece * kUnitPieceBytes, f.W, unit, piece);
    for (int piece = 0; piece < f.U_pieces; ++piece)
      copy_piece<kUnits, kThreads>(U_at + piece * kUnitPieceBytes, f.U, unit, piece);
  }
#pragma unroll 1
  for (int i = 0; i < ring.stages - 1; ++i) load_next(ring.slots + i * ring.slot_bytes);

  const uint32_t unit_at = warp_unit * kPieceRowBytes + fragment_at(lane);
  const uint32_t row_at = quarter * 8 * kRowTiles * kPieceRowBytes + fragment_along_at(lane);
  float sums[kWarpUnitTiles][kChunkPieces * kPieceTiles][4] = {};
  sync_block();
  for (int slab = 0; slab < f.slabs; ++slab) {
    uint32_t mask_bits = 0;
    if (f.mask.threshold < 256)
      mask_bits = mask_bits_of_units<kRowTiles>(load_shared<MaskState>(mask_at), lane,
                                                slab * kSlab<Element> + quarter * 8 * kRowTiles, unit + warp_unit);

    float dh[kWarpUnitTiles][kRowTiles][4] = {}, s[kWarpUnitTiles][kRowTiles][4] = {};
    for (int piece = 0; piece < dy_pieces; ++piece) {
      const uint32_t dy = next_slot(), W = ring.resident ? W_at + piece * kUnitPieceBytes : dy + kSlabPieceBytes;
      multiply_piece_along<Element>(dh, W, unit_at, dy, row_at, f.dy.groups_from(piece));
    }
    for (int piece = 0; piece < f.U_pieces; ++piece) {
      const uint32_t z = next_slot(), U = ring.resident ? U_at + piece * kUnitPieceBytes : z + kSlabPieceBytes;
      multiply_piece_along<Element>(s, U, unit_at, z, row_at, f.z.groups_from(piece));
    }

    {  // All warps have read the tiles of the slab before: this slab's pieces had barriers since.
      const int thread = fresh_thread(), my_lane = thread % 32, my_quarter = thread / 32 % kQuarters;
      const int my_unit = thread / (32 * kQuarters) * kWarpUnits;
      to_h_and_da<Element>(s, dh, bias_at + my_unit * sizeof(float), f.activation, f.mask.threshold < 256, mask_at,
                           mask_bits, my_lane);
#pragma unroll
      for (int w = 0; w < 2 * kWarpUnitTiles; ++w) {
        float sum = 0;
#pragma unroll
        for (int n = 0; n < kRowTiles; ++n) sum += dh[w / 2][n][w % 2 * 2] + dh[w / 2][n][w % 2 * 2 + 1];
        sum += shuffle_xor(sum, 1);
        sum += shuffle_xor(sum, 2);
        const uint32_t at = db_at + (my_quarter * kUnits + my_unit + 8 * w + my_lane / 4) * sizeof(float);
        if (my_lane % 4 == 0) store_shared(at, load_shared<float>(at) + sum);
      }
#pragma unroll
      for (int r = 0; r < kWarpUnitTiles; ++r) {
        const uint32_t to = my_quarter / 2 * kUnitPieceBytes + (my_unit + 16 * r) * kPieceRowBytes;
        store_fragments<Element>(da_at + to, my_quarter % 2 * 4, dh[r], my_lane);
        store_fragments<Element>(h_at + to, my_quarter % 2 * 4, s[r], my_lane);
      }
    }

    uint32_t left[kWarpUnitTiles][kSteps][4] = {};  // zeros, so that ptxas carries nothing over from the slab before
#pragma unroll
    for (int i = 0; i < kChunkPieces; ++i) {
      const int piece = first_piece + i, dW_piece = piece - f.dU_pieces;
      if (piece >= end_piece) continue;
      const uint32_t right = next_slot(), left_at = dW_piece < 0 ? da_at : h_at;
      if (i == 0 || dW_piece == 0) {
        const int thread = fresh_thread();
        const uint32_t my_unit_at = thread / (32 * kQuarters) * kWarpUnits * kPieceRowBytes + fragment_at(thread % 32);
#pragma unroll
        for (int j = 0; j < kWarpUnitTiles * kSteps; ++j) {
          const int r = j / kSteps, step = j % kSteps;
          load_matrices(left[r][step], left_at + step / kPieceGroups * kUnitPieceBytes + r * 16 * kPieceRowBytes +
                                           (my_unit_at ^ step % kPieceGroups * kGroupBytes));
        }
      }
      if (quarter < (dW_piece < 0 ? f.z.groups_from(piece) : f.dy.groups_from(dW_piece)))
        multiply_down<Element, true, 1>(sums, left, i * kPieceTiles, 1, right, lane, quarter);
    }
  }

  // Sums go through shared memory, a piece at a time, so that a warp's threads access neighbouring elements. The
  // piece's sums are moved to the first registers.
  constexpr uint32_t kStride = (kPieceColumns<Element> + 8) * sizeof(float);
  const int units = f.U.rows - unit < kUnits ? int(f.U.rows) - unit : kUnits;
#pragma unroll 1
  for (int piece = first_piece; piece < end_piece; ++piece) {
    sync_block();
#pragma unroll
    for (int n = 0; n < kPieceTiles; ++n)
#pragma unroll
      for (int w = 0; w < 2 * kWarpUnitTiles; ++w)
        store_shared(ring.slots + (warp_unit + 8 * w + lane / 4) * kStride +
                         (8 * (quarter * kPieceTiles + n) + 2 * (lane % 4)) * uint32_t(sizeof(float)),
                     float2{sums[w / 2][n][w % 2 * 2], sums[w / 2][n][w % 2 * 2 + 1]});
#pragma unroll
    for (int j = 0; j < kWarpUnitTiles * (kChunkPieces - 1) * kPieceTiles * 4; ++j) {
      const int r = j / 4 % kWarpUnitTiles, n = j / 4 / kWarpUnitTiles;
      sums[r][n][j % 4] = sums[r][n + kPieceTiles][j % 4];
    }
    sync_block();
    const int dW_piece = piece - f.dU_pieces;
    const Gradient to = dW_piece < 0 ? Gradient(f.dU) : Gradient(f.dW);
    const int column = (dW_piece < 0 ? piece : dW_piece) * kPieceColumns<Element>;
    const int columns = to.columns - column < kPieceColumns<Element> ? to.columns - column : kPieceColumns<Element>;
    finish<kElementBytes<Element>, kThreads>(to, {ring.slots, kStride, unit, units, column, columns});
  }

  if (!makes_db) return;
  sync_block();
  if (threadIdx.x >= kUnits) return;
  const uint32_t at = db_at + threadIdx.x * sizeof(float);
  for (int i = 1; i < kQuarters; ++i)
    store_shared(at, load_shared<float>(at) + load_shared<float>(at + i * kUnits * uint32_t(sizeof(float))));
  finish_some<kElementBytes<Element>, 1, kUnits>(f.db, {db_at, sizeof(float), unit, units, 0, 1}, 0, units);
}

template <class Element>
cudaError_t run(BackwardUnits& f, const UnitPlan& plan, cudaStream_t stream) {
  constexpr uint32_t kRest = 2 * kTileBytes + kUnits * sizeof(float) + sizeof(MaskState) + kThreads * sizeof(float);
  size_t most = 0;
  if (const cudaError_t error = most_shared_bytes(most); error != cudaSuccess) return error;
  if (!fit_ring(f.ring, f.U_pieces + f.W_pieces, kUnitPieceBytes, kSlab<Element> * kPieceRowBytes, kRest, most))
    return cudaErrorInvalidValue;
  f.slabs = (int(f.z.rows) + kSlab<Element> - 1) / kSlab<Element>;
  f.chunk_pieces = plan.chunk_pieces;
  const dim3 grid(unsigned(plan.unit_blocks), unsigned(plan.column_chunks));
  return launch(shallow_backward_units<Element>, grid, kThreads, f.ring.bytes, stream, f);
}

}  // namespace

cudaError_t run_backward_units_sm80(const pymimic_shallow& p, const void* dy, int64_t lddy, const UnitGradients& to,
                                    const UnitPlan& plan, cudaStream_t stream) {
  BackwardUnits f;
  f.z = operand(p.z, p.ldz, p.B, p.k, p.precision);
  f.dy = operand(dy, lddy, p.B, p.C, p.precision);
  f.U = operand(p.U, p.ldu, p.H, p.k, p.precision);
  f.W = operand(p.W, p.ldw, p.H, p.C, p.precision);
  f.b = p.b;
  f.dU = to.dU, f.db = to.db, f.dW = to.dW;
  f.U_pieces = plan.U_pieces, f.W_pieces = plan.W_pieces;
  f.dU_pieces = plan.dU_pieces, f.dW_pieces = plan.dW_pieces;
  f.activation = p.activation, f.mask = p.mask;
  switch (p.precision) {
    case PYMIMIC_BF16: return run<Bf16>(f, plan, stream);
    case PYMIMIC_TF32: return run<Tf32>(f, plan, stream);
    case PYMIMIC_FP32: return run<ThreeTf32>(f, plan, stream);
    case PYMIMIC_FP16: break;  // its range is too small for gradients
  }
  return cudaErrorInvalidValue;
}

}  // namespace mimic
