// Panels: the form in which the microkernel reads B. A panel holds 32 columns, row after row, padded with zeros.
#pragma once

#include "cpu/vector/simd.h"

namespace mimic {
namespace MIMIC_ISA {

// panel[s][j] = source[s * ld + j] for `rows` rows and `columns` (up to 32) columns.
template <class T>
void pack_columns(const T* source, ptrdiff_t ld, ptrdiff_t rows, int columns, T* panel) {
  for (ptrdiff_t s = 0; s < rows; ++s) {
    T* to = panel + s * kPanel;
    if (columns == kPanel) {
      __builtin_memcpy(to, source + s * ld, kPanel * sizeof(T));
    } else {
      for (int j = 0; j < columns; ++j) to[j] = source[s * ld + j];
      for (int j = columns; j < kPanel; ++j) to[j] = 0;
    }
  }
}

// Four values from each of two places.
template <class T>
MIMIC_INLINE Vector<T, 8> two_halves(const T* low, const T* high) {
  using Half = Vector<T, 4>;
  const Half a = load<Half>(low), b = load<Half>(high);
  return __builtin_shufflevector(a, b, 0, 1, 2, 3, 4, 5, 6, 7);
}

// The columns of an 8 x 8 block as vectors. Rows i and i + 4 are loaded into one vector, so that no shuffle moves
// values between the halves of a vector.
template <class T>
MIMIC_INLINE void turn8(const T* source, ptrdiff_t source_row, Vector<T, 8>* columns) {
  MIMIC_UNROLL for (int half = 0; half < 8; half += 4) {
    Vector<T, 8> a[4], b[4];
    MIMIC_UNROLL for (int i = 0; i < 4; ++i) {
      a[i] = two_halves(source + i * source_row + half, source + (i + 4) * source_row + half);
    }
    MIMIC_UNROLL for (int i = 0; i < 4; i += 2) {
      b[i] = shuffle<0, 8, 1, 9, 4, 12, 5, 13>(a[i], a[i + 1]);
      b[i + 1] = shuffle<2, 10, 3, 11, 6, 14, 7, 15>(a[i], a[i + 1]);
    }
    MIMIC_UNROLL for (int i = 0; i < 2; ++i) {
      columns[half + 2 * i] = shuffle<0, 1, 8, 9, 4, 5, 12, 13>(b[i], b[i + 2]);
      columns[half + 2 * i + 1] = shuffle<2, 3, 10, 11, 6, 7, 14, 15>(b[i], b[i + 2]);
    }
  }
}

// to[j * to_row + i] = source[i * source_row + j] for i < rows, j < columns.
template <class T>
void transpose(const T* source, ptrdiff_t source_row, ptrdiff_t rows, ptrdiff_t columns, T* to, ptrdiff_t to_row) {
  const ptrdiff_t whole_rows = rows / 8 * 8, whole_columns = columns / 8 * 8;
  for (ptrdiff_t j = 0; j < whole_columns; j += 8) {
    for (ptrdiff_t i = 0; i < whole_rows; i += 8) {
      Vector<T, 8> columns[8];
      turn8(source + i * source_row + j, source_row, columns);
      MIMIC_UNROLL for (int q = 0; q < 8; ++q) store(to + (j + q) * to_row + i, columns[q]);
    }
  }
  for (ptrdiff_t j = 0; j < columns; ++j) {
    for (ptrdiff_t i = j < whole_columns ? whole_rows : 0; i < rows; ++i)
      to[j * to_row + i] = source[i * source_row + j];
  }
}

// panel[s][j] = source[j * ld + s]: up to 32 rows of the source become the panel's columns.
template <class T>
void pack_transposed(const T* source, ptrdiff_t ld, int columns, ptrdiff_t steps, T* panel) {
  if (columns < kPanel) __builtin_memset(panel, 0, size_t(steps) * kPanel * sizeof(T));
  transpose(source, ld, columns, steps, panel, ptrdiff_t(kPanel));
}

}  // namespace MIMIC_ISA
}  // namespace mimic
