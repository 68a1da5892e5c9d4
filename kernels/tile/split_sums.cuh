// Sums in parts: each part of the grid writes an array of its own, and a second kernel adds them in a fixed order.
#pragma once

#include "launch.h"
#include "tile/launch.cuh"
#include "tile/splits.cuh"
#include "tile/tile.cuh"

namespace mimic {

constexpr int kSumThreads = 256;

namespace {

// out[i] = bias[i % columns] + the sum of parts[0][i], parts[1][i], ...; no bias where it is null. Where there are many
// parts, each of `slices` warps or groups of warps sums every slices-th part, and then one of them sums the slices.
__global__ void __launch_bounds__(kSumThreads) sum_splits(const float* parts, int splits, int slices, int64_t size,
                                                          const float* bias, int64_t columns, float* out) {
  const int across = kSumThreads / slices, member = int(threadIdx.x) % across, slice = int(threadIdx.x) / across;
  const int64_t i = int64_t(blockIdx.x) * across + member;
  float sum = 0;
#pragma unroll 8
  for (int part = slice; part < splits && i < size; part += slices) sum += parts[part * size + i];
  if (slices > 1) {
    store_shared(threadIdx.x * uint32_t(sizeof(float)), sum);
    sync_block();
    for (int s = 1; s < slices && slice == 0; ++s)
      sum += load_shared<float>(uint32_t((s * across + member) * sizeof(float)));
  }
  if (slice == 0 && i < size) out[i] = bias ? sum + bias[i % columns] : sum;
}

cudaError_t launch_sum_splits(const float* parts, int splits, int64_t rows, int64_t columns, const float* bias,
                              float* out, cudaStream_t stream) {
  const int slices = splits < 16 ? 1 : kSumThreads / 32;
  const int64_t across = kSumThreads / slices, blocks = (rows * columns + across - 1) / across;
  return launch(sum_splits, dim3(unsigned(blocks)), kSumThreads, kSumThreads * sizeof(float), stream, parts, splits,
                slices, rows * columns, bias, columns, out);
}

}  // namespace
}  // namespace mimic
