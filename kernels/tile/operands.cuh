// Operands of the matrix kernels, and what their launchers demand of arguments.
#pragma once

#include "launch.h"
#include "tile/swizzled.cuh"

namespace mimic {

inline int element_bytes(pymimic_precision precision) {
  return precision == PYMIMIC_BF16 || precision == PYMIMIC_FP16 ? 2 : 4;
}

inline int64_t pieces_of(int64_t columns, pymimic_precision precision) {
  return (columns * element_bytes(precision) + kPieceRowBytes - 1) / kPieceRowBytes;
}

inline int groups_of(int64_t columns) { return int((columns + 15) / 16); }  // of 16-bit elements

inline Operand operand(const void* data, int64_t ld, int64_t rows, int64_t columns, pymimic_precision precision) {
  const int64_t size = element_bytes(precision), groups = (columns * size + kGroupBytes - 1) / kGroupBytes;
  return {static_cast<const unsigned char*>(data), ld * size, rows, int(groups * kGroupBytes)};
}

inline bool is_operand(const void* data, int64_t ld, int64_t columns) {
  return reinterpret_cast<uintptr_t>(data) % 16 == 0 && ld % 16 == 0 && ld >= columns;
}

// Whether sizes are within the limits of launch.h and operands are as it describes them.
inline bool is_valid(const pymimic_shallow& p) {
  constexpr int64_t kMostRows = INT32_MAX - 1024;
  return p.B >= 0 && p.B <= kMostRows && p.H >= 0 && p.H <= kMostRows && p.k >= 0 && p.k <= PYMIMIC_MAX_K && p.C >= 0 &&
         p.C <= PYMIMIC_MAX_C && is_operand(p.z, p.ldz, p.k) && is_operand(p.U, p.ldu, p.k) &&
         is_operand(p.W, p.ldw, p.C);
}

}  // namespace mimic
