// Small kernels that test the emulator itself: what is right here, a mutant or an argument makes wrong.
#include "launch.h"
#include "tile/launch.cuh"
#include "tile/tile.cuh"

namespace mimic {
namespace {

// out = in backwards, by way of shared memory.
__global__ void reverse(const float* in, float* out) {
  store_shared(threadIdx.x * 4, in[threadIdx.x]);
  sync_block();
  out[threadIdx.x] = load_shared<float>((blockDim.x - 1 - threadIdx.x) * 4);
}

// out = in by two groups of asynchronous copies, the second one of which takes the place of the first.
__global__ void copy_twice(const float* first, const float* second, float* sum) {
  const uint32_t at = threadIdx.x * 4;
  copy_async<4>(at, first + threadIdx.x, true);
  copy_async_commit();
  copy_async<4>(at + blockDim.x * 4, second + threadIdx.x, true);
  copy_async_commit();
  copy_async_wait<1>();
  const float one = load_shared<float>(at);
  copy_async_wait<0>();
  sum[threadIdx.x] = one + load_shared<float>(at + blockDim.x * 4);
}

__global__ void store_at(uint32_t at) { store_shared(at, 1.0f); }

__global__ void diverge(unsigned lanes) {
  if (threadIdx.x % 32 < lanes)
    sync_warp();
  else
    sync_warp();
}

__global__ void leave_early(unsigned threads) {
  if (threadIdx.x < threads) return;
  sync_block();
}

// sum[0] = the sum of 32 numbers.
__global__ void sum_warp(const float* in, float* sum) {
  float x = in[threadIdx.x];
  for (int mask = 16; mask > 0; mask /= 2) x += shuffle_xor(x, mask);
  sum[threadIdx.x] = x;
}

// d (16 x 8) = a (16 x 16) b (16 x 8), with rows of shared memory `row_bytes` apart.
template <class Element>
__global__ void product(const float* a, const float* b, float* d, uint32_t row_bytes) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const uint32_t b_at = 16 * row_bytes;
  for (int i = lane; i < 16 * 8; i += 32)
    store_shared(i / 8 * row_bytes + i % 8 * 4, pack2<Element>(a[2 * i], a[2 * i + 1]));
  for (int i = lane; i < 16 * 4; i += 32)
    store_shared(b_at + i / 4 * row_bytes + i % 4 * 4, pack2<Element>(b[2 * i], b[2 * i + 1]));
  sync_warp();
  uint32_t a_fragment[4], b_fragment[4];
  load_matrices(a_fragment, lane % 16 * row_bytes + lane / 16 * 16);
  load_matrices_transposed(b_fragment, b_at + lane % 16 * row_bytes);
  float sum[4] = {};
  mma<Element>(sum, a_fragment, b_fragment[0], b_fragment[1]);
  for (int i = 0; i < 4; ++i) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = sum[i];
}

// d (16 x 8) = a (16 x 8) b (8 x 8).
__global__ void product_tf32(const float* a, const float* b, float* d) {
  const int lane = threadIdx.x, g = lane / 4, t = lane % 4;
  const uint32_t fragment[4] = {to_tf32(a[g * 8 + t]), to_tf32(a[(g + 8) * 8 + t]), to_tf32(a[g * 8 + t + 4]),
                                to_tf32(a[(g + 8) * 8 + t + 4])};
  float sum[4] = {};
  mma_tf32(sum, fragment, to_tf32(b[t * 8 + g]), to_tf32(b[(t + 4) * 8 + g]));
  for (int i = 0; i < 4; ++i) d[(g + 8 * (i / 2)) * 8 + 2 * t + i % 2] = sum[i];
}

}  // namespace
}  // namespace mimic

using namespace mimic;

extern "C" {
cudaError_t probe_reverse(const float* in, float* out, unsigned threads) {
  return launch(reverse, dim3(1), threads, threads * 4, nullptr, in, out);
}
cudaError_t probe_copy_twice(const float* first, const float* second, float* sum, unsigned threads) {
  return launch(copy_twice, dim3(1), threads, threads * 8, nullptr, first, second, sum);
}
cudaError_t probe_store(uint32_t at, uint32_t bytes) { return launch(store_at, dim3(1), 32, bytes, nullptr, at); }
cudaError_t probe_diverge(unsigned lanes) { return launch(diverge, dim3(1), 64, 0, nullptr, lanes); }
cudaError_t probe_leave_early(unsigned threads) { return launch(leave_early, dim3(1), 96, 0, nullptr, threads); }
cudaError_t probe_sum_warp(const float* in, float* sum) { return launch(sum_warp, dim3(1), 32, 0, nullptr, in, sum); }
cudaError_t probe_product(pymimic_precision precision, const float* a, const float* b, float* d, uint32_t row_bytes) {
  if (precision == PYMIMIC_TF32) return launch(product_tf32, dim3(1), 32, 0, nullptr, a, b, d);
  return launch(precision == PYMIMIC_BF16 ? product<Bf16> : product<Fp16>, dim3(1), 32, 32 * row_bytes, nullptr, a, b,
                d, row_bytes);
}
}
