// Operands in shared memory: pieces of some rows by 64 columns of 16 bits. A row of a piece is 128 bytes, all banks
// once; its eight 16-byte chunks are exchanged by row (chunk ^ row % 8), so that load_matrices meets every bank once.
#pragma once

#include "tile.cuh"

namespace mimic {

constexpr int kPieceColumns = 64, kChunk = 8;  // columns of a piece and of a 16-byte chunk
constexpr uint32_t kPieceRowBytes = 128;

struct Operand {
  const uint16_t* data;
  int64_t ld;
  int64_t rows;
  int columns;  // rounded up to 16; the padding holds zeros
};

__device__ __forceinline__ uint32_t piece_at(int row, int chunk) {
  return uint32_t(row) * kPieceRowBytes + uint32_t((chunk ^ row % 8) * 16);
}

// Starts copying piece number `piece` of rows [row, row + rows_in_piece) to shared memory; rows beyond the last are
// zeros, columns beyond the last are left out.
template <int rows_in_piece, int threads>
__device__ __forceinline__ void copy_piece(uint32_t to, const Operand& m, int64_t row, int piece) {
  static_assert(rows_in_piece * 8 % threads == 0 && threads % 64 == 0);  // so that all rows of a thread are alike mod 8
  const int chunk = threadIdx.x % 8, column = piece * kPieceColumns + chunk * kChunk;
  if (column >= m.columns) return;
  int64_t r = row + threadIdx.x / 8;
  const uint16_t* from = m.data + r * m.ld + column;
  to += piece_at(threadIdx.x / 8, chunk);
#pragma unroll
  for (int i = 0; i < rows_in_piece * 8 / threads; ++i) {
    copy_async<16>(to, from, r < m.rows);
    r += threads / 8;
    from += threads / 8 * m.ld;
    to += threads / 8 * kPieceRowBytes;
  }
}

// Where this lane points load_matrices for 16 rows by 16 columns at the upper left of a piece: to read the 16 x 16 as
// an A fragment, or, transposed, as two B fragments whose k runs down the rows. Columns 16 i further: ^ 32 i.
__device__ __forceinline__ uint32_t fragment_at(int lane) { return piece_at(lane % 16, lane / 16); }

// The same for two B fragments whose k runs along the row: registers 0, 1 are of rows 0-7, registers 2, 3 of rows 8-15.
__device__ __forceinline__ uint32_t fragment_along_at(int lane) {
  return piece_at(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}

}  // namespace mimic
