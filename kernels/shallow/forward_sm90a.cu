// y = h W + c with h = mask(f(z U^T + b)), for sm_90a: wgmma, fed by the copy engine.
//
// A block owns 128 rows and up to kColumnPieces pieces of the columns of y, and sums a part of H. One warp walks ahead
// over slabs of 128 hidden units and has the copy engine bring the pieces of U, then those of W, into a ring. Two
// warpgroups of 64 rows each follow: their sums z U^T become, in their registers, h as the A operand of h W. While one
// warpgroup makes h, three products run: those of the other warpgroup, its own h W of the slab before, and the first
// piece of its next z U^T.
#include "hidden/fragments.cuh"
#include "shallow/columns.cuh"
#include "shallow/rows.cuh"
#include "tile/launch.cuh"
#include "tile/ring_sm90a.cuh"
#include "tile/tensor_map.cuh"

namespace mimic {
namespace {

constexpr int kSlab = kForwardSlabSm90a, kSlabTiles = kSlab / 8, kColumnPieces = kForwardC / kBoxColumns;
constexpr int kGroupRows = 64, kConsumers = kForwardRows / kGroupRows, kThreads = (kConsumers + 1) * 128;
constexpr uint32_t kPieceBytes = kSlab * kPieceRowBytes, kBiasBytes = kSlab * sizeof(float);
constexpr uint32_t kNarrowRowBytes = kNarrowColumns * 2, kNarrowPieceBytes = kSlab * kNarrowRowBytes;
constexpr int kResidentPieces = 4;  // z of so many pieces stays in shared memory; else its pieces come with those of U
constexpr int kResidentStages = 9, kStreamingStages = 6;
// The ring is at most kResidentStages pieces ahead, and a slab has at least two: no bias is replaced while it is read.
constexpr int kBiases = (kResidentStages + 1) / 2;
static_assert(kForwardRows == kSlab && kStreamingStages > kColumnPieces + 1);
// Each of 384 threads starts with 168 registers.
constexpr int kProducerRegisters = 40, kConsumerRegisters = 232;

struct Forward {
  TensorMap z, U, W;
  const float* b;
  ForwardTarget target;
  int64_t B, H, C;
  int slabs, splits, slabs_each, U_pieces, U_groups, W_pieces;  // slabs of kSlab; W_pieces: of one block
  int first_column;                                             // of z and U: 0, or beyond the last where k is 0
  pymimic_activation activation;
  pymimic_mask mask;
};

struct SharedLayout {
  bool z_resident;
  PieceRing ring;
  uint32_t biases, mask, z_barrier, bytes;

  __device__ uint32_t bias(int slab) const { return biases + slab % kBiases * kBiasBytes; }
};

MIMIC_HD SharedLayout shared_layout(int U_pieces) {
  SharedLayout s;
  s.z_resident = U_pieces <= kResidentPieces;
  s.ring.stages = s.z_resident ? kResidentStages : kStreamingStages;
  s.ring.slots = s.z_resident ? U_pieces * kPieceBytes : 0;
  s.ring.slot_bytes = s.z_resident ? kPieceBytes : 2 * kPieceBytes;
  s.biases = s.ring.slots + s.ring.stages * s.ring.slot_bytes;
  s.mask = s.biases + kBiases * kBiasBytes;
  s.ring.barriers = s.mask + uint32_t(sizeof(MaskState));
  s.z_barrier = s.ring.barriers + s.ring.stages * 16;
  s.bytes = s.z_barrier + 8;
  return s;
}

// The part of the problem that a block has.
struct Part {
  int row, first_piece, first_slab, end_slab;
};

// The producer warp fills the ring; its first lane starts the copies.
template <class Columns>
__device__ __forceinline__ void produce(const Forward& f, const Part& part, const SharedLayout& shared) {
  const int lane = threadIdx.x % 32, U_pieces = U_pieces_of<Columns>(f), W_pieces = W_pieces_of<Columns>(f);
  if (shared.z_resident && lane == 0) {
    mbarrier_arrive_expecting(shared.z_barrier, U_pieces * kPieceBytes);
    for (int piece = 0; piece < U_pieces; ++piece)
      copy_box(piece * kPieceBytes, f.z, f.first_column + piece * kBoxColumns, part.row, shared.z_barrier);
  }
  Biases<kSlab> biases;
  biases.load(f.b, int64_t(part.first_slab) * kSlab, f.H, lane);
  RingPosition next = {shared.ring.stages};
  for (int slab = part.first_slab; slab < part.end_slab; ++slab)
#pragma unroll 1
    for (int piece = 0; piece < U_pieces + W_pieces; ++piece, next.advance()) {
      mbarrier_wait(shared.ring.emptied(next.slot), next.parity ^ 1);
      if (piece == 0) {
        biases.store(shared.bias(slab), lane);
        biases.load(f.b, int64_t(slab + 1) * kSlab, f.H, lane);
      }
      sync_warp();
      if (lane > 0) continue;
      const uint32_t to = shared.ring.slot(next.slot), filled = shared.ring.filled(next.slot);
      const uint32_t W_bytes = Columns::kNarrow ? kNarrowPieceBytes : kPieceBytes;
      mbarrier_arrive_expecting(filled, piece < U_pieces ? shared.ring.slot_bytes : W_bytes);
      if (piece < U_pieces) {
        const int column = f.first_column + piece * kBoxColumns;
        copy_box(to, f.U, column, slab * kSlab, filled);
        if (!shared.z_resident) copy_box(to + kPieceBytes, f.z, column, part.row, filled);
      } else {
        copy_box(to, f.W, (part.first_piece + piece - U_pieces) * kBoxColumns, slab * kSlab, filled);
      }
    }
}

// A consumer warp: its warpgroup owns 64 rows of y.
template <class Element, class Columns>
__device__ __forceinline__ void consume(const Forward& f, const Part& part, const SharedLayout& shared, int group) {
  constexpr int kPieces = Columns::kKnown ? Columns::kW : kColumnPieces, kTiles = Columns::kNarrow ? 2 : 8;
  const int lane = threadIdx.x % 32, U_pieces = U_pieces_of<Columns>(f), W_pieces = W_pieces_of<Columns>(f);
  const int row = part.row + int(threadIdx.x) / 32 * 16;
  const uint32_t z_rows = group * kGroupRows * kPieceRowBytes;
  RingPosition next = {shared.ring.stages}, oldest = next;  // the piece to read next, the oldest not released
  const auto release = [&] {                                // all pieces before `next`
    for (; oldest.slot != next.slot; oldest.advance())
      if (lane == 0) mbarrier_arrive(shared.ring.emptied(oldest.slot));
  };

  float y[kPieces][kTiles][4] = {}, s[kSlabTiles][4];
  uint32_t h[kSlab / 16][4];
  const auto make_h = [&](int slab) {
    MaskBits<kSlabTiles> mask_bits;
    for (int piece = 0; piece < U_pieces; ++piece) {
      mbarrier_wait(shared.ring.filled(next.slot), next.parity);
      const uint32_t at = shared.ring.slot(next.slot);
      const uint32_t z = (shared.z_resident ? piece * kPieceBytes : at + kPieceBytes) + z_rows;
      start_multiply_along<Element>(s, z, at, U_groups_from<Columns>(f, piece), piece > 0);
      if (piece == 0 && f.mask.threshold < 256)
        mask_bits.make(load_shared<MaskState>(shared.mask), lane, row, slab * kSlab);
      wgmma_wait<1>();
      release();
      next.advance();
    }
    wgmma_wait<0>();
    wgmma_done(s);
    release();
    add_bias(s, shared.bias(slab), lane);
    if (activation_of<Columns>(f) == PYMIMIC_RELU && f.mask.threshold == 256) {
      to_fragments<Element, true>(h, s);
    } else {
      activate<true>(activation_of<Columns>(f), s);
      if (f.mask.threshold < 256) mask_bits.apply(s, load_shared<MaskState>(shared.mask).scale);
      to_fragments<Element>(h, s);
    }
    wgmma_fence();
  };
  const auto start_y = [&] {  // y += h W, asynchronously: the next make_h waits for it
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      if (piece >= W_pieces) continue;
      mbarrier_wait(shared.ring.filled(next.slot), next.parity);
      start_multiply_down<Element>(y[piece], h, shared.ring.slot(next.slot));
      next.advance();
    }
    wgmma_commit();
  };

  if (shared.z_resident) mbarrier_wait(shared.z_barrier, 0);
  wgmma_fence();
  make_h(part.first_slab);
  // ptxas wants no product under way where the loop begins again.
  for (int slab = part.first_slab + 1; slab < part.end_slab; ++slab) {
    start_y();
    make_h(slab);
  }
  start_y();
  wgmma_wait<0>();

  float* const to = f.target.sums + int64_t(blockIdx.y) * f.B * f.C;
#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    wgmma_done(y[piece]);
#pragma unroll
    for (int n = 0; n < kTiles; ++n)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        const int64_t i_row = int64_t(row) + lane / 4 + 8 * (i / 2);
        const int64_t i_column = (part.first_piece + piece) * kBoxColumns + 8 * n + 2 * (lane % 4) + i % 2;
        if (piece < W_pieces && i_row < f.B && i_column < f.C)
          to[i_row * f.C + i_column] = f.target.c ? y[piece][n][i] + f.target.c[i_column] : y[piece][n][i];
      }
  }
}

template <class Element, class Columns>
__global__ void __launch_bounds__(kThreads, 1) shallow_forward_sm90a(const __grid_constant__ Forward f) {
  if constexpr (kForSm90a) {
    const int group = uniform(threadIdx.x / 128);
    const SharedLayout shared = shared_layout(U_pieces_of<Columns>(f));
    const Slabs slabs = slabs_of(blockIdx.y, f.splits, f.slabs, f.slabs_each);
    const Part part = {int(blockIdx.x) * kForwardRows, int(blockIdx.z) * W_pieces_of<Columns>(f), slabs.first,
                       slabs.end};
    if (threadIdx.x == 0) {
      store_shared(shared.mask, mask_state(f.mask));
      mbarrier_init(shared.z_barrier, 1);
      open_ring(shared.ring, kConsumers * 4);
      mbarrier_init_fence();
    }
    sync_block();
    if (group == kConsumers) {
      give_registers<kProducerRegisters>();
      if (threadIdx.x / 32 == kConsumers * 4) produce<Columns>(f, part, shared);
    } else {
      take_registers<kConsumerRegisters>();
      consume<Element, Columns>(f, part, shared, group);
    }
  } else {
    not_for_this_chip();
  }
}

}  // namespace

bool has_forward_sm90a() { return has_code_for_sm_90a(shallow_forward_sm90a<Bf16, AnyColumns>); }

cudaError_t run_forward_sm90a(const pymimic_shallow& p, const RowPlan& plan, const ForwardTarget& target,
                              cudaStream_t stream) {
  Forward f;
  cudaError_t error = cudaSuccess;
  if (p.k > 0) {
    f.first_column = 0;
    error = make_tensor_map(f.z, p.z, p.ldz, p.B, p.k, p.precision, kSlab);
    if (error == cudaSuccess) error = make_tensor_map(f.U, p.U, p.ldu, p.H, p.k, p.precision, kSlab);
  } else {  // a tensor map cannot have 0 columns; beyond the columns of W the copy engine gives zeros
    f.first_column = PYMIMIC_MAX_C;
    error = make_tensor_map(f.z, p.W, p.ldw, p.H, p.C, p.precision, kSlab);
    f.U = f.z;
  }
  if (error != cudaSuccess) return error;
  f.b = p.b, f.target = target;
  f.B = p.B, f.H = p.H;
  f.C = p.C;
  f.slabs = plan.slabs, f.splits = plan.splits;
  f.slabs_each = plan.slabs / plan.splits;
  f.U_pieces = plan.U_pieces;
  f.U_groups = p.k > 0 ? groups_of(p.k) : 1;  // of zeros
  f.W_pieces = plan.chunk_pieces;
  f.activation = p.activation, f.mask = p.mask;
  const auto run = [&](auto kernel, int box_columns) {
    const cudaError_t error = make_tensor_map(f.W, p.W, p.ldw, p.H, p.C, p.precision, kSlab, box_columns);
    if (error != cudaSuccess) return error;
    return launch(kernel, plan.grid(), kThreads, shared_layout(f.U_pieces).bytes, stream, f);
  };
  if (p.precision != PYMIMIC_BF16) return run(shallow_forward_sm90a<Fp16, AnyColumns>, kBoxColumns);
  return with_columns(p, [&](auto columns) {
    using C = decltype(columns);
    return run(shallow_forward_sm90a<Bf16, C>, C::kNarrow ? kNarrowColumns : kBoxColumns);
  });
}

}  // namespace mimic
