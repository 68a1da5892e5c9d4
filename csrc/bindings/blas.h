// Matrix products by the cuBLAS that this process has loaded, which is CuPy's. CuPy's own functions refuse to work
// while a graph is captured. The emulator has its own version, in tests/cuda/binding.
#pragma once

#include <cuda_runtime_api.h>
#include <stdint.h>

#include <string>

namespace mimic {

// c (m, n) = or += a b, or of their transposes, in column-major order.
struct Product {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  const void* a;
  int64_t lda;
  const void* b;
  int64_t ldb;
  float* c;
  int64_t ldc;
  bool halves;  // a and b are bfloat16, else float32
  bool add;
  int compute;  // cublasComputeType_t
};

// What went wrong, or nothing. `handle` is cuBLAS's.
std::string multiply(const Product& p, uintptr_t handle, cudaStream_t stream);

}  // namespace mimic
