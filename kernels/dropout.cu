// out = x times the dropout mask: one pass over memory. A warp takes a tile of 16 rows by 32 units.
#include "mask.cuh"

namespace mimic {
namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;

__global__ void __launch_bounds__(kThreads)
    dropout(const float* x, float* out, int64_t outer, int64_t rows, int64_t units, pymimic_mask mask) {
  const MaskState m = mask_state(mask);
  const int lane = threadIdx.x % 32;
  const int64_t tiles_across = (units + kMaskUnits - 1) / kMaskUnits,
                tiles = (rows + kMaskRows - 1) / kMaskRows * tiles_across;
  const int64_t warps = int64_t(gridDim.x) * kWarps;
  for (int64_t tile = int64_t(blockIdx.x) * kWarps + threadIdx.x / 32; tile < tiles; tile += warps) {
    const int64_t row = tile / tiles_across * kMaskRows, unit = tile % tiles_across * kMaskUnits;
    const Philox4 bytes = m.keep < 256 ? mask_lane_bytes(m, lane, row, unit) : Philox4{};
    for (int64_t block = 0; block < outer; ++block) {
#pragma unroll
      for (int j = 0; j < 16; ++j) {
        const int64_t r = row + lane / 4 + 8 * (j / 2 % 2), u = unit + 8 * (j / 4) + 2 * (lane % 4) + j % 2;
        if (r >= rows || u >= units) continue;
        const int64_t at = (block * rows + r) * units + u;
        out[at] = m.keep < 256 ? x[at] * mask_factor(m, bytes, j) : x[at];
      }
    }
  }
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_dropout_f32(const float* x, float* out, int64_t outer, int64_t rows, int64_t units,
                                           pymimic_mask mask, cudaStream_t stream) {
  if (outer == 0 || rows == 0 || units == 0) return cudaSuccess;
  const int64_t tiles =
      ((rows + mimic::kMaskRows - 1) / mimic::kMaskRows) * ((units + mimic::kMaskUnits - 1) / mimic::kMaskUnits);
  const int64_t blocks = (tiles + mimic::kWarps - 1) / mimic::kWarps;
  mimic::dropout<<<unsigned(blocks < 65535 ? blocks : 65535), mimic::kThreads, 0, stream>>>(x, out, outer, rows, units,
                                                                                            mask);
  return cudaGetLastError();
}
