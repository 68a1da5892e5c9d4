// y = h W + c with h = mask(f(z U^T + b)), for chips with mma.sync and cp.async.
//
// A block owns 128 rows and up to kColumnPieces pieces of the columns of y, and sums a part of H. It walks over slabs
// of 64 hidden units. A ring of asynchronous copies brings the pieces of a slab: those of U, then those of W. A warp
// owns 16 kRowTiles rows: its sums z U^T become, in their registers, h as the A operand of h W.
#include "hidden/fragments.cuh"
#include "shallow/rows.cuh"
#include "tile/launch.cuh"

namespace mimic {
namespace {

constexpr int kRows = kForwardRows, kSlab = kForwardSlabSm80, kSlabTiles = kSlab / 8, kStages = 4;
constexpr uint32_t kSlabPieceBytes = kSlab * kPieceRowBytes, kRowPieceBytes = kRows * kPieceRowBytes;
constexpr uint32_t kBiasBytes = kSlab * sizeof(float);
constexpr int kResidentPieces = 4;  // z of so many pieces stays in shared memory; else its pieces come with those of U

struct Forward {
  Operand z, U, W;
  const float* b;
  ForwardTarget target;
  int64_t B, C;
  int slabs, splits, U_pieces, W_pieces;  // W_pieces: of one block
  pymimic_activation activation;
  pymimic_mask mask;
};

struct SharedLayout {
  uint32_t ring, slot_bytes, bias, bytes;
  bool z_resident;
};

MIMIC_HD SharedLayout shared_layout(int U_pieces) {
  SharedLayout s;
  s.z_resident = U_pieces <= kResidentPieces;
  s.ring = s.z_resident ? U_pieces * kRowPieceBytes : 0;
  s.slot_bytes = s.z_resident ? kSlabPieceBytes : kSlabPieceBytes + kRowPieceBytes;
  s.bias = s.ring + kStages * s.slot_bytes;
  s.bytes = s.bias + kStages * kBiasBytes;
  return s;
}

template <class Element, int kRowTiles, int kColumnPieces>
__global__ void __launch_bounds__(256 / kRowTiles, kRowTiles) shallow_forward(const Forward f) {
  if constexpr (kElementBytes<Element> == 2 && !kForSm80) return not_for_this_chip();
  constexpr int kThreads = 256 / kRowTiles, kPieceTiles = kPieceColumns<Element> / 8;
  const int lane = threadIdx.x % 32, warp_row = int(threadIdx.x) / 32 * 16 * kRowTiles;
  const int64_t row = int64_t(blockIdx.x) * kRows;
  const int first_piece = blockIdx.z * f.W_pieces, split = blockIdx.y;
  const int first_slab = int(uint32_t(f.slabs) * split / f.splits);
  const int end_slab = int(uint32_t(f.slabs) * (split + 1) / f.splits);
  const SharedLayout shared = shared_layout(f.U_pieces);
  const MaskState mask = mask_state(f.mask);
  const bool has_rows = row + warp_row < f.B;  // a warp without rows only copies

  int load_slab = first_slab, load_piece = 0, load_slot = 0, use_slot = 0;
  const auto load_next = [&] {
    const int thread = fresh_thread();
    if (load_slab < end_slab) {
      const uint32_t slot = shared.ring + load_slot * shared.slot_bytes;
      const int64_t unit = int64_t(load_slab) * kSlab;
      if (load_piece < f.U_pieces) {
        copy_piece<kSlab, kThreads>(slot, f.U, unit, load_piece, thread);
        if (!shared.z_resident) copy_piece<kRows, kThreads>(slot + kSlabPieceBytes, f.z, row, load_piece, thread);
        // A slab has at least two pieces: the ring is done with a bias before the bias of kStages slabs later comes.
        if (load_piece == 0 && thread < kSlab)
          copy_async<4>(shared.bias + load_slab % kStages * kBiasBytes + thread * sizeof(float), f.b + unit + thread,
                        unit + thread < f.U.rows);
      } else {
        copy_piece<kSlab, kThreads>(slot, f.W, unit, first_piece + load_piece - f.U_pieces, thread);
      }
      if (++load_piece == f.U_pieces + f.W_pieces) load_piece = 0, ++load_slab;
      load_slot = load_slot + 1 == kStages ? 0 : load_slot + 1;
    }
    copy_async_commit();
  };
  // Waits for the next piece, returns its slot, and refills the slot before it, which nobody reads after the barrier.
  const auto next_slot = [&] {
    copy_async_wait<kStages - 2>();
    sync_block();
    load_next();
    const uint32_t slot = shared.ring + use_slot * shared.slot_bytes;
    use_slot = use_slot + 1 == kStages ? 0 : use_slot + 1;
    return slot;
  };

  if (shared.z_resident && first_slab < end_slab)
    for (int piece = 0; piece < f.U_pieces; ++piece)
      copy_piece<kRows, kThreads>(piece * kRowPieceBytes, f.z, row, piece);
#pragma unroll 1
  for (int i = 0; i < kStages - 1; ++i) load_next();

  const uint32_t z_at = warp_row * kPieceRowBytes + fragment_at(lane), U_at = fragment_along_at(lane);
  float y[kRowTiles][kPieceTiles * kColumnPieces][4] = {};
  for (int slab = first_slab; slab < end_slab; ++slab) {
    float s[kRowTiles][kSlabTiles][4] = {};
    for (int piece = 0; piece < f.U_pieces; ++piece) {
      const uint32_t U = next_slot();
      const uint32_t z = shared.z_resident ? piece * kRowPieceBytes : U + kSlabPieceBytes;
      const int groups = f.z.groups_from(piece);
      if (has_rows && groups >= kPieceGroups) {
#pragma unroll
        for (int i = 0; i < kPieceGroups; ++i)
          multiply_along<Element>(s, z + (z_at ^ i * kGroupBytes), U + (U_at ^ i * kGroupBytes));
      } else if (has_rows) {
        for (int i = 0; i < groups; ++i)
          multiply_along<Element>(s, z + (z_at ^ i * kGroupBytes), U + (U_at ^ i * kGroupBytes));
      }
    }

    Fragments<Element, kSlabTiles> h[kRowTiles];
    if (has_rows) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r)
        make_hidden<Element>(h[r], s[r], shared.bias + slab % kStages * kBiasBytes, f.activation, mask, lane,
                             row + warp_row + 16 * r, int64_t(slab) * kSlab);
    }

#pragma unroll
    for (int piece = 0; piece < kColumnPieces; ++piece) {
      if (piece >= f.W_pieces) continue;
      const uint32_t W = next_slot();
      const int groups = f.W.groups_from(first_piece + piece);
      if (has_rows && groups >= kPieceGroups)
        multiply_down<Element, true>(y, h, piece * kPieceTiles, groups, W, lane);
      else if (has_rows)
        multiply_down<Element, false>(y, h, piece * kPieceTiles, groups, W, lane);
    }
  }

  float* const to = f.target.sums + split * f.B * f.C;
#pragma unroll
  for (int r = 0; r < kRowTiles; ++r)
#pragma unroll
    for (int n = 0; n < kPieceTiles * kColumnPieces; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t i_row = row + warp_row + 16 * r + lane / 4 + 8 * (i / 2);
        const int64_t i_column = first_piece * kPieceColumns<Element> + 8 * n + 2 * (lane % 4) + i % 2;
        if (n < kPieceTiles * f.W_pieces && i_row < f.B && i_column < f.C)
          to[i_row * f.C + i_column] = f.target.c ? y[r][n][i] + f.target.c[i_column] : y[r][n][i];
      }
}

template <class Element, int kRowTiles, int kC>
cudaError_t run(const Forward& f, const RowPlan& plan, cudaStream_t stream) {
  const auto kernel = shallow_forward<Element, kRowTiles, kC / kPieceColumns<Element>>;
  if (kElementBytes<Element> == 2 && is_stub(kernel)) return cudaErrorNoKernelImageForDevice;
  return launch(kernel, plan.grid(), 256 / kRowTiles, shared_layout(f.U_pieces).bytes, stream, f);
}

}  // namespace

cudaError_t run_forward_sm80(const pymimic_shallow& p, const RowPlan& plan, const ForwardTarget& target,
                             cudaStream_t stream) {
  Forward f;
  f.z = operand(p.z, p.ldz, p.B, p.k, p.precision);
  f.U = operand(p.U, p.ldu, p.H, p.k, p.precision);
  f.W = operand(p.W, p.ldw, p.H, p.C, p.precision);
  f.b = p.b, f.target = target;
  f.B = p.B, f.C = p.C;
  f.slabs = plan.slabs, f.splits = plan.splits;
  f.U_pieces = plan.U_pieces, f.W_pieces = plan.chunk_pieces;
  f.activation = p.activation, f.mask = p.mask;
  const bool small_C = p.C <= kForwardSmallC;
  switch (p.precision) {
    case PYMIMIC_BF16:
      return small_C ? run<Bf16, 2, kForwardSmallC>(f, plan, stream) : run<Bf16, 1, kForwardC>(f, plan, stream);
    case PYMIMIC_FP16:
      return small_C ? run<Fp16, 2, kForwardSmallC>(f, plan, stream) : run<Fp16, 1, kForwardC>(f, plan, stream);
    case PYMIMIC_TF32: return run<Tf32, 1, kForwardC>(f, plan, stream);
    case PYMIMIC_FP32: return run<ThreeTf32, 1, kForwardC>(f, plan, stream);
  }
  return cudaErrorInvalidValue;
}

}  // namespace mimic
