// What stands around a product that cuBLAS makes: out = mask(f(product + bias)), and backward its gate together with
// the gradient of the bias. A warp takes tiles of the mask, 16 rows by 32 units, one below the other.
#include "activate.cuh"
#include "launch.cuh"
#include "mask_quads.cuh"
#include "splits.cuh"

namespace mimic {
namespace {

constexpr int kThreads = 256, kUnits = kThreads / 32 * kMaskUnits;  // of a block
constexpr int kQuads = kMaskQuads;                                  // of a lane in a tile

// Four quads of a lane: its elements of the tile at (row, unit); zeros where the matrix ends.
__device__ __forceinline__ void load_tile(float (&to)[kQuads][kQuad], int lane, const float* from, int64_t row,
                                          int64_t rows, int64_t unit, int64_t units) {
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t r = row + quad_row(lane, q), u = unit + quad_unit(lane, q);
    const Quad values = load_quad(from + r * units + u, r < rows ? units - u : 0);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) to[q][i] = values.at[i];
  }
}

__device__ __forceinline__ void store_tile(float* to, const float (&values)[kQuads][kQuad], int lane, int64_t row,
                                           int64_t rows, int64_t unit, int64_t units) {
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t r = row + quad_row(lane, q), u = unit + quad_unit(lane, q);
    const Quad quad = {{values[q][0], values[q][1], values[q][2], values[q][3]}};
    store_quad(to + r * units + u, quad, r < rows ? units - u : 0);
  }
}

__device__ __forceinline__ void add_bias(float (&a)[kQuads][kQuad], int lane, const float* bias, int64_t unit,
                                         int64_t units) {
  if (!bias) return;
#pragma unroll
  for (int q = 0; q < kQuads; ++q) {
    const int64_t u = unit + quad_unit(lane, q);
    const Quad b = load_quad(bias + u, units - u);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) a[q][i] += b.at[i];
  }
}

// f' in place of the layer's result; for gelu in place of its argument. `unscale` takes dropout's scale off.
__device__ __forceinline__ void to_slopes(pymimic_activation activation, float (&a)[kQuads][kQuad], float unscale) {
  if (activation == PYMIMIC_GELU) return each_in_turn(a, [](float x) { return activate_gelu(x).slope; });
#pragma unroll
  for (int j = 0; j < kQuads * kQuad; ++j) {
    float& x = a[j / kQuad][j % kQuad];
    const float h = x * unscale;
    x = activation == PYMIMIC_RELU       ? (h > 0 ? 1.0f : 0.0f)
        : activation == PYMIMIC_IDENTITY ? 1.0f
        : activation == PYMIMIC_TANH     ? 1 - h * h
                                         : h * (1 - h);
  }
}

__global__ void __launch_bounds__(kThreads, 3)
    linear_dropout(const float* product, const float* bias, float* out, int64_t rows, int64_t units,
                   pymimic_activation activation, pymimic_mask mask) {
  const MaskState m = mask_state(mask);
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t(blockIdx.x) * kUnits + threadIdx.x / 32 * kMaskUnits;
  for (int64_t row = int64_t(blockIdx.y) * kMaskRows; row < rows; row += int64_t(gridDim.y) * kMaskRows) {
    const MaskedQuads masked(m, lane, row, unit);
    float a[kQuads][kQuad];
    load_tile(a, lane, product, row, rows, unit, units);
    add_bias(a, lane, bias, unit, units);
    activate(activation, a);
#pragma unroll
    for (int j = 0; j < kQuads * kQuad; ++j) a[j / kQuad][j % kQuad] *= masked.factor(j / kQuad, j % kQuad);
    store_tile(out, a, lane, row, rows, unit, units);
  }
}

struct Backward {
  const float *dout, *out, *bias;
  float* da;
  float* sums;  // (gridDim.y, units), or null
  int64_t rows, units;
  pymimic_activation activation;
  pymimic_mask mask;
};

__global__ void __launch_bounds__(kThreads, 2) linear_dropout_backward(const Backward f) {
  const MaskState m = mask_state(f.mask);
  const float unscale = float(m.keep) / 256;
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t(blockIdx.x) * kUnits + threadIdx.x / 32 * kMaskUnits;
  const int64_t tiles = (f.rows + kMaskRows - 1) / kMaskRows, end = tiles * (blockIdx.y + 1) / gridDim.y;
  float sums[kQuads / 2][kQuad] = {};
  for (int64_t tile = tiles * blockIdx.y / gridDim.y; tile < end; ++tile) {
    const int64_t row = tile * kMaskRows;
    const MaskedQuads masked(m, lane, row, unit);
    float da[kQuads][kQuad], slope[kQuads][kQuad];
    load_tile(da, lane, f.dout, row, f.rows, unit, f.units);
    load_tile(slope, lane, f.out, row, f.rows, unit, f.units);
    if (f.activation == PYMIMIC_GELU) add_bias(slope, lane, f.bias, unit, f.units);
    to_slopes(f.activation, slope, unscale);
#pragma unroll
    for (int q = 0; q < kQuads; ++q)
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        da[q][i] *= slope[q][i] * masked.factor(q, i);
        sums[q / 2][i] += da[q][i];
      }
    store_tile(f.da, da, lane, row, f.rows, unit, f.units);
  }
  if (!f.sums) return;

  // Lanes 4 apart have the same units.
#pragma unroll
  for (int j = 0; j < kQuads / 2; ++j) {
    Quad sum;
#pragma unroll
    for (int i = 0; i < kQuad; ++i) {
      sum.at[i] = sums[j][i];
#pragma unroll
      for (int apart = 4; apart < 32; apart *= 2) sum.at[i] += shuffle_xor(sum.at[i], apart);
    }
    const int64_t u = unit + quad_unit(lane, 2 * j);
    if (lane < 4) store_quad(f.sums + blockIdx.y * f.units + u, sum, f.units - u);
  }
}

int splits_of(int64_t rows, int64_t units) {
  return choose_splits(0, units > 0 ? ceil_div(units, kUnits) : 1, ceil_div(rows, kMaskRows));
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_linear_dropout(const float* product, const float* bias, float* out, int64_t rows,
                                              int64_t units, pymimic_activation activation, pymimic_mask mask,
                                              cudaStream_t stream) {
  using namespace mimic;
  if (rows < 0 || units < 0 || !is_valid(mask)) return cudaErrorInvalidValue;
  if (rows == 0 || units == 0) return cudaSuccess;
  const dim3 grid(unsigned(ceil_div(units, kUnits)), blocks_for(rows, kMaskRows, 65535));
  return launch(linear_dropout, grid, kThreads, 0, stream, product, bias, out, rows, units, activation, mask);
}

extern "C" size_t pymimic_linear_dropout_backward_workspace(int64_t rows, int64_t units) {
  const int splits = mimic::splits_of(rows, units);
  return splits > 1 ? size_t(splits) * size_t(units) * sizeof(float) : 0;
}

extern "C" cudaError_t pymimic_linear_dropout_backward(const float* dout, const float* out, const float* bias,
                                                       float* da, float* dbias, int64_t rows, int64_t units,
                                                       pymimic_activation activation, pymimic_mask mask,
                                                       void* workspace, cudaStream_t stream) {
  using namespace mimic;
  if (rows < 0 || units < 0 || !is_valid(mask)) return cudaErrorInvalidValue;
  if (units == 0 || (rows == 0 && !dbias)) return cudaSuccess;
  const int splits = splits_of(rows, units);
  const bool apart = dbias && splits > 1;
  const Backward f = {dout, out,   bias,       da,  apart ? static_cast<float*>(workspace) : dbias,
                      rows, units, activation, mask};
  const dim3 grid(unsigned(ceil_div(units, kUnits)), unsigned(splits));
  const cudaError_t error = launch(linear_dropout_backward, grid, kThreads, 0, stream, f);
  if (error != cudaSuccess || !apart) return error;
  return launch_sum_splits(f.sums, splits, 1, units, nullptr, dbias, stream);
}
