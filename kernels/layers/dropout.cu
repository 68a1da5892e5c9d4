// out = x times the dropout mask: one pass over memory. A warp takes a tile of 16 rows by 32 units.
#include "hidden/mask_vec4.cuh"
#include "tile/launch.cuh"

namespace mimic {
namespace {

__global__ void __launch_bounds__(kTileThreads, 4)
    dropout(const float* x, float* out, int64_t outer, int64_t rows, int64_t units, pymimic_mask mask) {
  const MaskState m = mask_state(mask);
  const int lane = threadIdx.x % 32;
  const int64_t unit = int64_t(blockIdx.x) * kTileUnits + threadIdx.x / 32 * kMaskUnits;
  for (int64_t row = int64_t(blockIdx.y) * kMaskRows; row < rows; row += int64_t(gridDim.y) * kMaskRows) {
    const MaskedQuads masked(m, lane, row, unit);
    for (int64_t block = 0; block < outer; ++block) {
#pragma unroll
      for (int q = 0; q < kMaskQuads; ++q) {
        const int64_t r = row + quad_row(lane, q), u = unit + quad_unit(lane, q), at = (block * rows + r) * units + u;
        if (r >= rows || u >= units) continue;
        Quad values = load_quad(x + at, units - u);
#pragma unroll
        for (int i = 0; i < kQuad; ++i) values.at[i] *= masked.factor(q, i);
        store_quad(out + at, values, units - u);
      }
    }
  }
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_dropout_f32(const float* x, float* out, int64_t outer, int64_t rows, int64_t units,
                                           pymimic_mask mask, cudaStream_t stream) {
  using namespace mimic;
  if (outer < 0 || rows < 0 || units < 0 || !is_valid(mask)) return cudaErrorInvalidValue;
  if (outer == 0 || rows == 0 || units == 0) return cudaSuccess;
  return launch(dropout, tile_grid(rows, units), kTileThreads, 0, stream, x, out, outer, rows, units, mask);
}
