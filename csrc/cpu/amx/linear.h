// The matrix products of linear.h on tiles of bfloat16. A task makes a part of C: a run of the sum at a time, it makes
// its rows of A into tiles once, and then the columns of B, block by block.
#pragma once

#include "cpu/amx/layouts.h"
#include "cpu/linear.h"

namespace mimic {
namespace MIMIC_ISA {

constexpr int64_t kTiledRows = 256;      // of C that one task makes, and columns that are tiles at once ...
constexpr int64_t kTiledColumns = 4096;  // ... of the columns that it makes
constexpr int64_t kTiledRun = 512;       // of the sum: then the operands in use take 1.5 MiB as three terms

template <class F>
struct ByTiledBlocks {
  template <class Finish>
  static void matmul(const Matmul<float>& f, Finish finish) {
    const int threads = threads_for(f.M * f.N * f.S, kProductsWorthAThread);
    int64_t height = kTiledRows, width = kTiledColumns;
    const auto tasks = [&] { return ceil_div(f.M, height) * ceil_div(f.N, width); };
    while (tasks() < 4 * threads && width > kTiledRows) width /= 2;
    while (tasks() < threads && height > kStep) height /= 2;
    while (tasks() < 2 * threads && width > 2 * kStep) width /= 2;
    const int64_t across = ceil_div(f.N, width), steps = steps_of(least(kTiledRun, f.S));
    const int64_t at_once = least(width, kTiledRows);
    const int members = int(least(int64_t(threads), tasks()));
    TileMatrix all_A, all_B;
    const auto layout = [&](Arena arena) {
      all_A = take_tiles<F>(arena, members * height / kTile, steps);
      all_B = take_tiles<F>(arena, members * at_once / kTile, steps);
      return arena.used();
    };
    layout(Arena(scratch(layout(Arena()))));
    share(members, tasks(), [&](int64_t task, int rank) {
      F::Tiles::configure();
      const TileMatrix A = all_A.from(rank * height / kTile, 0), B = all_B.from(rank * at_once / kTile, 0);
      const int64_t row = task / across * height, rows = least(f.M - row, height);
      const int64_t first = task % across * width, end = least(f.N, first + width);
      for (int64_t s0 = 0; s0 == 0 || s0 < f.S; s0 += kTiledRun) {
        const int64_t run = least(f.S - s0, kTiledRun);
        if (f.a_step == 1) {
          rows_as_tiles(f.a + row * f.a_row + s0, f.a_row, rows, run, false, A);
        } else {
          columns_as_tiles(f.a + row + s0 * f.a_step, f.a_step, run, rows, true, A);
        }
        for (int64_t column = first; column < end; column += at_once) {
          const int64_t columns = least(end - column, at_once);
          if (f.transposed) {
            rows_as_tiles(f.b + column * f.S + s0, f.S, columns, run, true, B);
          } else {
            columns_as_tiles(f.b + s0 * f.N + column, f.N, run, columns, false, B);
          }
          tile_products<typename F::Tiles, typename F::Product>(A, B, steps_of(run), rows, columns,
                                                                f.c + row * f.N + column, f.N, s0 > 0, false);
          if (s0 + run >= f.S) finish(row, rows, column, int(columns));
        }
      }
      F::Tiles::release();
    });
  }

 private:
  // Rows whose values are summed over, and rows that are.
  static void rows_as_tiles(const float* values, ptrdiff_t stride, int64_t rows, int64_t columns, bool turned,
                            const TileMatrix& to) {
    for (int64_t i = 0; i < rows; i += kStep) {
      put_along<F>(values + i * stride, stride, rows - i, columns, turned, to.from(i / kTile, 0));
    }
  }
  static void columns_as_tiles(const float* values, ptrdiff_t stride, int64_t rows, int64_t columns, bool turned,
                               const TileMatrix& to) {
    for (int64_t i = 0; i < rows; i += kStep) {
      put_across<F>(values + i * stride, stride, rows - i, columns, F::kApart, turned, to.from(0, i / kStep));
    }
  }
};

}  // namespace MIMIC_ISA
}  // namespace mimic
