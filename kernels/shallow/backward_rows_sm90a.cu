// dz = da U with da = (dy W^T) f'(a) mask and a = z U^T + b, for sm_90a: wgmma, fed by the copy engine. For shapes
// whose z and dy fit shared memory and whose dz fits registers; the launcher has backward_rows_sm80.cu do the others.
//
// A block owns 128 rows and sums a part of H. One warp walks ahead over slabs of 64 hidden units and has the copy
// engine bring the pieces of W, then those of U, into a ring. Two warpgroups of 64 rows each follow: dy W^T and z U^T
// become, in their registers, da as the A operand of da U, which reads the pieces of U that z U^T has read.
#include "hidden/fragments.cuh"
#include "shallow/columns.cuh"
#include "shallow/rows.cuh"
#include "tile/launch.cuh"
#include "tile/ring_sm90a.cuh"
#include "tile/tensor_map.cuh"

namespace mimic {
namespace {

constexpr int kRows = kBackwardRows, kSlab = 64, kSlabTiles = kSlab / 8, kGroupRows = 64,
              kConsumers = kRows / kGroupRows;
constexpr int kThreads = (kConsumers + 1) * 128, kStages = 12;
constexpr int kBiases = (kStages + 2) / 2;  // a slab has at least two pieces: no bias is replaced while it is read
constexpr int kUPieces = kBackwardRowsK / kBoxColumns;
constexpr uint32_t kRowPieceBytes = kRows * kPieceRowBytes, kPieceBytes = kSlab * kPieceRowBytes;
constexpr uint32_t kBiasBytes = kSlab * sizeof(float);
static_assert(kStages > kUPieces + 1);
// Each of 384 threads starts with 168 registers.
constexpr int kProducerRegisters = 24, kConsumerRegisters = 240;

struct BackwardRows {
  TensorMap z, dy, U, W;
  const float* b;
  float* dz;  // (splits, B, k)
  int64_t B, H, k;
  int slabs, splits, slabs_each, U_pieces, W_pieces, U_groups, W_groups;
  pymimic_activation activation;
  pymimic_mask mask;
};

// dy, then z, then the ring.
struct SharedLayout {
  PieceRing ring;
  uint32_t z, biases, mask, rows_barrier, bytes;

  __device__ uint32_t bias(int slab) const { return biases + slab % kBiases * kBiasBytes; }
};

MIMIC_HD SharedLayout shared_layout(int U_pieces, int W_pieces) {
  SharedLayout s;
  s.z = W_pieces * kRowPieceBytes;
  s.ring = {kStages, s.z + U_pieces * kRowPieceBytes, kPieceBytes, 0};
  s.biases = s.ring.slots + kStages * kPieceBytes;
  s.mask = s.biases + kBiases * kBiasBytes;
  s.ring.barriers = s.mask + uint32_t(sizeof(MaskState));
  s.rows_barrier = s.ring.barriers + kStages * 16;
  s.bytes = s.rows_barrier + 8;
  return s;
}

// The part of the problem that a block has.
struct Part {
  int row, first_slab, end_slab;
};

// The producer warp fills the ring; its first lane starts the copies.
template <class Columns>
__device__ __forceinline__ void produce(const BackwardRows& f, const Part& part, const SharedLayout& shared) {
  const int lane = threadIdx.x % 32, U_pieces = U_pieces_of<Columns>(f), W_pieces = W_pieces_of<Columns>(f);
  if (lane == 0) {
    mbarrier_arrive_expecting(shared.rows_barrier, (W_pieces + U_pieces) * kRowPieceBytes);
    for (int piece = 0; piece < W_pieces; ++piece)
      copy_box(piece * kRowPieceBytes, f.dy, piece * kBoxColumns, part.row, shared.rows_barrier);
    for (int piece = 0; piece < U_pieces; ++piece)
      copy_box(shared.z + piece * kRowPieceBytes, f.z, piece * kBoxColumns, part.row, shared.rows_barrier);
  }
  Biases<kSlab> biases;
  biases.load(f.b, int64_t(part.first_slab) * kSlab, f.H, lane);
  RingPosition next = {kStages};
  for (int slab = part.first_slab; slab < part.end_slab; ++slab)
#pragma unroll 1
    for (int piece = 0; piece < W_pieces + U_pieces; ++piece, next.advance()) {
      mbarrier_wait(shared.ring.emptied(next.slot), next.parity ^ 1);
      if (piece == 0) {
        biases.store(shared.bias(slab), lane);
        biases.load(f.b, int64_t(slab + 1) * kSlab, f.H, lane);
      }
      sync_warp();
      if (lane > 0) continue;
      const uint32_t to = shared.ring.slot(next.slot), filled = shared.ring.filled(next.slot);
      mbarrier_arrive_expecting(filled, kPieceBytes);
      if (piece < W_pieces)
        copy_box(to, f.W, piece * kBoxColumns, slab * kSlab, filled);
      else
        copy_box(to, f.U, (piece - W_pieces) * kBoxColumns, slab * kSlab, filled);
    }
}

// A consumer warp: its warpgroup owns 64 rows of dz.
template <class Columns>
__device__ __forceinline__ void consume(const BackwardRows& f, const Part& part, const SharedLayout& shared,
                                        int group) {
  constexpr int kPieces = Columns::kKnown ? Columns::kU : kUPieces;
  const int lane = threadIdx.x % 32, row = part.row + int(threadIdx.x) / 32 * 16;
  const int U_pieces = U_pieces_of<Columns>(f), W_pieces = W_pieces_of<Columns>(f);
  const uint32_t my_rows = group * kGroupRows * kPieceRowBytes;
  RingPosition next = {kStages}, oldest = next, first_U = next;  // the piece to read next, the oldest not released
  const auto release = [&](const RingPosition& end) {            // all pieces before it
    for (; oldest.slot != end.slot; oldest.advance())
      if (lane == 0) mbarrier_arrive(shared.ring.emptied(oldest.slot));
  };
  // sums = rows times the next piece, along; from the second piece on +=.
  const auto start_along = [&](float (&sums)[kSlabTiles][4], uint32_t rows, int piece, int groups) {
    mbarrier_wait(shared.ring.filled(next.slot), next.parity);
    rows += piece * kRowPieceBytes + my_rows;
    if (piece == 0)
      start_multiply_along<Bf16>(sums, rows, shared.ring.slot(next.slot), groups);
    else
      start_multiply_along<Bf16>(sums, rows, shared.ring.slot(next.slot), groups, true);
  };

  float dz[kPieces][8][4] = {};
  uint32_t da[kSlab / 16][4];
  const auto make_da = [&](int slab) {
    float dh[1][kSlabTiles][4], s[1][kSlabTiles][4];
    MaskBits<kSlabTiles> mask_bits;
    start_along(dh[0], 0, 0, W_groups_from<Columns>(f, 0));
    if (f.mask.threshold < 256) mask_bits.make(load_shared<MaskState>(shared.mask), lane, row, slab * kSlab);
    wgmma_wait<1>();
    release(next);
    next.advance();
    for (int piece = 1; piece < W_pieces; ++piece, next.advance()) {
      start_along(dh[0], 0, piece, W_groups_from<Columns>(f, piece));
      wgmma_wait<1>();
      release(next);
    }
    first_U = next;
    start_along(s[0], shared.z, 0, U_groups_from<Columns>(f, 0));
    next.advance();
    for (int piece = 1; piece < U_pieces; ++piece, next.advance())
      start_along(s[0], shared.z, piece, U_groups_from<Columns>(f, piece));
    wgmma_wait<0>();
    wgmma_done(dh[0]);
    wgmma_done(s[0]);
    release(first_U);

    add_bias(s[0], shared.bias(slab), lane);
    activate_and_differentiate<true>(activation_of<Columns>(f), s, dh);
    if (f.mask.threshold < 256) mask_bits.apply(dh[0], load_shared<MaskState>(shared.mask).scale);
    to_fragments<Bf16>(da, dh[0]);
    wgmma_fence();
  };
  const auto start_dz = [&] {  // dz += da U, asynchronously: the next make_da waits for it
    RingPosition U = first_U;
#pragma unroll
    for (int piece = 0; piece < kPieces; ++piece) {
      if (piece >= U_pieces) continue;
      start_multiply_down<Bf16>(dz[piece], da, shared.ring.slot(U.slot));
      U.advance();
    }
    wgmma_commit();
  };

  mbarrier_wait(shared.rows_barrier, 0);
  wgmma_fence();
  make_da(part.first_slab);
  // ptxas wants no product under way where the loop begins again.
  for (int slab = part.first_slab + 1; slab < part.end_slab; ++slab) {
    start_dz();
    make_da(slab);
  }
  start_dz();
  wgmma_wait<0>();

#pragma unroll
  for (int piece = 0; piece < kPieces; ++piece) {
    wgmma_done(dz[piece]);
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int64_t to_row = row + lane / 4 + 8 * half;
      if (piece >= U_pieces || to_row >= f.B) continue;
      float* const to = f.dz + (blockIdx.y * f.B + to_row) * f.k;
#pragma unroll
      for (int n = 0; n < 8; ++n)
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int column = piece * kBoxColumns + 8 * n + 2 * (lane % 4) + i;
          if (column < f.k) to[column] = dz[piece][n][2 * half + i];
        }
    }
  }
}

template <class Columns>
__global__ void __launch_bounds__(kThreads, 1) shallow_backward_rows_sm90a(const __grid_constant__ BackwardRows f) {
  if constexpr (kForSm90a) {
    const int group = uniform(threadIdx.x / 128);
    const SharedLayout shared = shared_layout(U_pieces_of<Columns>(f), W_pieces_of<Columns>(f));
    const Slabs slabs = slabs_of(blockIdx.y, f.splits, f.slabs, f.slabs_each);
    const Part part = {int(blockIdx.x) * kRows, slabs.first, slabs.end};
    if (threadIdx.x == 0) {
      store_shared(shared.mask, mask_state(f.mask));
      mbarrier_init(shared.rows_barrier, 1);
      open_ring(shared.ring, kConsumers * 4);
      mbarrier_init_fence();
    }
    sync_block();
    if (group == kConsumers) {
      give_registers<kProducerRegisters>();
      if (threadIdx.x / 32 == kConsumers * 4) produce<Columns>(f, part, shared);
    } else {
      take_registers<kConsumerRegisters>();
      consume<Columns>(f, part, shared, group);
    }
  } else {
    not_for_this_chip();
  }
}

}  // namespace

bool has_backward_rows_sm90a() { return has_code_for_sm_90a(shallow_backward_rows_sm90a<AnyColumns>); }

cudaError_t run_backward_rows_sm90a(const pymimic_shallow& p, const void* dy, int64_t lddy, const RowPlan& plan,
                                    float* dz, cudaStream_t stream) {
  BackwardRows f;
  cudaError_t error = make_tensor_map(f.z, p.z, p.ldz, p.B, p.k, p.precision, kRows);
  if (error == cudaSuccess) error = make_tensor_map(f.dy, dy, lddy, p.B, p.C, p.precision, kRows);
  if (error == cudaSuccess) error = make_tensor_map(f.U, p.U, p.ldu, p.H, p.k, p.precision, kSlab);
  if (error == cudaSuccess) error = make_tensor_map(f.W, p.W, p.ldw, p.H, p.C, p.precision, kSlab);
  if (error != cudaSuccess) return error;
  f.b = p.b, f.dz = dz;
  f.B = p.B, f.H = p.H;
  f.k = p.k;
  f.slabs = plan.slabs, f.splits = plan.splits;
  f.slabs_each = plan.slabs / plan.splits;
  f.U_pieces = plan.U_pieces, f.W_pieces = plan.W_pieces;
  f.U_groups = groups_of(p.k), f.W_groups = groups_of(p.C);
  f.activation = p.activation, f.mask = p.mask;
  return with_columns(p, [&](auto columns) {
    return launch(shallow_backward_rows_sm90a<decltype(columns)>, plan.grid(), kThreads,
                  shared_layout(f.U_pieces, f.W_pieces).bytes, stream, f);
  });
}

}  // namespace mimic
