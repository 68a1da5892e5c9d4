// Sums over H in parts: each part of the grid writes its own array, a second kernel adds them in fixed order.
#pragma once

#include "launch.cuh"
#include "launch.h"

namespace mimic {

// How many parts: enough blocks for several waves on any device, and no part shorter than 8 slabs. Shapes alone decide.
inline int choose_splits(int asked, int64_t blocks, int64_t slabs) {
  constexpr int64_t kBlocks = 512, kSlabs = 8, kMost = 128;
  int64_t splits = asked > 0 ? asked : (kBlocks + blocks - 1) / blocks;
  if (asked <= 0 && splits > slabs / kSlabs) splits = slabs / kSlabs;
  if (splits > slabs) splits = slabs;
  return int(splits < 1 ? 1 : splits > kMost ? kMost : splits);
}

namespace {

// out[i] = bias[i % columns] + the sum of parts[0][i], parts[1][i], ...; no bias where it is null.
__global__ void __launch_bounds__(256)
    sum_splits(const float* parts, int splits, int64_t size, const float* bias, int64_t columns, float* out) {
  for (int64_t i = int64_t(blockIdx.x) * blockDim.x + threadIdx.x; i < size; i += int64_t(gridDim.x) * blockDim.x) {
    float sum = 0;
    for (int part = 0; part < splits; ++part) sum += parts[part * size + i];
    out[i] = bias ? sum + bias[i % columns] : sum;
  }
}

cudaError_t launch_sum_splits(const float* parts, int splits, int64_t rows, int64_t columns, const float* bias,
                              float* out, cudaStream_t stream) {
  constexpr int64_t kMostBlocks = 2048;
  const int64_t blocks = (rows * columns + 255) / 256;
  return launch(sum_splits, dim3(unsigned(blocks < kMostBlocks ? blocks : kMostBlocks)), 256, 0, stream, parts, splits,
                rows * columns, bias, columns, out);
}

}  // namespace
}  // namespace mimic
