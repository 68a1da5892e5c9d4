#include "bindings/blas.h"

#include <dlfcn.h>

namespace mimic {
namespace {

// Of cublas_api.h, which is not needed to build pymimic.
enum { kNoTranspose = 0, kTranspose = 1, kFloat32 = 0, kBfloat16 = 14, kDefaultAlgorithm = -1 };

struct Library {
  int (*set_stream)(void* handle, cudaStream_t stream) = nullptr;
  int (*gemm)(void* handle, int transpose_a, int transpose_b, int m, int n, int k, const void* alpha, const void* a,
              int a_type, int lda, const void* b, int b_type, int ldb, const void* beta, void* c, int c_type, int ldc,
              int compute, int algorithm) = nullptr;
  const char* (*status_string)(int status) = nullptr;

  Library() {
    for (const char* name : {"libcublas.so.13", "libcublas.so.12"}) {
      void* const library = dlopen(name, RTLD_NOW | RTLD_NOLOAD);
      if (!library) continue;
      set_stream = reinterpret_cast<decltype(set_stream)>(dlsym(library, "cublasSetStream_v2"));
      gemm = reinterpret_cast<decltype(gemm)>(dlsym(library, "cublasGemmEx"));
      status_string = reinterpret_cast<decltype(status_string)>(dlsym(library, "cublasGetStatusString"));
      if (is_complete()) return;
    }
  }
  bool is_complete() const { return set_stream && gemm && status_string; }
};

}  // namespace

std::string multiply(const Product& p, uintptr_t handle, cudaStream_t stream) {
  static const Library cublas;
  if (!cublas.is_complete()) return "no cuBLAS of CUDA 12 or 13 is loaded, as CuPy's would be";
  void* const cublas_handle = reinterpret_cast<void*>(handle);
  const float one = 1, beta = p.add ? 1 : 0;
  const int type = p.halves ? kBfloat16 : kFloat32;
  int status = cublas.set_stream(cublas_handle, stream);
  if (status == 0) {
    status =
        cublas.gemm(cublas_handle, p.transpose_a ? kTranspose : kNoTranspose, p.transpose_b ? kTranspose : kNoTranspose,
                    int(p.m), int(p.n), int(p.k), &one, p.a, type, int(p.lda), p.b, type, int(p.ldb), &beta, p.c,
                    kFloat32, int(p.ldc), p.compute, kDefaultAlgorithm);
  }
  return status == 0 ? "" : cublas.status_string(status);
}

}  // namespace mimic
