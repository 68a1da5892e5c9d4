// The CUDA kernels as plain C functions: pointers, sizes, a stream. Knows no Python and no framework.
// Each returns the cudaError_t of its launch; none synchronises or allocates.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

extern "C" {

// The mask's numbers; seed and offset may live in device memory, so that a CUDA graph can be replayed with others.
struct pymimic_mask {
  uint32_t keep;         // a unit is kept when its random byte < keep; 256 keeps all
  int64_t seed, offset;  // used where the pointers are null
  const int64_t* device_seed;
  const int64_t* device_offset;
  int64_t row, unit;  // where this block lies in the whole: multiples of 16 and 32
};

// out = x times the mask, x and out (outer, rows, units) of float32; out may be x. Its own backward pass.
cudaError_t pymimic_dropout_f32(const float* x, float* out, int64_t outer, int64_t rows, int64_t units,
                                struct pymimic_mask mask, cudaStream_t stream);
}
