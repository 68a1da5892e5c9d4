// csrc/bindings/blas.h for the emulator: the definition, in double.
#include "bindings/blas.h"

#include <string.h>

#include <vector>

namespace mimic {
namespace {

// Column-major (rows, columns).
std::vector<float> widened(const void* data, bool halves, int64_t rows, int64_t columns, int64_t ld) {
  std::vector<float> wide(size_t(rows * columns));
  for (int64_t j = 0; j < columns; ++j)
    for (int64_t i = 0; i < rows; ++i) {
      float& to = wide[size_t(i + j * rows)];
      const uint32_t word = halves ? uint32_t(static_cast<const uint16_t*>(data)[i + j * ld]) << 16 : 0;
      if (halves)
        memcpy(&to, &word, sizeof(to));
      else
        to = static_cast<const float*>(data)[i + j * ld];
    }
  return wide;
}

}  // namespace

std::string multiply(const Product& p, uintptr_t handle, cudaStream_t) {
  constexpr int kCompute32F = 68;
  if (handle != 1) return "not the stand-in's handle";
  if (p.halves && p.compute != kCompute32F) return "CUBLAS_STATUS_NOT_SUPPORTED";
  if (p.lda < (p.transpose_a ? p.k : p.m) || p.ldb < (p.transpose_b ? p.n : p.k) || p.ldc < p.m)
    return "CUBLAS_STATUS_INVALID_VALUE";
  const std::vector<float> a = widened(p.a, p.halves, p.transpose_a ? p.k : p.m, p.transpose_a ? p.m : p.k, p.lda);
  const std::vector<float> b = widened(p.b, p.halves, p.transpose_b ? p.n : p.k, p.transpose_b ? p.k : p.n, p.ldb);
  std::vector<double> sums(size_t(p.m));
  for (int64_t j = 0; j < p.n; ++j) {
    for (int64_t i = 0; i < p.m; ++i) sums[size_t(i)] = p.add ? p.c[i + j * p.ldc] : 0;
    for (int64_t l = 0; l < p.k; ++l) {
      const double factor = b[size_t(p.transpose_b ? j + l * p.n : l + j * p.k)];
      for (int64_t i = 0; i < p.m; ++i)
        sums[size_t(i)] += factor * a[size_t(p.transpose_a ? l + i * p.k : i + l * p.m)];
    }
    for (int64_t i = 0; i < p.m; ++i) p.c[i + j * p.ldc] = float(sums[size_t(i)]);
  }
  return "";
}

}  // namespace mimic
