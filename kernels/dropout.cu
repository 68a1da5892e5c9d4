// out = x times the dropout mask: one pass over memory. A warp takes a tile of 16 rows by 32 units.
#include "launch.cuh"
#include "mask.cuh"

namespace mimic {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__global__ void __launch_bounds__(kThreads, 4)
    dropout(const float* x, float* out, int64_t outer, int64_t rows, int64_t units, pymimic_mask mask) {
  const MaskState m = mask_state(mask);
  const int lane = threadIdx.x % 32;
  const int64_t unit = (int64_t(blockIdx.x) * kWarps + threadIdx.x / 32) * kMaskUnits;
  for (int64_t row = int64_t(blockIdx.y) * kMaskRows; row < rows; row += int64_t(gridDim.y) * kMaskRows) {
    const Philox4 bytes = mask_lane_bytes(m, lane, row, unit);
    for (int64_t block = 0; block < outer; ++block) {
#pragma unroll
      for (int half = 0; half < 2; ++half) {
        const int64_t r = row + lane / 4 + 8 * half;
        if (r >= rows) continue;
        const float* from = x + (block * rows + r) * units;
        float* to = out + (block * rows + r) * units;
#pragma unroll
        for (int j = 0; j < 8; ++j) {
          const int64_t u = unit + 8 * (j / 2) + 2 * (lane % 4) + j % 2;
          if (u < units)
            to[u] = m.keep < 256 ? from[u] * mask_factor(m, bytes, 4 * (j / 2) + 2 * half + j % 2) : from[u];
        }
      }
    }
  }
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_dropout_f32(const float* x, float* out, int64_t outer, int64_t rows, int64_t units,
                                           pymimic_mask mask, cudaStream_t stream) {
  if (outer == 0 || rows == 0 || units == 0) return cudaSuccess;
  const int64_t across = (units + mimic::kMaskUnits * mimic::kWarps - 1) / (mimic::kMaskUnits * mimic::kWarps);
  const int64_t down = (rows + mimic::kMaskRows - 1) / mimic::kMaskRows;
  const dim3 grid(unsigned(across), unsigned(down < 65535 ? down : 65535));
  return mimic::launch(mimic::dropout, grid, mimic::kThreads, 0, stream, x, out, outer, rows, units, mask);
}
