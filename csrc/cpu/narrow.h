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

// a[r][8] = z U^T for R rows and 8 units, of which `units` are there. U is turned 8 x 8 at a time in registers.
template <class T, int R>
MIMIC_INLINE void eight_units(const T* z, const T* U, int64_t k, int64_t units, Units<T>* a) {
  Units<T> sum[R] = {};
  const int64_t whole = units == 8 ? k / 8 * 8 : 0;
  for (int64_t p = 0; p < whole; p += 8) {
    Units<T> turned[8];
    turn8(U + p, k, turned);
    MIMIC_UNROLL for (int q = 0; q < 8; ++q) {
      MIMIC_UNROLL for (int r = 0; r < R; ++r) sum[r] += z[r * k + p + q] * turned[q];
    }
  }
  for (int64_t p = whole; p < k; ++p) {
    Units<T> column = {};
    for (int64_t i = 0; i < units; ++i) column[i] = U[i * k + p];
    MIMIC_UNROLL for (int r = 0; r < R; ++r) sum[r] += z[r * k + p] * column;
  }
  for (int r = 0; r < R; ++r) a[r] = sum[r];
}

// h (rows, units) of one slab.
template <class T>
void narrow_hidden(const ShallowForward<T>& f, const Slab& slab, T* h) {
  const ShallowShape& s = f.shape;
  for (int64_t u = 0; u < slab.units; u += 8) {
    const T *U = f.U + (slab.begin + u) * s.k, *b = f.b + slab.begin + u;
    const int64_t units = least(slab.units - u, int64_t(8));
    Units<T> a[kNarrowRows];
    int64_t r = 0;
    for (; r + 4 <= s.B; r += 4) eight_units<T, 4>(f.z + r * s.k, U, s.k, units, a + r);
    for (; r < s.B; ++r) eight_units<T, 1>(f.z + r * s.k, U, s.k, units, a + r);
    for (r = 0; r < s.B; ++r) {
      for (int64_t i = 0; i < units; ++i) h[r * slab.units + u + i] = a[r][i] + b[i];
    }
  }
  activate(s.activation, s.B * slab.units, h, h, static_cast<T*>(nullptr));
}

// y[0 : V lanes] = sum over units of h[u] W[u][0 : V lanes].
template <class T, int V>
MIMIC_INLINE void narrow_columns(int64_t units, const T* h, const T* W, int64_t C, T* y) {
  Vector<T> sum[V] = {};
  for (int64_t u = 0; u < units; ++u) {
    MIMIC_UNROLL for (int j = 0; j < V; ++j) sum[j] += h[u] * load<Vector<T>>(W + u * C + j * kLanes<T>);
  }
  MIMIC_UNROLL for (int j = 0; j < V; ++j) store(y + j * kLanes<T>, sum[j]);
}

// y (C) = h W for one row and one slab.
template <class T>
void narrow_outputs(int64_t units, const T* h, const T* W, int64_t C, T* y) {
  constexpr int64_t kWide = 8 * kLanes<T>;
  int64_t c = 0;
  for (; c + kWide <= C; c += kWide) narrow_columns<T, 8>(units, h, W + c, C, y + c);
  for (; c + 2 * kLanes<T> <= C; c += 2 * kLanes<T>) narrow_columns<T, 2>(units, h, W + c, C, y + c);
  for (; c + kLanes<T> <= C; c += kLanes<T>) narrow_columns<T, 1>(units, h, W + c, C, y + c);
  if (c == C) return;
  if (C >= kLanes<T>) {  // the last whole vector again, ending at C
    narrow_columns<T, 1>(units, h, W + C - kLanes<T>, C, y + C - kLanes<T>);
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
  const int members = int(least(int64_t(num_threads()), least(slabs, weights / kBytesWorthAThread + 1)));
  T *parts, *hidden;
  const auto layout = [&](Arena arena) {
    parts = arena.take<T>(slabs * s.B * s.C);
    hidden = arena.take<T>(members * s.B * s.slab);
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));
  parallel(members, [&](Team& team) {
    T* const h = hidden + team.rank * s.B * s.slab;
    for (int64_t i = team.begin(slabs); i < team.end(slabs); ++i) {
      const Slab slab = slab_at(s, i * s.slab);
      narrow_hidden(f, slab, h);
      for (int64_t r = 0; r < s.B; ++r) {
        narrow_outputs(slab.units, h + r * slab.units, f.W + slab.begin * s.C, s.C, parts + (i * s.B + r) * s.C);
      }
    }
  });
  for (int64_t i = 0; i < s.B * s.C; ++i) f.y[i] = f.c[i % s.C];
  for (int64_t slab = 0; slab < slabs; ++slab) {
    for (int64_t i = 0; i < s.B * s.C; ++i) f.y[i] += parts[slab * s.B * s.C + i];
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
