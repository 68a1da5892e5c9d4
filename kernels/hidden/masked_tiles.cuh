// Tiles of the dropout mask, 16 rows by 32 units, of matrices in memory: a warp loads and stores them as quads.
#pragma once

#include "hidden/mask_vec4.cuh"
#include "tile/splits.cuh"

namespace mimic {

using TileQuads = float[kMaskQuads][kQuad];  // of a lane

// Where elements have 16 bits, the address and the ld are multiples of 8 bytes.
struct TiledMatrix {
  void* data;
  pymimic_precision precision;
  int64_t rows, units, ld;
};

inline __device__ TiledMatrix floats(const float* data, int64_t rows, int64_t units) {
  return {const_cast<float*>(data), PYMIMIC_FP32, rows, units, units};
}

// Zeros where the matrix ends.
__device__ __forceinline__ void load_tile(TileQuads& to, int lane, const TiledMatrix& m, int64_t row, int64_t unit) {
#pragma unroll
  for (int q = 0; q < kMaskQuads; ++q) {
    const int64_t r = row + quad_row(lane, q), u = unit + quad_unit(lane, q), count = r < m.rows ? m.units - u : 0;
    const Quad values = m.precision >= PYMIMIC_TF32
                            ? load_quad(static_cast<const float*>(m.data) + r * m.ld + u, count)
                            : load_quad(static_cast<const uint16_t*>(m.data) + r * m.ld + u, m.precision, count);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) to[q][i] = values.at[i];
  }
}

__device__ __forceinline__ void store_tile(const TiledMatrix& m, const TileQuads& values, int lane, int64_t row,
                                           int64_t unit) {
#pragma unroll
  for (int q = 0; q < kMaskQuads; ++q) {
    const int64_t r = row + quad_row(lane, q), u = unit + quad_unit(lane, q), count = r < m.rows ? m.units - u : 0;
    const Quad quad = {{values[q][0], values[q][1], values[q][2], values[q][3]}};
    if (m.precision >= PYMIMIC_TF32)
      store_quad(static_cast<float*>(m.data) + r * m.ld + u, quad, count);
    else
      store_quad(static_cast<uint16_t*>(m.data) + r * m.ld + u, m.precision, quad, count);
  }
}

__device__ __forceinline__ void add_bias(TileQuads& a, int lane, const float* bias, int64_t unit, int64_t units) {
  if (!bias) return;
#pragma unroll
  for (int q = 0; q < kMaskQuads; ++q) {
    const int64_t u = unit + quad_unit(lane, q);
    const Quad b = load_quad(bias + u, units - u);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) a[q][i] += b.at[i];
  }
}

__device__ __forceinline__ void apply_mask(TileQuads& a, const MaskedQuads& masked) {
#pragma unroll
  for (int j = 0; j < kMaskQuads * kQuad; ++j) a[j / kQuad][j % kQuad] *= masked.factor(j / kQuad, j % kQuad);
}

// Sums over the rows of the tiles that a warp takes, one below the other.
struct UnitSums {
  float at[kMaskQuads / 2][kQuad] = {};

  __device__ __forceinline__ void add(const TileQuads& a) {
#pragma unroll
    for (int q = 0; q < kMaskQuads; ++q)
#pragma unroll
      for (int i = 0; i < kQuad; ++i) at[q / 2][i] += a[q][i];
  }

  // Lanes that differ by a multiple of 4 have the same units.
  __device__ __forceinline__ void store(float* to, int lane, int64_t unit, int64_t units) const {
#pragma unroll
    for (int j = 0; j < kMaskQuads / 2; ++j) {
      Quad sum;
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        sum.at[i] = at[j][i];
#pragma unroll
        for (int apart = 4; apart < 32; apart *= 2) sum.at[i] += shuffle_xor(sum.at[i], apart);
      }
      const int64_t u = unit + quad_unit(lane, 2 * j);
      if (lane < 4) store_quad(to + u, sum, units - u);
    }
  }
};

// The tiles of rows that a part of the grid takes.
struct RowTiles {
  int64_t first, end;
};

__device__ __forceinline__ RowTiles row_tiles(int64_t rows, unsigned part, unsigned parts) {
  const int64_t tiles = (rows + kMaskRows - 1) / kMaskRows;
  return {tiles * part / parts, tiles * (part + 1) / parts};
}

// Into how many parts the rows are split; their sums are added at the end.
inline int row_splits(int64_t rows, int64_t units) {
  return choose_splits(ceil_div(units, kTileUnits), ceil_div(rows, kMaskRows));
}

}  // namespace mimic
