// Around a product by cuBLAS: out = mask(f(product + bias)); and backward the gradient at the product, with the
// gradient of the bias. A warp takes tiles of the mask, 16 rows by 32 units, one below the other.
#include "hidden/activate.cuh"
#include "hidden/masked_tiles.cuh"
#include "tile/launch.cuh"
#include "tile/split_sums.cuh"

namespace mimic {
namespace {

// Replaces the layer's result, or for gelu its argument, by f'. `unscale` undoes the scale of dropout.
__device__ __forceinline__ void to_slopes(pymimic_activation activation, TileQuads& a, float unscale) {
  if (activation == PYMIMIC_GELU) return each_in_turn(a, [](float x) { return activate_gelu(x).slope; });
#pragma unroll
  for (int j = 0; j < kMaskQuads * kQuad; ++j) {
    float& x = a[j / kQuad][j % kQuad];
    const float h = x * unscale;
    x = activation == PYMIMIC_RELU       ? (h > 0 ? 1.0f : 0.0f)
        : activation == PYMIMIC_IDENTITY ? 1.0f
        : activation == PYMIMIC_TANH     ? 1 - h * h
                                         : h * (1 - h);
  }
}

__global__ void __launch_bounds__(kTileThreads, 3)
    linear_dropout(const float* product, const float* bias, float* out, int64_t rows, int64_t units,
                   pymimic_activation activation, pymimic_mask mask) {
  const MaskState m = mask_state(mask);
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t(blockIdx.x) * kTileUnits + threadIdx.x / 32 * kMaskUnits;
  for (int64_t row = int64_t(blockIdx.y) * kMaskRows; row < rows; row += int64_t(gridDim.y) * kMaskRows) {
    const MaskedQuads masked(m, lane, row, unit);
    TileQuads a;
    load_tile(a, lane, floats(product, rows, units), row, unit);
    add_bias(a, lane, bias, unit, units);
    activate(activation, a);
    apply_mask(a, masked);
    store_tile(floats(out, rows, units), a, lane, row, unit);
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

__global__ void __launch_bounds__(kTileThreads, 2) linear_dropout_backward(const Backward f) {
  const MaskState m = mask_state(f.mask);
  const float unscale = float(m.threshold) / 256;
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t(blockIdx.x) * kTileUnits + threadIdx.x / 32 * kMaskUnits;
  const RowTiles tiles = row_tiles(f.rows, blockIdx.y, gridDim.y);
  UnitSums sums;
  for (int64_t tile = tiles.first; tile < tiles.end; ++tile) {
    const int64_t row = tile * kMaskRows;
    const MaskedQuads masked(m, lane, row, unit);
    TileQuads da, slope;
    load_tile(da, lane, floats(f.dout, f.rows, f.units), row, unit);
    load_tile(slope, lane, floats(f.out, f.rows, f.units), row, unit);
    if (f.activation == PYMIMIC_GELU) add_bias(slope, lane, f.bias, unit, f.units);
    to_slopes(f.activation, slope, unscale);
    apply_mask(slope, masked);
#pragma unroll
    for (int j = 0; j < kMaskQuads * kQuad; ++j) da[j / kQuad][j % kQuad] *= slope[j / kQuad][j % kQuad];
    sums.add(da);
    store_tile(floats(f.da, f.rows, f.units), da, lane, row, unit);
  }
  if (f.sums) sums.store(f.sums + blockIdx.y * f.units, lane, unit, f.units);
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_linear_dropout(const float* product, const float* bias, float* out, int64_t rows,
                                              int64_t units, pymimic_activation activation, pymimic_mask mask,
                                              cudaStream_t stream) {
  using namespace mimic;
  if (rows < 0 || units < 0 || !is_valid(mask)) return cudaErrorInvalidValue;
  if (rows == 0 || units == 0) return cudaSuccess;
  return launch(linear_dropout, tile_grid(rows, units), kTileThreads, 0, stream, product, bias, out, rows, units,
                activation, mask);
}

extern "C" size_t pymimic_linear_dropout_backward_workspace(int64_t rows, int64_t units) {
  return mimic::split_bytes(mimic::row_splits(rows, units), units);
}

extern "C" cudaError_t pymimic_linear_dropout_backward(const float* dout, const float* out, const float* bias,
                                                       float* da, float* dbias, int64_t rows, int64_t units,
                                                       pymimic_activation activation, pymimic_mask mask,
                                                       void* workspace, cudaStream_t stream) {
  using namespace mimic;
  if (rows < 0 || units < 0 || !is_valid(mask)) return cudaErrorInvalidValue;
  if (units == 0 || (rows == 0 && !dbias)) return cudaSuccess;
  const int splits = row_splits(rows, units);
  const bool split = dbias && splits > 1;
  const Backward f = {dout, out,   bias,       da,  split ? static_cast<float*>(workspace) : dbias,
                      rows, units, activation, mask};
  const dim3 grid(unsigned(ceil_div(units, kTileUnits)), unsigned(splits));
  const cudaError_t error = launch(linear_dropout_backward, grid, kTileThreads, 0, stream, f);
  if (error != cudaSuccess || !split) return error;
  return launch_sum_splits(f.sums, splits, 1, units, nullptr, dbias, stream);
}
