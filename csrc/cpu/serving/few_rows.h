// The forward pass of a few rows: serving. It is bound by reading U and W once, so hidden units run along vector lanes
// and threads own slabs. Each sum runs in the same order as in shallow.h, so a row has the same bits in any batch.
#pragma once

#include "cpu/slab.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kBytesWorthAThread = 256 << 10;  // of U and W
constexpr int64_t kBytesAhead = 64 << 10;          // that the prefetch is ahead
constexpr int64_t kHiddenAtOnce = 4 << 10;         // values of h, which stay in a cache

template <class T>
using Units = Vector<T, 8>;

// out[r][g] = x M^T for R rows of x and 8 G rows of M, over `steps` columns. M is turned 8 x 8 at a time in registers.
// Each of the R G sums is a chain of its own: several at once hide the latency of a multiply-add. A processor does not
// prefetch eight streams by itself, so this prefetches M: in the order of memory where its rows are short and without
// gaps, else along each row.
template <class T, int R, int G>
MIMIC_INLINE void turned_products(const T* x, ptrdiff_t x_row, const T* M, ptrdiff_t M_row, int64_t steps, T* out,
                                  ptrdiff_t out_row) {
  Units<T> sum[R][G] = {};
  constexpr int kLine = 64 / int(sizeof(T));
  const int64_t whole = steps / 8 * 8, size = 8 * G * M_row, least_ahead = kBytesAhead / int64_t(sizeof(T));
  const bool along = M_row != steps || steps >= 8 * kLine * G;
  const T* next = along ? M + 4 * kLine : M + (size > least_ahead ? size : least_ahead);
  const T* const end = next + size;
  for (int64_t p = 0; p < whole; p += 8) {
    for (int i = 0; !along && i <= 8 * 8 * G / kLine && next < end; ++i, next += kLine) __builtin_prefetch(next, 0, 2);
    MIMIC_UNROLL for (int g = 0; g < G; ++g) {
      for (int i = 0; along && p % kLine == 0 && i < 8; ++i) __builtin_prefetch(next + (8 * g + i) * M_row + p, 0, 2);
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
void rows_products(const T* x, ptrdiff_t x_row, const T* M, ptrdiff_t M_row, int64_t steps, int64_t units, T* out,
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
void few_rows_products(int64_t rows, const T* x, ptrdiff_t x_row, const T* M, ptrdiff_t M_row, int64_t steps,
                       int64_t units, T* out, ptrdiff_t out_row) {
  int64_t r = 0;
  const auto go = [&](auto kernel, int64_t R) {
    for (; r + R <= rows; r += R) kernel(x + r * x_row, x_row, M, M_row, steps, units, out + r * out_row, out_row);
  };
  go(rows_products<T, 4, 2>, 4);
  go(rows_products<T, 2, 4>, 2);
  go(rows_products<T, 1, 4>, 1);
}

// One slab, or two of the same size: two streams are read faster than one.
template <class T, class E = T>
struct Streams {
  const T* h[2];
  const E* W[2];
  T* y[2];
};

// y[c] = sum over units of h[u] W[u][c] for V vectors of columns from `begin` on, the last of which ends at `end`, and
// N slabs.
template <class T, int N, int V>
void few_rows_columns(int64_t units, const Streams<T>& s, int64_t C, int64_t begin, int64_t end) {
  const int64_t last = end - kLanes<T> - begin, ahead = ceil_div(kBytesAhead, C * int64_t(sizeof(T))) * C;
  Vector<T> sum[N][V] = {};
  for (int64_t u = 0; u < units; ++u) {
    MIMIC_UNROLL for (int n = 0; n < N; ++n) {
      const T* const W = s.W[n] + u * C + begin;
      const T h = s.h[n][u];
      MIMIC_UNROLL for (int j = 0; j < V; ++j) __builtin_prefetch(W + ahead + j * kLanes<T>, 0, 2);
      MIMIC_UNROLL for (int j = 0; j < V - 1; ++j) sum[n][j] += h * load<Vector<T>>(W + j * kLanes<T>);
      sum[n][V - 1] += h * load<Vector<T>>(W + last);
    }
  }
  for (int n = 0; n < N; ++n) {
    T* const y = s.y[n] + begin;
    MIMIC_UNROLL for (int j = 0; j < V - 1; ++j) store(y + j * kLanes<T>, sum[n][j]);
    store(y + last, sum[n][V - 1]);
  }
}

// y (C) = h W for one row and N slabs.
template <class T, int N>
void few_rows_outputs_of(int64_t units, const Streams<T>& s, int64_t C) {
  using Columns = void (*)(int64_t, const Streams<T>&, int64_t, int64_t, int64_t);
  static constexpr Columns columns[] = {
      few_rows_columns<T, N, 1>,  few_rows_columns<T, N, 2>,  few_rows_columns<T, N, 3>,
      few_rows_columns<T, N, 4>,  few_rows_columns<T, N, 5>,  few_rows_columns<T, N, 6>,
#if defined(__AVX512F__) || defined(__aarch64__)
      few_rows_columns<T, N, 7>,  few_rows_columns<T, N, 8>,  few_rows_columns<T, N, 9>,
      few_rows_columns<T, N, 10>, few_rows_columns<T, N, 11>, few_rows_columns<T, N, 12>,
#endif
  };
  constexpr int kMost = sizeof(columns) / sizeof(columns[0]);
  if (C >= kLanes<T>) {
    int64_t c = 0;
    for (; c + kMost * kLanes<T> < C; c += kMost * kLanes<T>) columns[kMost - 1](units, s, C, c, c + kMost * kLanes<T>);
    const int64_t begin = least(c, C - kLanes<T>);  // less than a vector: the last whole one again
    columns[ceil_div(C - begin, int64_t(kLanes<T>)) - 1](units, s, C, begin, C);
    return;
  }
  for (int n = 0; n < N; ++n) {
    const T *const h = s.h[n], *const W = s.W[n];
    Vector<T> sum = {};  // vectors reach into the next rows, as long as there are any
    int64_t u = 0;
    for (; u < units && (units - u) * C >= kLanes<T>; ++u) sum += h[u] * load<Vector<T>>(W + u * C);
    for (; u < units; ++u) {
      Vector<T> row = {};
      for (int64_t j = 0; j < C; ++j) row[j] = W[u * C + j];
      sum += h[u] * row;
    }
    for (int64_t j = 0; j < C; ++j) s.y[n][j] = sum[j];
  }
}

template <class T>
void few_rows_outputs(int64_t units, bool pair, const Streams<T>& s, int64_t C) {
  pair ? few_rows_outputs_of<T, 2>(units, s, C) : few_rows_outputs_of<T, 1>(units, s, C);
}

// How slabs are shared out. A thread makes h of several slabs before it uses any of it, as each change between reading
// U and reading W costs bandwidth. Where slabs are few it takes fewer, so that every thread has some.
struct SlabGroups {
  int members;
  int64_t slabs, whole, values, at_once = 1;  // `values` of h in a slab; `whole` leaves out a last, smaller slab

  SlabGroups(int64_t H, int64_t slab, int threads, int64_t values_of_slab)
      : slabs(ceil_div(H, slab)), whole(H / slab), values(values_of_slab) {
    members = int(least(slabs, int64_t(threads)));
    if (slabs == 0 || values == 0) return;
    const int64_t fit = least(kHiddenAtOnce / values, slabs / (8 * members));
    if (fit > 1) at_once = fit;
  }
  int64_t hidden() const { return at_once * values; }

  // make(i, h) for all slabs and use(i, pair, h) for one, or two that follow each other; a member has `stride` of
  // `room`.
  template <class T, class Make, class Use>
  void run(T* room, int64_t stride, Make make, Use use) const {
    share(members, ceil_div(slabs, at_once), [&](int64_t group, int rank) {
      T* const hidden = room + rank * stride;
      const int64_t first = group * at_once, last = least(first + at_once, slabs);
      for (int64_t i = first; i < last; ++i) make(i, hidden + (i - first) * values);
      for (int64_t i = first; i < last;) {
        const bool pair = i + 2 <= least(last, whole);
        use(i, pair, hidden + (i - first) * values);
        i += pair ? 2 : 1;
      }
    });
  }
};

// The bias is used after the products. It is a few bytes, which a processor does not prefetch by itself.
template <class T>
MIMIC_INLINE void prefetch_bias(const T* b, int64_t units) {
  for (int64_t j = 0; j < units; j += 64 / int(sizeof(T))) __builtin_prefetch(b + j);
}

template <class T>
void few_rows_forward(const ShallowForward<T>& f) {
  const ShallowShape& s = f.shape;
  const int64_t weights = s.H * (s.k + s.C) * int64_t(sizeof(T));
  const SlabGroups groups(s.H, s.slab, threads_for(weights, kBytesWorthAThread), s.B * s.slab);
  T *parts, *hidden;
  const auto layout = [&](Arena arena) {
    parts = arena.take<T>(groups.slabs * s.B * s.C);
    hidden = arena.take<T>(groups.members * groups.hidden());
    return arena.used();
  };
  layout(Arena(scratch(layout(Arena()))));
  const auto make = [&](int64_t i, T* h) {
    const Slab slab = slab_at(s, i * s.slab);
    prefetch_bias(f.b + slab.begin, slab.units);
    few_rows_products(s.B, f.z, s.k, f.U + slab.begin * s.k, s.k, s.k, slab.units, h, slab.units);
    for (int64_t r = 0; r < s.B; ++r) {
      for (int64_t j = 0; j < slab.units; ++j) h[r * slab.units + j] += f.b[slab.begin + j];
    }
    activate(s.activation, s.B * slab.units, h, h, static_cast<T*>(nullptr));
  };
  const auto use = [&](int64_t i, bool pair, const T* h) {
    const Slab slab = slab_at(s, i * s.slab);
    const T* const W = f.W + slab.begin * s.C;
    for (int64_t r = 0; r < s.B; ++r, h += slab.units) {
      T* const y = parts + (i * s.B + r) * s.C;
      few_rows_outputs<T>(slab.units, pair, {{h, h + groups.values}, {W, W + s.slab * s.C}, {y, y + s.B * s.C}}, s.C);
    }
  };
  groups.run(hidden, groups.hidden(), make, use);
  shallow_run().few_rows = true, shallow_run().slabs = groups.slabs;
  for (int64_t i = 0; i < s.B * s.C; ++i) f.y[i] = f.c[i % s.C];
  for (int64_t slab = 0; slab < groups.slabs; ++slab) {
    for (int64_t i = 0; i < s.B * s.C; ++i) f.y[i] += parts[slab * s.B * s.C + i];
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
