// z = ((x - mean) scale) V^T for up to 8 rows: a warp makes one unit of z for all of them, so that each row of V is
// read once. A row's bits do not depend on the other rows.
#include "serving/weights.cuh"
#include "tile/launch.cuh"
#include "tile/vec4.cuh"

namespace mimic {
namespace {

constexpr int kThreads = 128, kWarps = kThreads / 32;

struct Bottleneck {
  const unsigned char* V;
  int64_t ld_bytes, D;
  const float *V_scale, *x, *mean, *scale;  // mean: null where x is not standardised
  float* z;                                 // (B, k)
  int B, k, chunks;                         // chunks: of a row of V
};

template <class Served>
__global__ void __launch_bounds__(kThreads) serve_bottleneck(const Bottleneck f) {
  const int lane = threadIdx.x % 32, unit = int(blockIdx.x) * kWarps + int(threadIdx.x) / 32;
  if (unit >= f.k) return;
  const auto* V = reinterpret_cast<const uint4*>(f.V + unit * f.ld_bytes);
  float sums[kFewRows] = {};
  for (int chunk = lane; chunk < f.chunks; chunk += 32) {
    float weights[Served::kOfChunk];
    Served::to_floats(weights, V[chunk]);
#pragma unroll
    for (int i = 0; i < Served::kOfChunk; i += kQuad) {
      const int64_t column = int64_t(chunk) * Served::kOfChunk + i, count = f.D - column;
      Quad mean = {}, scale = {{1, 1, 1, 1}};
      if (f.mean) mean = load_quad(f.mean + column, count), scale = load_quad(f.scale + column, count);
#pragma unroll
      for (int r = 0; r < kFewRows; ++r) {
        if (r >= f.B) continue;
        const Quad x = load_quad(f.x + r * f.D + column, count);
#pragma unroll
        for (int j = 0; j < kQuad; ++j) sums[r] += (x.at[j] - mean.at[j]) * scale.at[j] * weights[i + j];
      }
    }
  }
  const float scale = Served::kScaled ? f.V_scale[unit] : 1.0f;
#pragma unroll
  for (int r = 0; r < kFewRows; ++r) {
    if (r >= f.B) continue;  // all lanes alike
#pragma unroll
    for (int other = 16; other > 0; other /= 2) sums[r] += shuffle_xor(sums[r], other);
    if (lane == r) f.z[int64_t(r) * f.k + unit] = sums[r] * scale;
  }
}

}  // namespace

cudaError_t run_bottleneck(const pymimic_serving& p, const float* x, int rows, float* z, cudaStream_t stream) {
  if (p.k == 0) return cudaSuccess;
  const int size = served_bytes(p.weights);
  const Bottleneck f = {
      static_cast<const unsigned char*>(p.V), p.ldv * size, p.D, p.V_scale, x, p.mean, p.scale, z, rows, int(p.k),
      int(ceil_div(p.D * size, kChunkBytes))};
  const auto kernel = p.weights == PYMIMIC_SERVE_FP32   ? serve_bottleneck<ServedFp32>
                      : p.weights == PYMIMIC_SERVE_BF16 ? serve_bottleneck<ServedBf16>
                                                        : serve_bottleneck<ServedInt8>;
  return launch(kernel, dim3(unsigned(ceil_div(p.k, kWarps))), kThreads, 0, stream, f);
}

}  // namespace mimic
