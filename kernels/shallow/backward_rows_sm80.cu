// dz = da U with da = (dy W^T) f'(a) mask and a = z U^T + b, for chips with mma.sync and cp.async.
//
// A block owns 128 rows and up to kColumns columns of dz, and sums a part of H. It walks over slabs of hidden units, as
// many as a piece has columns. A ring of asynchronous copies brings pieces of W, then of U, then of U once more. Two
// warps share 32 rows: each makes da of half of a slab's units, they exchange it through shared memory, and each sums
// half of the columns of every piece of dz.
#include "hidden/activate.cuh"
#include "hidden/mask.cuh"
#include "shallow/rows.cuh"
#include "tile/launch.cuh"
#include "tile/mma_products.cuh"
#include "tile/ring.cuh"

namespace mimic {
namespace {

constexpr int kThreads = 256, kRows = kBackwardRows, kColumns = kBackwardRowsK, kWarpRowTiles = 2,
              kWarpRows = 16 * kWarpRowTiles;
constexpr int kWarpGroups = kPieceGroups / 2;  // of the columns of a piece, and of a slab's units
constexpr uint32_t kRowPieceBytes = kRows * kPieceRowBytes;

template <class Element>
constexpr int kSlab = kPieceColumns<Element>;

struct BackwardRows {
  Operand z, dy, U, W;
  const float* b;
  float* dz;  // (splits, B, k)
  int64_t B, k;
  int slabs, splits, U_pieces, W_pieces, dz_pieces;  // dz_pieces: of one block
  pymimic_activation activation;
  pymimic_mask mask;
  Ring ring;
};

// dh becomes da. s is z U^T, 16 kWarpRowTiles rows by half a slab; its bias is at the offset `bias`.
template <class Element, int tiles>
__device__ __forceinline__ void to_da(float (&dh)[kWarpRowTiles][tiles][4], float (&s)[kWarpRowTiles][tiles][4],
                                      uint32_t bias, pymimic_activation activation, bool has_mask, uint32_t mask_at,
                                      uint32_t mask_bits, int lane) {
#pragma unroll
  for (int n = 0; n < tiles; ++n) {
    const float2 b = load_shared<float2>(bias + (8 * n + 2 * (lane % 4)) * sizeof(float));
#pragma unroll
    for (int j = 0; j < 4 * kWarpRowTiles; ++j) s[j / 4][n][j % 4] += j % 2 ? b.y : b.x;
  }
  activate_and_differentiate<kElementBytes<Element> == 2>(activation, s, dh);
  if (has_mask) apply_mask(dh, mask_bits, load_shared<MaskState>(mask_at).scale);
}

template <class Element>
__global__ void __launch_bounds__(kThreads, 1) shallow_backward_rows(const BackwardRows f) {
  constexpr uint32_t kSlabPieceBytes = kSlab<Element> * kPieceRowBytes, kBiasBytes = kSlab<Element> * sizeof(float);
  constexpr int kUnitTiles = kSlab<Element> / 16, kPieceTiles = kPieceColumns<Element> / 16;  // of a warp
  constexpr int kChunkPieces = kColumns / kPieceColumns<Element>;
  const Ring& ring = f.ring;
  const int lane = threadIdx.x % 32, half = threadIdx.x / 32 % 2, warp_row = int(threadIdx.x) / 64 * kWarpRows;
  const int row = int(blockIdx.x) * kRows;
  const int first_piece = blockIdx.z * f.dz_pieces, split = blockIdx.y;
  const int first_slab = int(int64_t(f.slabs) * split / f.splits);
  const int end_slab = int(int64_t(f.slabs) * (split + 1) / f.splits);
  const uint32_t da_at = ring.rest, bias_at = da_at + kRowPieceBytes, dy_at = 0, z_at = f.W_pieces * kRowPieceBytes;
  const uint32_t mask_at = bias_at + kMostStages * kBiasBytes;
  const bool has_rows = row + warp_row < f.B;  // a warp without rows only copies

  int load_slab = first_slab, load_piece = 0;
  uint32_t use_slot = ring.slots;
  const auto load_next = [&](uint32_t slot) {
    const int thread = fresh_thread();
    if (load_slab < end_slab) {
      const int unit = load_slab * kSlab<Element>;
      const int past_W = load_piece - f.W_pieces, past_U = past_W - f.U_pieces;
      const int piece = past_W < 0 ? load_piece : past_U < 0 ? past_W : first_piece + past_U;
      const Operand units = past_W < 0 ? Operand(f.W) : Operand(f.U);
      copy_piece<kSlab<Element>, kThreads>(slot, units, unit, piece, thread);
      if (!ring.resident && past_U < 0) {
        const Operand rows = past_W < 0 ? Operand(f.dy) : Operand(f.z);
        copy_piece<kRows, kThreads>(slot + kSlabPieceBytes, rows, row, piece, thread);
      }
      // A slab has at least two pieces: the ring is done with a bias before the bias of kMostStages slabs later comes.
      if (load_piece == 0 && thread < kSlab<Element>)
        copy_async<4>(bias_at + load_slab % kMostStages * kBiasBytes + thread * sizeof(float), f.b + unit + thread,
                      unit + thread < f.U.rows);
      if (++load_piece == f.W_pieces + f.U_pieces + f.dz_pieces) load_piece = 0, ++load_slab;
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

  if (threadIdx.x == 0) store_shared(mask_at, mask_state(f.mask));  // in shared memory, as registers are short
  if (ring.resident && first_slab < end_slab) {
    for (int piece = 0; piece < f.W_pieces; ++piece)
      copy_piece<kRows, kThreads>(dy_at + piece * kRowPieceBytes, f.dy, row, piece);
    for (int piece = 0; piece < f.U_pieces; ++piece)
      copy_piece<kRows, kThreads>(z_at + piece * kRowPieceBytes, f.z, row, piece);
  }
#pragma unroll 1
  for (int i = 0; i < ring.stages - 1; ++i) load_next(ring.slots + i * ring.slot_bytes);

  const uint32_t row_at = warp_row * kPieceRowBytes + fragment_at(lane);
  const uint32_t unit_at = half * 8 * kUnitTiles * kPieceRowBytes + fragment_along_at(lane);
  float dz[kWarpRowTiles][kChunkPieces * kPieceTiles][4] = {};
  sync_block();
  for (int slab = first_slab; slab < end_slab; ++slab) {
    uint32_t mask_bits = 0;
    if (f.mask.threshold < 256)
      mask_bits = mask_bits_of_rows<kWarpRowTiles, kUnitTiles>(load_shared<MaskState>(mask_at), lane, row + warp_row,
                                                               slab * kSlab<Element> + half * 8 * kUnitTiles);

    float dh[kWarpRowTiles][kUnitTiles][4] = {}, s[kWarpRowTiles][kUnitTiles][4] = {};
    for (int piece = 0; piece < f.W_pieces; ++piece) {
      const uint32_t W = next_slot(), dy = ring.resident ? dy_at + piece * kRowPieceBytes : W + kSlabPieceBytes;
      if (has_rows) multiply_piece_along<Element>(dh, dy, row_at, W, unit_at, f.dy.groups_from(piece));
    }
    for (int piece = 0; piece < f.U_pieces; ++piece) {
      const uint32_t U = next_slot(), z = ring.resident ? z_at + piece * kRowPieceBytes : U + kSlabPieceBytes;
      if (has_rows) multiply_piece_along<Element>(s, z, row_at, U, unit_at, f.z.groups_from(piece));
    }

    // The two warps of these rows have read the da of the slab before: this slab's pieces had barriers since.
    if (has_rows) {
      const int thread = fresh_thread(), my_lane = thread % 32, my_half = thread / 32 % 2;
      const int my_row = thread / 64 * kWarpRows, my_unit = my_half * 8 * kUnitTiles;
      to_da<Element>(dh, s, bias_at + slab % kMostStages * kBiasBytes + my_unit * sizeof(float), f.activation,
                     f.mask.threshold < 256, mask_at, mask_bits, my_lane);
#pragma unroll
      for (int r = 0; r < kWarpRowTiles; ++r)
        store_fragments<Element>(da_at + (my_row + 16 * r) * kPieceRowBytes, 4 * my_half, dh[r], my_lane);
    }

    uint32_t da[kWarpRowTiles][kPieceGroups][4] = {};  // zeros, so that ptxas carries nothing over from the slab before
#pragma unroll
    for (int piece = 0; piece < kChunkPieces; ++piece) {
      if (piece >= f.dz_pieces) continue;
      const uint32_t U = next_slot();
      if (!has_rows) continue;
      if (piece == 0) {
#pragma unroll
        for (int i = 0; i < kWarpRowTiles * kPieceGroups; ++i)
          load_matrices(da[i / kPieceGroups][i % kPieceGroups],
                        da_at + i / kPieceGroups * 16 * kPieceRowBytes + (row_at ^ i % kPieceGroups * kGroupBytes));
      }
      const int groups = f.U.groups_from(first_piece + piece) - kWarpGroups * half;
      if (groups >= kWarpGroups)
        multiply_down<Element, true, kWarpGroups>(dz, da, piece * kPieceTiles, groups, U, lane, kWarpGroups * half);
      else if (groups > 0)
        multiply_down<Element, false, kWarpGroups>(dz, da, piece * kPieceTiles, groups, U, lane, kWarpGroups * half);
    }
  }

  // Columns 8 n + 2 (lane % 4) of the pieces' halves, two rows of each row tile.
  const int first_column = first_piece * kPieceColumns<Element> + half * 8 * kPieceTiles + 2 * (lane % 4);
#pragma unroll
  for (int i_row = 0; i_row < 2 * kWarpRowTiles; ++i_row) {
    const int64_t to_row = int64_t(row) + warp_row + 8 * i_row + lane / 4;
    if (to_row >= f.B) continue;
    float* const to = f.dz + (split * f.B + to_row) * f.k + first_column;
#pragma unroll
    for (int n = 0; n < kChunkPieces * kPieceTiles; ++n) {
      const int column = n / kPieceTiles * kPieceColumns<Element> + 8 * (n % kPieceTiles);
#pragma unroll
      for (int i = 0; i < 2; ++i)
        if (n < kPieceTiles * f.dz_pieces && first_column + column + i < f.k)
          to[column + i] = dz[i_row / 2][n][2 * (i_row % 2) + i];
    }
  }
}

template <class Element>
cudaError_t run(BackwardRows& f, const RowPlan& plan, cudaStream_t stream) {
  constexpr uint32_t kRest = kRowPieceBytes + kMostStages * kSlab<Element> * sizeof(float) + sizeof(MaskState);
  size_t most = 0;
  if (const cudaError_t error = most_shared_bytes(most); error != cudaSuccess) return error;
  if (!fit_ring(f.ring, plan.U_pieces + plan.W_pieces, kRowPieceBytes, kSlab<Element> * kPieceRowBytes, kRest, most))
    return cudaErrorInvalidValue;
  return launch(shallow_backward_rows<Element>, plan.grid(), kThreads, f.ring.bytes, stream, f);
}

}  // namespace

cudaError_t run_backward_rows_sm80(const pymimic_shallow& p, const void* dy, int64_t lddy, const RowPlan& plan,
                                   float* dz, cudaStream_t stream) {
  BackwardRows f;
  f.z = operand(p.z, p.ldz, p.B, p.k, p.precision);
  f.dy = operand(dy, lddy, p.B, p.C, p.precision);
  f.U = operand(p.U, p.ldu, p.H, p.k, p.precision);
  f.W = operand(p.W, p.ldw, p.H, p.C, p.precision);
  f.b = p.b, f.dz = dz;
  f.B = p.B, f.k = p.k;
  f.slabs = plan.slabs, f.splits = plan.splits;
  f.U_pieces = plan.U_pieces, f.W_pieces = plan.W_pieces;
  f.dz_pieces = plan.chunk_pieces;
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
