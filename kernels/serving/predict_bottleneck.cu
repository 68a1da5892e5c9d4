// z = x V^T in float32, for prediction. D and k alone decide in which order an element is summed, so that a row's bits
// do not depend on other rows or on how many rows there are. (cuBLAS chooses the order by all sizes.)
//
// A block makes 128 rows by 64 units of z from a part of D, a thread 8 by 8 of them. They walk over steps of 16
// columns, which go through shared memory transposed; the next step is loaded into registers meanwhile.
#include "launch.h"
#include "tile/split_sums.cuh"
#include "tile/vec4.cuh"

namespace mimic {
namespace {

constexpr int kThreads = 128, kRows = 128, kUnits = 64, kStep = 16, kOfWarp = 32;
constexpr int kHalves = 2, kMostSplits = 8;                        // a thread's rows are two quads, 16 rows apart
constexpr int kRowsAt = kRows + kQuad, kUnitsAt = kUnits + kQuad;  // padded, for fewer bank conflicts in stores
constexpr uint32_t kStepBytes = kStep * kRowsAt * sizeof(float),
                   kSharedBytes = kStepBytes + kStep * kUnitsAt * sizeof(float);

struct Bottleneck {
  const float *x, *V;
  float* z;  // (splits, B, k)
  int64_t B, D;
  int k, splits;
};

// Every kThreads / kStep-th row of one step of columns, from memory ...
template <int rows>
__device__ __forceinline__ void load_step(float (&to)[rows * kStep / kThreads], const float* from, int64_t first,
                                          int64_t count, int64_t ld, int64_t column, int64_t end) {
  const int64_t mine = column + int(threadIdx.x) % kStep;
#pragma unroll
  for (int i = 0; i < rows * kStep / kThreads; ++i) {
    const int64_t row = first + int(threadIdx.x) / kStep + i * (kThreads / kStep);
    to[i] = row < count && mine < end ? from[row * ld + mine] : 0.0f;
  }
}

// ... and to shared memory, columns first.
template <int rows>
__device__ __forceinline__ void store_step(uint32_t at, const float (&from)[rows * kStep / kThreads]) {
  at += (int(threadIdx.x) % kStep * (rows + kQuad) + int(threadIdx.x) / kStep) * uint32_t(sizeof(float));
#pragma unroll
  for (int i = 0; i < rows * kStep / kThreads; ++i)
    store_shared(at + i * (kThreads / kStep) * uint32_t(sizeof(float)), from[i]);
}

__global__ void __launch_bounds__(kThreads, 2) bottleneck(const Bottleneck f) {
  const int lane = threadIdx.x % 32, warp_row = int(threadIdx.x) / 32 * kOfWarp;
  const int64_t row = int64_t(blockIdx.x) * kRows, left = f.B - row - warp_row;
  const int unit = int(blockIdx.y) * kUnits, part = blockIdx.z;
  const int64_t steps = (f.D + kStep - 1) / kStep;
  const int64_t first = steps * part / f.splits * kStep, end_step = steps * (part + 1) / f.splits * kStep;
  const int64_t end = end_step < f.D ? end_step : f.D;
  const uint32_t x_at = (warp_row + lane / 8 * kQuad) * uint32_t(sizeof(float));
  const uint32_t V_at = kStepBytes + lane % 8 * kQuad * uint32_t(sizeof(float));

  float x[kRows * kStep / kThreads], V[kUnits * kStep / kThreads];
  load_step<kRows>(x, f.x, row, f.B, f.D, first, end);
  load_step<kUnits>(V, f.V, unit, f.k, f.D, first, end);
  float sums[kHalves][kQuad][kHalves][kQuad] = {};
  for (int64_t column = first; column < end; column += kStep) {
    sync_block();  // nobody reads the step before any more
    store_step<kRows>(0, x);
    store_step<kUnits>(kStepBytes, V);
    sync_block();
    load_step<kRows>(x, f.x, row, f.B, f.D, column + kStep, end);
    load_step<kUnits>(V, f.V, unit, f.k, f.D, column + kStep, end);
#pragma unroll
    for (int i = 0; i < kStep; ++i) {
      float4 units[kHalves];
#pragma unroll
      for (int h = 0; h < kHalves; ++h)
        units[h] = load_shared<float4>(V_at + (i * kUnitsAt + h * 32) * uint32_t(sizeof(float)));
#pragma unroll
      for (int g = 0; g < kHalves; ++g) {
        if (g * 16 >= left) continue;  // a warp without these rows
        const float4 rows = load_shared<float4>(x_at + (i * kRowsAt + g * 16) * uint32_t(sizeof(float)));
        const float each[kQuad] = {rows.x, rows.y, rows.z, rows.w};
#pragma unroll
        for (int r = 0; r < kQuad; ++r)
#pragma unroll
          for (int h = 0; h < kHalves; ++h) {
            sums[g][r][h][0] += each[r] * units[h].x;
            sums[g][r][h][1] += each[r] * units[h].y;
            sums[g][r][h][2] += each[r] * units[h].z;
            sums[g][r][h][3] += each[r] * units[h].w;
          }
      }
    }
  }

#pragma unroll
  for (int g = 0; g < kHalves; ++g)
#pragma unroll
    for (int r = 0; r < kQuad; ++r)
#pragma unroll
      for (int h = 0; h < kHalves; ++h) {
        const int64_t i_row = row + warp_row + g * 16 + lane / 8 * kQuad + r;
        const int i_unit = unit + h * 32 + lane % 8 * kQuad;
        const float* const s = sums[g][r][h];
        if (i_row < f.B)
          store_quad(f.z + (part * f.B + i_row) * f.k + i_unit, {{s[0], s[1], s[2], s[3]}}, f.k - i_unit);
      }
}

// Parts of D, none shorter than 8 steps: enough blocks for few rows, and few sums to add for many.
int splits_of(int64_t D, int64_t k) {
  constexpr int64_t kBlocks = 128, kLeast = 8 * kStep;
  const int64_t unit_blocks = ceil_div(k > 0 ? k : 1, kUnits), wanted = ceil_div(kBlocks, unit_blocks);
  int64_t splits = wanted < kMostSplits ? wanted : kMostSplits;
  if (splits > D / kLeast) splits = D / kLeast;
  return int(splits < 1 ? 1 : splits);
}

}  // namespace
}  // namespace mimic

extern "C" size_t pymimic_bottleneck_workspace(int64_t B, int64_t D, int64_t k) {
  return mimic::split_bytes(mimic::splits_of(D, k), B * k);
}

extern "C" cudaError_t pymimic_bottleneck(const float* x, const float* V, int64_t B, int64_t D, int64_t k, float* z,
                                          void* workspace, cudaStream_t stream) {
  using namespace mimic;
  constexpr int64_t kMostRows = INT32_MAX - 1024;
  if (B < 0 || B > kMostRows || D < 0 || D > kMostRows || k < 0 || k > PYMIMIC_MAX_K) return cudaErrorInvalidValue;
  if (B == 0 || k == 0) return cudaSuccess;
  const int splits = splits_of(D, k);
  const Bottleneck f = {x, V, splits > 1 ? static_cast<float*>(workspace) : z, B, D, int(k), splits};
  const dim3 grid(unsigned(ceil_div(B, kRows)), unsigned(ceil_div(k, kUnits)), unsigned(splits));
  const cudaError_t error = launch(bottleneck, grid, kThreads, kSharedBytes, stream, f);
  if (error != cudaSuccess || splits == 1) return error;
  return launch_sum_splits(f.z, splits, B, k, nullptr, z, stream);
}
