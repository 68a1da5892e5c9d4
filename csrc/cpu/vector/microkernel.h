// The one matrix kernel: C (M x up to 32) from A, read in place one element at a time, and a packed panel of B.
// Every element is summed in the order of s, so its bits do not depend on where tiles begin and end.
// Elements of A and B are of C's type, or pairs of bfloat16, whose two products are summed in float32.
#pragma once

#include <type_traits>

#include "cpu/vector/pairs.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kProductsWorthAThread = 1 << 20;  // multiply-adds

enum class Finish : int {
  store,  // C = sum
  add,    // C += sum
  // Of products with A's rows, which make h and da:
  bias,      // C = sum + bias[i]
  relu,      // C = max(sum + bias[i], 0)
  gate,      // C = C's gate > 0 ? scale * sum : 0
  multiply,  // C *= sum
};

// C[i, j] (finish)= sum over s of A[i, s] B[s, j]. s runs through `blocks` runs of `steps`; B follows it without gaps.
template <class T, class E = T>
struct Product {
  const E* a;
  ptrdiff_t a_row, a_step, a_block;
  ptrdiff_t blocks, steps;
  const E* b;
  T* c;
  ptrdiff_t c_row;
  Finish finish = Finish::store;
  bool far = false;        // C is likely in no cache: prefetch it before the sum begins
  const T* aux = nullptr;  // bias: one per row i; gate: laid out as C
  T scale = 1;
};

// kRow and kStep are A's strides where they are known at compile time, else 0. <0, 1> means that the sum runs along A's
// rows: only h and da are made so.
template <int kRow, int kStep>
constexpr bool kMakesHidden = kRow == 0 && kStep == 1;

template <class T, class E, int M, int N, int kRow, int kStep>
__attribute__((noinline)) void tile(const Product<T, E>& p) {
  using V = Vector<T>;
  const ptrdiff_t row = kRow ? kRow : p.a_row, step = kStep ? kStep : p.a_step;
  V sum[M][N] = {};
  if (p.far) prefetch_block(p.c, p.c_row, M, N * kLanes<T>);
  const E* b = p.b;
  for (ptrdiff_t block = 0; block < p.blocks; ++block) {
    const E* a = p.a + block * p.a_block;
    MIMIC_UNROLL_STEPS for (ptrdiff_t s = 0; s < p.steps; ++s) {
      Operand<E> bv[N];
      MIMIC_UNROLL for (int j = 0; j < N; ++j) bv[j] = load_operand(b + j * kLanes<T>);
      MIMIC_UNROLL for (int i = 0; i < M; ++i) {
        const Operand<E> av = broadcast_operand(a[i * row]);
        MIMIC_UNROLL for (int j = 0; j < N; ++j) sum[i][j] = multiply_add(sum[i][j], av, bv[j]);
      }
      a += step;
      b += kPanel;
    }
  }
  const auto finish = [&](auto value) {
    MIMIC_UNROLL for (int i = 0; i < M; ++i) {
      MIMIC_UNROLL for (int j = 0; j < N; ++j) {
        const ptrdiff_t at = i * p.c_row + j * kLanes<T>;
        store(p.c + at, value(sum[i][j], i, at));
      }
    }
  };
  if constexpr (!kMakesHidden<kRow, kStep>) {
    if (p.finish == Finish::add) return finish([&](V v, int, ptrdiff_t at) { return v + load<V>(p.c + at); });
    return finish([](V v, int, ptrdiff_t) { return v; });
  } else {
    const T* const aux = p.aux;
    if (p.finish == Finish::bias) return finish([&](V v, int i, ptrdiff_t) { return v + aux[i]; });
    if (p.finish == Finish::relu) {
      return finish([&](V v, int i, ptrdiff_t) {
        const V a = v + aux[i];
        return a < V{} ? V{} : a;  // NaN stays
      });
    }
    if (p.finish == Finish::gate)
      return finish([&](V v, int, ptrdiff_t at) { return load<V>(aux + at) > V{} ? v * p.scale : V{}; });
    return finish([&](V v, int, ptrdiff_t at) { return v * load<V>(p.c + at); });
  }
}

// float32 has kernels for which A's strides are constants. All types but float64 have kernels for narrow blocks of C.
// Fewer kernels compile sooner.
template <class E>
constexpr bool kKnowsStrides = std::is_same<E, float>::value;
template <class E>
constexpr int kNarrowVectors = std::is_same<E, double>::value ? kVectorsPerTile : 1;

template <int N, int kKnownRow, int kKnownStep, class T, class E>
MIMIC_INLINE void tile_of(int rows, const Product<T, E>& p) {
  constexpr bool known = kMakesHidden<kKnownRow, kKnownStep> || (N == kVectorsPerTile && kKnowsStrides<E>);
  constexpr int kRow = known ? kKnownRow : 0, kStep = known ? kKnownStep : 0;
  using Tile = void (*)(const Product<T, E>&);
  static constexpr Tile table[] = {
      tile<T, E, 1, N, kRow, kStep>,  tile<T, E, 2, N, kRow, kStep>,  tile<T, E, 3, N, kRow, kStep>,
      tile<T, E, 4, N, kRow, kStep>,  tile<T, E, 5, N, kRow, kStep>,  tile<T, E, 6, N, kRow, kStep>,
#if defined(__AVX512F__) || defined(__aarch64__)
      tile<T, E, 7, N, kRow, kStep>,  tile<T, E, 8, N, kRow, kStep>,  tile<T, E, 9, N, kRow, kStep>,
      tile<T, E, 10, N, kRow, kStep>, tile<T, E, 11, N, kRow, kStep>, tile<T, E, 12, N, kRow, kStep>,
#endif
  };
  static_assert(sizeof(table) / sizeof(table[0]) == kTileRows, "one kernel for each number of rows");
  table[rows - 1](p);
}

// As tile_of, where C has no padding and its last columns fill a part of a vector: sums go through a padded tile.
template <int kRow, int kStep, class T, class E>
void ragged_tile(int rows, int columns, Product<T, E> p) {
  alignas(64) T padded[kTileRows * kVectorsPerTile * kLanes<T>];
  T* const c = p.c;
  const ptrdiff_t c_row = p.c_row;
  const bool add = p.finish == Finish::add;
  p.c = padded, p.c_row = kVectorsPerTile * kLanes<T>, p.finish = Finish::store;
  if (columns <= kNarrowVectors<E> * kLanes<T>) {
    tile_of<kNarrowVectors<E>, kRow, kStep>(rows, p);
  } else {
    tile_of<kVectorsPerTile, kRow, kStep>(rows, p);
  }
  for (int i = 0; i < rows; ++i) {
    for (int j = 0; j < columns; ++j) {
      const T sum = padded[i * p.c_row + j];
      c[i * c_row + j] = add ? c[i * c_row + j] + sum : sum;
    }
  }
}

// M rows of C by `columns` (up to 32; of h and da always 32). Rows are split evenly into tiles, so that no tile is much
// smaller than the others.
template <int kRow, int kStep, class T, class E>
void multiply(ptrdiff_t M, int columns, const Product<T, E>& whole) {
  constexpr int kTileColumns = kVectorsPerTile * kLanes<T>;
  const ptrdiff_t tiles = ceil_div(M, kTileRows);
  for (int j0 = 0; j0 < columns; j0 += kTileColumns) {
    const int width = least(columns - j0, kTileColumns);
    for (ptrdiff_t t = 0; t < tiles; ++t) {
      const ptrdiff_t i0 = M * t / tiles;
      const int rows = int(M * (t + 1) / tiles - i0);
      Product<T, E> p = whole;
      p.a += i0 * (kRow ? kRow : p.a_row);
      p.b += j0;
      p.c += i0 * p.c_row + j0;
      if constexpr (kMakesHidden<kRow, kStep>) {
        if (p.finish == Finish::gate) p.aux += i0 * p.c_row + j0;
        if (p.finish == Finish::bias || p.finish == Finish::relu) p.aux += i0;
        tile_of<kVectorsPerTile, kRow, kStep>(rows, p);
      } else if (width == kTileColumns) {
        tile_of<kVectorsPerTile, kRow, kStep>(rows, p);
      } else if (width == kNarrowVectors<E> * kLanes<T>) {
        tile_of<kNarrowVectors<E>, kRow, kStep>(rows, p);
      } else {
        ragged_tile<kRow, kStep>(rows, width, p);
      }
    }
  }
}

}  // namespace MIMIC_ISA
}  // namespace mimic
