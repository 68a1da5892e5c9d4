// The forward pass of a few rows: serving. It is bound by reading U and W once, so hidden units run along vector lanes
// and threads own slabs. Each sum runs in the same order as in shallow.h, so a row has the same bits in any batch.
#pragma once

#include "shallow.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int kNarrowRows = 8;                     // more are faster in panels
constexpr int64_t kBytesWorthAThread = 256 << 10;  // of U and W

template <class T>
using Units = Vector<T, 8>;

// out[r][g] = x M^T for R rows of x and 8 G rows of M, over `steps` columns. M is turned 8 x 8 at a time in registers.
// Each of the R G sums is a chain of its own: several at once hide the latency of a multiply-add. What comes next in M
// is called for in time, as eight streams are more than the machine foresees.
template <class T, int R, int G>
MIMIC_INLINE void turned_products(const T* x, ptrdiff_t x_row, const T* M, ptrdiff_t M_row, int64_t steps, T* out,
                                  ptrdiff_t out_row) {
  Units<T> sum[R][G] = {};
  constexpr int kLine = 64 / int(sizeof(T));
  const T* const ahead = steps >= 8 * kLine * G ? M + 4 * kLine : M + 16 * G * M_row;
  const int64_t whole = steps / 8 * 8;
  for (int64_t p = 0; p < whole; p += 8) {
    MIMIC_UNROLL for (int g = 0; g < G; ++g) {
      for (int i = 0; p % kLine == 0 && i < 8; ++i) __builtin_prefetch(ahead + (8 * g + i) * M_row + p, 0, 2);
      Units<T> turned[8];
      turn8(M + 8 * g * M_row + p, M_row, turned);
      MIMIC_UNROLL for (int q = 0; q < 8; ++q) {
        MIMIC_UNROLL for (int r = 0; r < R; ++r) sum[r][g] += x[r * x_row + p + q] * turned[q];
      }
    }
  }
  for (int64_t p = whole; p < steps; ++p) {
    for (int g = 0; g < G; ++g) {
      Units<T> column;
      for (int i = 0; i < 8; ++i) column[i] = M[(8 * g + i) * M_row + p];
      for (int r = 0; r < R; ++r) sum[r][g] += x[r * x_row + p] * column;
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int g = 0; g < G; ++g) store(out + r * out_row + 8 * g, sum[r][g]);
  }
}

// out (R, units) = x M^T for R rows of x and `units` rows of M, over `steps` columns.
template <class T, int R, int G>
void few_rows(const T* x, ptrdiff_t x_row, const T* M, ptrdiff_t M_row, int64_t steps, int64_t units, T* out,
              ptrdiff_t out_row) {
  int64_t u = 0;
  for (; u + 8 * G <= units; u += 8 * G) {
    turned_products<T, R, G>(x, x_row, M + u * M_row, M_row, steps, out + u, out_row);
  }
  for (; u + 8 <= units; u += 8) {
    turned_products<T, R, 1>(x, x_row, M + u * M_row, M_row, steps, out + u, out_row);
  }
  // The last few: still as vectors, so that products are fused with sums as they are everywhere else.
  Units<T> sum[R] = {};
  for (int64_t p = 0; p < steps; ++p) {
    Units<T> column = {};
    for (int64_t i = 0; i < units - u; ++i) column[i] = M[(u + i) * M_row + p];
    for (int r = 0; r < R; ++r) sum[r] += x[r * x_row + p] * column;
  }
  for (int64_t i = 0; i < units - u; ++i) {
    for (int r = 0; r < R; ++r) out[r * out_row + u + i] = sum[r][i];
  }
}

// The same for any number of rows.
template <class T>
void narrow_products(int64_t rows, const T* x, ptrdiff_t x_row, const T* M, ptrdiff_t M_row, int64_t steps,
                     int64_t units, T* out, ptrdiff_t out_row) {
  int64_t r = 0;
  const auto go = [&](auto kernel, int64_t R) {
    for (; r + R <= rows; r += R) kernel(x + r * x_row, x_row, M, M_row, steps, units, out + r * out_row, out_row);
  };
  go(few_rows<T, 4, 2>, 4);
  go(few_rows<T, 2, 4>, 2);
  go(few_rows<T, 1, 4>, 1);
}

// y[c] = sum over units of h[u] W[u][c] for V vectors of columns, the last of which ends at `end`.
template <class T, int V>
void narrow_columns(int64_t units, const T* h, const T* W, int64_t C, int64_t end, T* y) {
  const int64_t last = end - kLanes<T>;
  Vector<T> sum[V] = {};
  for (int64_t u = 0; u < units; ++u, W += C) {
    MIMIC_UNROLL for (int j = 0; j < V; ++j) __builtin_prefetch(W + 48 * C + j * kLanes<T>, 0, 2);
    MIMIC_UNROLL for (int j = 0; j < V - 1; ++j) sum[j] += h[u] * load<Vector<T>>(W + j * kLanes<T>);
    sum[V - 1] += h[u] * load<Vector<T>>(W + last);
  }
  MIMIC_UNROLL for (int j = 0; j < V - 1; ++j) store(y + j * kLanes<T>, sum[j]);
  store(y + last, sum[V - 1]);
}

// y (C) = h W for one row and one slab.
template <class T>
void narrow_outputs(int64_t units, const T* h, const T* W, int64_t C, T* y) {
  using Columns = void (*)(int64_t, const T*, const T*, int64_t, int64_t, T*);
  static constexpr Columns columns[] = {narrow_columns<T, 1>, narrow_columns<T, 2>, narrow_columns<T, 3>,
                                        narrow_columns<T, 4>, narrow_columns<T, 5>, narrow_columns<T, 6>,
                                        narrow_columns<T, 7>, narrow_columns<T, 8>};
  constexpr int64_t kMost = 8 * kLanes<T>;
  if (C >= kLanes<T>) {
    int64_t c = 0;
    for (; c + kMost < C; c += kMost) columns[7](units, h, W + c, C, kMost, y + c);
    if (C - c >= kLanes<T>) {
      columns[ceil_div(C - c, int64_t(kLanes<T>)) - 1](units, h, W + c, C, C - c, y + c);
    } else {  // the last whole vector again, ending at C
      columns[0](units, h, W + C - kLanes<T>, C, kLanes<T>, y + C - kLanes<T>);
    }
    return;
  }
  Vector<T> sum = {};  // a vector that runs on into the next rows, as long as they are there
  int64_t u = 0;
  for (; u < units && (units - u) * C >= kLanes<T>; ++u) sum += h[u] * load<Vector<T>>(W + u * C);
  for (; u < units; ++u) {
    Vector<T> row = {};
    for (int64_t j = 0; j < C; ++j) row[j] = W[u * C + j];
    sum += h[u] * row;
  }
  for (int64_t j = 0; j < C; ++j) y[j] = sum[j];
}

template <class T>
void shallow_forward_narrow(const ShallowForward<T>& f) {
  const ShallowShape& s = f.shape;
  const int64_t slabs = ceil_div(s.H, s.slab), weights = s.H * (s.k + s.C) * int64_t(sizeof(T));
  const int members = int(least(slabs, int64_t(threads_for(weights, kBytesWorthAThread))));
  T *parts, *hidden;
  const auto layout = [&](Arena arena) {
    parts = arena.take<T>(slabs * s.B * s.C);
    hidden = arena.take<T>(members * s.B * s.slab);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));
  share(members, slabs, [&](int64_t i, int rank) {
    T* const h = hidden + rank * s.B * s.slab;
    const Slab slab = slab_at(s, i * s.slab);
    narrow_products(s.B, f.z, s.k, f.U + slab.begin * s.k, s.k, s.k, slab.units, h, slab.units);
    for (int64_t r = 0; r < s.B; ++r) {
      for (int64_t j = 0; j < slab.units; ++j) h[r * slab.units + j] += f.b[slab.begin + j];
    }
    activate(s.activation, s.B * slab.units, h, h, static_cast<T*>(nullptr));
    for (int64_t r = 0; r < s.B; ++r) {
      narrow_outputs(slab.units, h + r * slab.units, f.W + slab.begin * s.C, s.C, parts + (i * s.B + r) * s.C);
    }
  });
  for (int64_t i = 0; i < s.B * s.C; ++i) f.y[i] = f.c[i % s.C];
  for (int64_t slab = 0; slab < slabs; ++slab) {
    for (int64_t i = 0; i < s.B * s.C; ++i) f.y[i] += parts[slab * s.B * s.C + i];
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
