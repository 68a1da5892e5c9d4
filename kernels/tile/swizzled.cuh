// Operands in shared memory: a PIECE is some rows by 128 bytes (64 columns of 16 bits, 32 of 32 bits). A row of a piece
// covers all banks once. Chunk i of its eight 16-byte chunks is stored in place i ^ row % 8, so that loading a fragment
// has no bank conflicts.
#pragma once

#include "tile/tile.cuh"

namespace mimic {

constexpr uint32_t kPieceRowBytes = 128;
constexpr uint32_t kGroupBytes = 32;  // the columns of one mma: 16 of 16 bits or 8 of 32
constexpr int kPieceGroups = kPieceRowBytes / kGroupBytes;

struct Operand {
  const unsigned char* data;
  int64_t ld_bytes;
  int64_t rows;
  int bytes;  // of a row, rounded up to whole groups; zeros beyond its columns

  __device__ int groups_from(int piece) const { return bytes / int(kGroupBytes) - piece * kPieceGroups; }
};

__device__ __forceinline__ uint32_t piece_at(int row, int chunk) {
  return uint32_t(row) * kPieceRowBytes + uint32_t((chunk ^ row % 8) * 16);
}

// Starts to copy piece number `piece` of rows [row, row + rows_in_piece) to shared memory. Rows beyond the last become
// zeros; groups beyond the last are not copied.
template <int rows_in_piece, int threads>
__device__ __forceinline__ void copy_piece(uint32_t to, const Operand& m, int64_t row, int piece,
                                           int thread = int(threadIdx.x)) {
  static_assert(rows_in_piece * 8 % threads == 0 && threads % 64 == 0);  // all rows of a thread are the same mod 8
  const int chunk = thread % 8, column = piece * int(kPieceRowBytes) + chunk * 16;
  if (column >= m.bytes) return;
  int64_t r = row + thread / 8;
  const unsigned char* from = m.data + r * m.ld_bytes + column;
  to += piece_at(thread / 8, chunk);
#pragma unroll
  for (int i = 0; i < rows_in_piece * 8 / threads; ++i) {
    copy_async<16>(to, from, r < m.rows);
    r += threads / 8;
    from += threads / 8 * m.ld_bytes;
    to += threads / 8 * kPieceRowBytes;
  }
}

// This lane's address for load_matrices of 16 rows by the first group of a piece, as an A fragment, or transposed as
// two B fragments whose k runs down the rows. For group i: ^ i kGroupBytes.
__device__ __forceinline__ uint32_t fragment_at(int lane) { return piece_at(lane % 16, lane / 16); }

// The same for two B fragments whose k runs along the row: registers 0, 1 are of rows 0-7, registers 2, 3 of rows 8-15.
__device__ __forceinline__ uint32_t fragment_along_at(int lane) {
  return piece_at(lane % 8 + lane / 16 * 8, lane / 8 % 2);
}

}  // namespace mimic
