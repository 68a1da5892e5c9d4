// y = f(z U^T + b) W + c for up to 8 rows, bound by the bandwidth of U and W, which are read once each; and the plan
// and the launcher of the whole net.
//
// A block walks over slabs of 128 units. A ring of asynchronous copies brings the pieces of U. A thread makes the sums
// of one unit for all rows, and h goes through shared memory. Then a thread owns 8 columns of y and every n-th unit,
// and loads W into its registers. A row's bits do not depend on the other rows.
#include "hidden/activate.cuh"
#include "launch.h"
#include "serving/weights.cuh"
#include "tile/operands.cuh"
#include "tile/split_sums.cuh"
#include "tile/swizzled.cuh"
#include "tile/vec4.cuh"

namespace mimic {
namespace {

constexpr int kRows = kFewRows, kThreads = 128, kSlab = kThreads, kStages = 3, kColumns = 8;
constexpr uint32_t kPieceBytes = kSlab * kPieceRowBytes;
constexpr uint32_t kHiddenBytes = kSlab * kRows * sizeof(float), kFixedBytes = kStages * kPieceBytes + kHiddenBytes;
static_assert(PYMIMIC_MAX_C <= kThreads * kColumns);
static_assert(kStages * kPieceBytes >=
              kThreads * kRows * kColumns * sizeof(float));  // at the end the ring's memory is used again

struct Serve {
  Operand U;
  const float *z, *mean, *scale;  // mean: null where z is not standardised
  const void* W;
  int64_t ldw;
  const float *U_scale, *W_scale, *b, *c;  // c: null where parts of H are added later
  float* y;                                // (gridDim.x, B, C)
  int64_t H;
  int B, k, C, slabs, pieces;  // pieces of U
  uint32_t z_row;              // bytes of a row of z in shared memory
  pymimic_activation activation;
};

// sums[r] += some columns of row r of z times one chunk of a unit's weights; row 0's first of these columns is at `z`.
template <class Served>
__device__ __forceinline__ void multiply_chunk(float (&sums)[kRows], const uint4& chunk, uint32_t z, const Serve& f) {
  float weights[Served::kOfChunk];
  Served::to_floats(weights, chunk);
#pragma unroll
  for (int r = 0; r < kRows; ++r) {
    if (r >= f.B) continue;
#pragma unroll
    for (int i = 0; i < Served::kOfChunk; i += 4) {
      const float4 four = load_shared<float4>(z + r * f.z_row + i * uint32_t(sizeof(float)));
      sums[r] += four.x * weights[i];
      sums[r] += four.y * weights[i + 1];
      sums[r] += four.z * weights[i + 2];
      sums[r] += four.w * weights[i + 3];
    }
  }
}

template <class Served>
__global__ void __launch_bounds__(kThreads, 4) serve(const Serve f) {
  const int thread = threadIdx.x;
  const int first_slab = int(int64_t(f.slabs) * blockIdx.x / gridDim.x);
  const int end_slab = int(int64_t(f.slabs) * (blockIdx.x + 1) / gridDim.x);
  const uint32_t hidden = kStages * kPieceBytes, z = hidden + kHiddenBytes;

  int load_slab = first_slab, load_piece = 0, load_slot = 0, use_slot = 0;
  const auto load_next = [&] {
    if (load_slab < end_slab) {
      copy_piece<kSlab, kThreads>(load_slot * kPieceBytes, f.U, int64_t(load_slab) * kSlab, load_piece);
      if (++load_piece == f.pieces) load_piece = 0, ++load_slab;
      load_slot = load_slot + 1 == kStages ? 0 : load_slot + 1;
    }
    copy_async_commit();
  };
#pragma unroll 1
  for (int i = 0; i < kStages - 1; ++i) load_next();

  const int z_columns = int(f.z_row / sizeof(float));
  for (int i = thread; i < f.B * z_columns; i += kThreads) {
    const int row = i / z_columns, column = i % z_columns;
    float value = column < f.k ? f.z[int64_t(row) * f.k + column] : 0.0f;
    if (f.mean && column < f.k) value = (value - f.mean[column]) * f.scale[column];
    store_shared(z + i * uint32_t(sizeof(float)), value);
  }

  const int owners = (f.C + kColumns - 1) / kColumns, column = thread % owners * kColumns;
  const int share = thread / owners, shares = kThreads / owners;  // of the units of a slab
  float y[kRows][kColumns] = {};
  for (int slab = first_slab; slab < end_slab; ++slab) {
    const int64_t unit = int64_t(slab) * kSlab;
    float h[kRows / 4][4] = {};
    for (int piece = 0; piece < f.pieces; ++piece) {
      copy_async_wait<kStages - 2>();
      sync_block();  // after it nobody reads the piece before this one, nor the h of the slab before
      load_next();
      float sums[kRows];
#pragma unroll
      for (int r = 0; r < kRows; ++r) sums[r] = h[r / 4][r % 4];
      const int bytes = f.U.bytes - piece * int(kPieceRowBytes);
      const uint32_t slot = use_slot * kPieceBytes;
      uint32_t z_at = z + piece * uint32_t(kPieceRowBytes / kChunkBytes * Served::kOfChunk * sizeof(float));
      for (int i = 0; i < int(kPieceRowBytes / kChunkBytes) && i * int(kChunkBytes) < bytes; ++i) {
        multiply_chunk<Served>(sums, load_shared<uint4>(slot + piece_at(thread, i)), z_at, f);
        z_at += Served::kOfChunk * sizeof(float);
      }
#pragma unroll
      for (int r = 0; r < kRows; ++r) h[r / 4][r % 4] = sums[r];
      use_slot = use_slot + 1 == kStages ? 0 : use_slot + 1;
    }

    const bool is_unit = unit + thread < f.H;
    const float bias = is_unit ? f.b[unit + thread] : 0.0f;
    const float scale = Served::kScaled && is_unit ? f.U_scale[unit + thread] : 1.0f;
    const float scale_after = Served::kScaled && is_unit ? f.W_scale[unit + thread] : 1.0f;
#pragma unroll
    for (int r = 0; r < kRows; ++r) h[r / 4][r % 4] = h[r / 4][r % 4] * scale + bias;
    activate(f.activation, h);
#pragma unroll
    for (int i = 0; i < kRows / 4; ++i)
      store_shared<float4>(
          hidden + (thread * kRows + 4 * i) * uint32_t(sizeof(float)),
          {h[i][0] * scale_after, h[i][1] * scale_after, h[i][2] * scale_after, h[i][3] * scale_after});
    sync_block();

    const int units = f.H - unit < kSlab ? int(f.H - unit) : kSlab;
    const auto* W = static_cast<const unsigned char*>(f.W) +
                    ((unit + share) * f.ldw + column) * int64_t(sizeof(typename Served::Columns) / kColumns);
#pragma unroll 4
    for (int u = share < shares ? share : units; u < units; u += shares) {
      float weights[kColumns];
      Served::to_floats(weights, *reinterpret_cast<const typename Served::Columns*>(W));
      W += shares * f.ldw * int64_t(sizeof(typename Served::Columns) / kColumns);
#pragma unroll
      for (int r = 0; r < kRows; r += 4) {
        if (r >= f.B) continue;
        const float4 four = load_shared<float4>(hidden + (u * kRows + r) * uint32_t(sizeof(float)));
#pragma unroll
        for (int i = 0; i < kColumns; ++i) {
          y[r][i] += four.x * weights[i];
          y[r + 1][i] += four.y * weights[i];
          y[r + 2][i] += four.z * weights[i];
          y[r + 3][i] += four.w * weights[i];
        }
      }
    }
  }

  // One thread sums the shares of each element.
  const uint32_t row_bytes = owners * kColumns * uint32_t(sizeof(float));
#pragma unroll
  for (int r = 0; r < kRows; ++r)
    if (r < f.B && share < shares)
#pragma unroll
      for (int i = 0; i < kColumns; i += 4)
        store_shared<float4>((share * f.B + r) * row_bytes + (column + i) * uint32_t(sizeof(float)),
                             {y[r][i], y[r][i + 1], y[r][i + 2], y[r][i + 3]});
  sync_block();
  for (int i = thread; i < f.B * f.C; i += kThreads) {
    const int row = i / f.C, c = i % f.C;
    float sum = 0;
    for (int s = 0; s < shares; ++s)
      sum += load_shared<float>((s * f.B + row) * row_bytes + c * uint32_t(sizeof(float)));
    f.y[int64_t(blockIdx.x) * f.B * f.C + i] = f.c ? sum + f.c[c] : sum;
  }
}

bool is_valid(const pymimic_serving& p) {
  constexpr int64_t kMost = INT32_MAX - 1024;
  const bool int8 = p.weights == PYMIMIC_SERVE_INT8, scaled = p.U_scale && p.W_scale && (!p.V || p.V_scale);
  return p.B >= 0 && p.B <= kMost && p.D >= 0 && p.D <= kMost && p.k >= 0 && p.k <= PYMIMIC_MAX_K && p.C >= 0 &&
         p.C <= PYMIMIC_MAX_C && p.H >= 0 && p.H <= kMost && (p.V ? is_operand(p.V, p.ldv, p.D) : p.k == p.D) &&
         is_operand(p.U, p.ldu, p.k) && is_operand(p.W, p.ldw, p.C) && (!int8 || scaled) && !p.mean == !p.scale;
}

struct ServePlan : pymimic_plan {
  int slabs;
  uint32_t U_bytes, z_bytes;            // of a row of U, and of z in shared memory: whole chunks
  int64_t parts_size, bottleneck_size;  // floats of the workspace: the parts of y, then z
};

auto kernel_for(pymimic_served weights) {
  return weights == PYMIMIC_SERVE_FP32   ? serve<ServedFp32>
         : weights == PYMIMIC_SERVE_BF16 ? serve<ServedBf16>
                                         : serve<ServedInt8>;
}

// H is split into as many parts as blocks of a whole row block run at once. The number of rows has no say in it, so
// that a row's bits do not depend on other rows.
ServePlan make_plan(const pymimic_serving& p, size_t shared_bytes) {
  const int size = served_bytes(p.weights);
  ServePlan plan = {};
  plan.kernel = "serve", plan.slab = kSlab, plan.column_chunks = 1;
  plan.slabs = int(ceil_div(p.H, kSlab));
  plan.U_bytes = uint32_t(ceil_div(p.k * size, kChunkBytes) * kChunkBytes);
  plan.z_bytes = uint32_t(plan.U_bytes / size * sizeof(float));
  const size_t room = shared_bytes > kFixedBytes ? shared_bytes - kFixedBytes : 0;
  plan.row_block = room >= plan.z_bytes * size_t(kRows) ? kRows : int(room / plan.z_bytes);
  const int most = blocks_at_once(kernel_for(p.weights), kThreads, kFixedBytes + plan.row_block * plan.z_bytes);
  plan.splits = plan.slabs < 1 ? 1 : plan.slabs < most ? plan.slabs : most;
  const int64_t rows = p.B < plan.row_block ? p.B : plan.row_block;
  plan.parts_size = plan.splits > 1 ? plan.splits * rows * p.C : 0;
  plan.bottleneck_size = p.V ? rows * p.k : 0;
  plan.workspace = size_t(plan.parts_size + plan.bottleneck_size) * sizeof(float);
  return plan;
}

// Rows [row, row + f.B). f has what is the same for all rows.
cudaError_t run(const pymimic_serving& p, const ServePlan& plan, Serve f, int64_t row, float* y, float* workspace,
                cudaStream_t stream) {
  const bool split = plan.splits > 1;
  f.z = p.x + row * p.D;
  if (p.V) {
    float* const z = workspace + plan.parts_size;
    const cudaError_t error = run_bottleneck(p, f.z, f.B, z, stream);
    if (error != cudaSuccess) return error;
    f.z = z;
  }
  f.c = split ? nullptr : p.c;
  f.y = split ? workspace : y + row * p.C;
  const size_t shared = kFixedBytes + f.B * f.z_row;
  const cudaError_t error = launch(kernel_for(p.weights), dim3(unsigned(plan.splits)), kThreads, shared, stream, f);
  if (error != cudaSuccess || !split) return error;
  return launch_sum_splits(f.y, plan.splits, f.B, p.C, p.c, y + row * p.C, stream);
}

}  // namespace
}  // namespace mimic

extern "C" pymimic_plan pymimic_serve_plan(const pymimic_serving* p) {
  size_t shared_bytes = 0;
  if (mimic::most_shared_bytes(shared_bytes) != cudaSuccess) shared_bytes = 0;
  return mimic::make_plan(*p, shared_bytes);
}

extern "C" cudaError_t pymimic_serve(const pymimic_serving* p, float* y, void* workspace, cudaStream_t stream) {
  using namespace mimic;
  if (!is_valid(*p)) return cudaErrorInvalidValue;
  if (p->B == 0 || p->C == 0) return cudaSuccess;
  size_t shared_bytes = 0;
  if (const cudaError_t error = most_shared_bytes(shared_bytes); error != cudaSuccess) return error;
  const ServePlan plan = make_plan(*p, shared_bytes);
  if (plan.row_block == 0) return cudaErrorInvalidValue;
  Serve f = {};
  f.U = {static_cast<const unsigned char*>(p->U), p->ldu * served_bytes(p->weights), p->H, int(plan.U_bytes)};
  f.mean = p->V ? nullptr : p->mean, f.scale = p->V ? nullptr : p->scale;
  f.W = p->W, f.ldw = p->ldw;
  f.U_scale = p->U_scale, f.W_scale = p->W_scale;
  f.b = p->b, f.H = p->H;
  f.k = int(p->k), f.C = int(p->C);
  f.slabs = plan.slabs, f.pieces = f.U.bytes ? int(ceil_div(f.U.bytes, kPieceRowBytes)) : 1;
  f.z_row = plan.z_bytes, f.activation = p->activation;
  for (int64_t row = 0; row < p->B; row += plan.row_block) {
    f.B = int(p->B - row < plan.row_block ? p->B - row : plan.row_block);
    const cudaError_t error = run(*p, plan, f, row, y, static_cast<float*>(workspace), stream);
    if (error != cudaSuccess) return error;
  }
  return cudaSuccess;
}
