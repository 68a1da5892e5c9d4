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

// a[r][g] = z U^T for R rows and G runs of 8 units. U is turned 8 x 8 at a time in registers. Each of the R G sums is a
// chain of its own: several at once hide the latency of a multiply-add. What comes next in U is called for in time,
// as eight streams are more than the machine foresees.
template <class T, int R, int G>
MIMIC_INLINE void units_times_rows(const T* z, const T* U, int64_t k, Units<T> a[R][G]) {
  Units<T> sum[R][G] = {};
  const int64_t whole = k / 8 * 8;
  const char* next = reinterpret_cast<const char*>(U + 16 * G * k);
  for (int64_t p = 0; p < whole; p += 8) {
    MIMIC_UNROLL for (int g = 0; g < G; ++g) {
      MIMIC_UNROLL for (int line = 0; line < int(sizeof(T)); ++line, next += 64) __builtin_prefetch(next, 0, 2);
      Units<T> turned[8];
      turn8(U + 8 * g * k + p, k, turned);
      MIMIC_UNROLL for (int q = 0; q < 8; ++q) {
        MIMIC_UNROLL for (int r = 0; r < R; ++r) sum[r][g] += z[r * k + p + q] * turned[q];
      }
    }
  }
  for (int64_t p = whole; p < k; ++p) {
    for (int g = 0; g < G; ++g) {
      Units<T> column;
      for (int i = 0; i < 8; ++i) column[i] = U[(8 * g + i) * k + p];
      for (int r = 0; r < R; ++r) sum[r][g] += z[r * k + p] * column;
    }
  }
  for (int r = 0; r < R; ++r) {
    for (int g = 0; g < G; ++g) a[r][g] = sum[r][g];
  }
}

// h (rows, units) of one slab, before the activation.
template <class T, int R, int G>
MIMIC_INLINE int64_t runs_of_units(const ShallowForward<T>& f, const Slab& slab, int64_t u, int64_t r, T* h) {
  for (; u + 8 * G <= slab.units; u += 8 * G) {
    Units<T> a[R][G];
    units_times_rows<T, R, G>(f.z + r * f.shape.k, f.U + (slab.begin + u) * f.shape.k, f.shape.k, a);
    for (int i = 0; i < R; ++i) {
      for (int g = 0; g < G; ++g) {
        store(h + (r + i) * slab.units + u + 8 * g, a[i][g] + load<Units<T>>(f.b + slab.begin + u + 8 * g));
      }
    }
  }
  return u;
}

template <class T, int R, int G>
void narrow_hidden(const ShallowForward<T>& f, const Slab& slab, int64_t r, T* h) {
  const int64_t k = f.shape.k;
  int64_t u = runs_of_units<T, R, G>(f, slab, 0, r, h);
  u = runs_of_units<T, R, 1>(f, slab, u, r, h);
  // The last few: still as vectors, so that products are fused with sums as they are everywhere else.
  Units<T> sum[R] = {};
  for (int64_t p = 0; p < k; ++p) {
    Units<T> column = {};
    for (int64_t i = 0; i < slab.units - u; ++i) column[i] = f.U[(slab.begin + u + i) * k + p];
    for (int i = 0; i < R; ++i) sum[i] += f.z[(r + i) * k + p] * column;
  }
  for (int64_t i = 0; i < slab.units - u; ++i) {
    for (int j = 0; j < R; ++j) h[(r + j) * slab.units + u + i] = sum[j][i] + f.b[slab.begin + u + i];
  }
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
    int64_t r = 0;
    for (; r + 4 <= s.B; r += 4) narrow_hidden<T, 4, 2>(f, slab, r, h);
    for (; r + 2 <= s.B; r += 2) narrow_hidden<T, 2, 4>(f, slab, r, h);
    if (r < s.B) narrow_hidden<T, 1, 4>(f, slab, r, h);
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
