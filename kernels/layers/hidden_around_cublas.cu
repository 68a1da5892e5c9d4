// h and da of some hidden units, between products by cuBLAS: bias, activation, mask and rounding in a single pass over
// memory. A warp takes tiles of the mask, 16 rows by 32 units, one below the other.
#include "hidden/activate.cuh"
#include "hidden/masked_tiles.cuh"
#include "tile/launch.cuh"
#include "tile/split_sums.cuh"

namespace mimic {
namespace {

struct Hidden {
  TiledMatrix a, saved, h;  // without data where absent
  const float* b;
  pymimic_activation activation;
  pymimic_mask mask;
};

__global__ void __launch_bounds__(kTileThreads, 3) hidden_forward(const Hidden f) {
  const MaskState m = mask_state(f.mask);
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t(blockIdx.x) * kTileUnits + threadIdx.x / 32 * kMaskUnits;
  for (int64_t row = int64_t(blockIdx.y) * kMaskRows; row < f.a.rows; row += int64_t(gridDim.y) * kMaskRows) {
    const MaskedQuads masked(m, lane, row, unit);
    TileQuads x;
    load_tile(x, lane, f.a, row, unit);
    add_bias(x, lane, f.b, unit, f.a.units);
    if (f.saved.data && f.activation != PYMIMIC_RELU) store_tile(f.saved, x, lane, row, unit);
    activate(f.activation, x);
    apply_mask(x, masked);
    if (f.saved.data && f.activation == PYMIMIC_RELU) store_tile(f.saved, x, lane, row, unit);
    if (f.h.data) store_tile(f.h, x, lane, row, unit);
  }
}

struct HiddenBackward {
  Hidden hidden;
  TiledMatrix dh, da;
  float* sums;  // (gridDim.y, units), or null
};

__global__ void __launch_bounds__(kTileThreads, 2) hidden_backward(const HiddenBackward g) {
  const Hidden& f = g.hidden;
  const MaskState m = mask_state(f.mask);
  const bool saved_is_h = f.saved.data && f.activation == PYMIMIC_RELU;
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t(blockIdx.x) * kTileUnits + threadIdx.x / 32 * kMaskUnits;
  const RowTiles tiles = row_tiles(g.dh.rows, blockIdx.y, gridDim.y);
  UnitSums sums;
  for (int64_t tile = tiles.first; tile < tiles.end; ++tile) {
    const int64_t row = tile * kMaskRows;
    TileQuads x[1], dx[1];
    load_tile(dx[0], lane, g.dh, row, unit);
    load_tile(x[0], lane, f.saved.data ? f.saved : f.a, row, unit);
    if (saved_is_h) {  // h > 0 where the unit is active and the mask keeps it
#pragma unroll
      for (int j = 0; j < kMaskQuads * kQuad; ++j)
        dx[0][j / kQuad][j % kQuad] *= x[0][j / kQuad][j % kQuad] > 0 ? m.scale : 0.0f;
    } else {
      const MaskedQuads masked(m, lane, row, unit);
      if (!f.saved.data) add_bias(x[0], lane, f.b, unit, g.dh.units);
      activate_and_differentiate(f.activation, x, dx);
      apply_mask(x[0], masked);
      apply_mask(dx[0], masked);
    }
    sums.add(dx[0]);
    store_tile(g.da, dx[0], lane, row, unit);
    if (f.h.data) store_tile(f.h, x[0], lane, row, unit);
  }
  if (g.sums) sums.store(g.sums + blockIdx.y * g.dh.units, lane, unit, g.dh.units);
}

bool is_tiled(const void* data, int64_t ld) { return reinterpret_cast<uintptr_t>(data) % 16 == 0 && ld % 16 == 0; }

bool is_usable(const pymimic_hidden& p, const void* h) {
  return p.B >= 0 && p.units >= 0 && p.ld >= p.units && is_valid(p.mask) && p.precision != PYMIMIC_FP16 &&
         p.saved_precision != PYMIMIC_FP16 && is_tiled(p.a, p.ld) && is_tiled(p.saved, p.ld) && is_tiled(h, p.ld);
}

TiledMatrix matrix(const pymimic_hidden& p, const void* data, pymimic_precision precision) {
  return {const_cast<void*>(data), precision, p.B, p.units, p.ld};
}

Hidden hidden(const pymimic_hidden& p, void* h) {
  const TiledMatrix a = matrix(p, p.a, PYMIMIC_FP32), saved = matrix(p, p.saved, p.saved_precision);
  return {a, saved, matrix(p, h, p.precision), p.b, p.activation, p.mask};
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_hidden_forward(const pymimic_hidden* p, void* h, cudaStream_t stream) {
  using namespace mimic;
  if (!is_usable(*p, h)) return cudaErrorInvalidValue;
  if (p->B == 0 || p->units == 0) return cudaSuccess;
  return launch(hidden_forward, tile_grid(p->B, p->units), kTileThreads, 0, stream, hidden(*p, h));
}

extern "C" size_t pymimic_hidden_backward_workspace(int64_t B, int64_t units) {
  return mimic::split_bytes(mimic::row_splits(B, units), units);
}

extern "C" cudaError_t pymimic_hidden_backward(const pymimic_hidden* p, const float* dh, void* h, void* da, float* db,
                                               void* workspace, cudaStream_t stream) {
  using namespace mimic;
  if (!is_usable(*p, h) || !is_tiled(dh, p->ld) || !is_tiled(da, p->ld)) return cudaErrorInvalidValue;
  if (p->units == 0 || (p->B == 0 && !db)) return cudaSuccess;
  const int splits = row_splits(p->B, p->units);
  const bool split = db && splits > 1;
  float* const sums = split ? static_cast<float*>(workspace) : db;
  const HiddenBackward g = {hidden(*p, h), matrix(*p, dh, PYMIMIC_FP32), matrix(*p, da, p->precision), sums};
  const dim3 grid(unsigned(ceil_div(p->units, kTileUnits)), unsigned(splits));
  const cudaError_t error = launch(hidden_backward, grid, kTileThreads, 0, stream, g);
  if (error != cudaSuccess || !split) return error;
  return launch_sum_splits(sums, splits, 1, p->units, nullptr, db, stream);
}
