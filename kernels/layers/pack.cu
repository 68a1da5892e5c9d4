// Makes operands: rows become padded rows of another type, with zeros beyond the true columns. A thread makes 8
// columns.
#include "launch.h"
#include "tile/operands.cuh"
#include "tile/vec4.cuh"

namespace mimic {
namespace {

constexpr int kColumns = 8, kMostGridRows = 65535, kMostGridColumns = 4096;

struct Pack {
  const void* from;
  pymimic_precision from_precision;
  int64_t ld_from;
  void* to;
  pymimic_precision to_precision;
  int64_t ld_to, rows, columns;
  RowTeams teams;
};

struct Eight {
  float at[kColumns];
};

__device__ __forceinline__ Eight load_halves(const uint16_t* from, pymimic_precision precision, int64_t count) {
  Eight e = {};
  if (count >= kColumns && is_aligned(from, 16)) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    const uint32_t words[4] = {v.x, v.y, v.z, v.w};
#pragma unroll
    for (int i = 0; i < 4; ++i) {
      const float2 two = from_16bit(precision, words[i]);
      e.at[2 * i] = two.x;
      e.at[2 * i + 1] = two.y;
    }
  } else {
#pragma unroll
    for (int i = 0; i < kColumns; ++i)
      if (i < count) e.at[i] = from_16bit(precision, from[i]).x;
  }
  return e;
}

__device__ __forceinline__ Eight load_floats(const float* from, int64_t count) {
  const Quad low = load_quad(from, count), high = load_quad(from + kQuad, count - kQuad);
  return {{low.at[0], low.at[1], low.at[2], low.at[3], high.at[0], high.at[1], high.at[2], high.at[3]}};
}

__global__ void __launch_bounds__(kTeamThreads) pack(const Pack p) {
  const int64_t first_row = int64_t(blockIdx.y) * p.teams.count() + p.teams.team();
  const int64_t first_column = (int64_t(blockIdx.x) * p.teams.size + p.teams.member()) * kColumns;
  const bool from_float = p.from_precision >= PYMIMIC_TF32, to_float = p.to_precision >= PYMIMIC_TF32;
  for (int64_t row = first_row; row < p.rows; row += int64_t(gridDim.y) * p.teams.count()) {
    for (int64_t column = first_column; column < p.ld_to; column += int64_t(gridDim.x) * p.teams.size * kColumns) {
      const int64_t at = row * p.ld_from + column, to = row * p.ld_to + column, count = p.columns - column;
      const Eight e = from_float ? load_floats(static_cast<const float*>(p.from) + at, count)
                                 : load_halves(static_cast<const uint16_t*>(p.from) + at, p.from_precision, count);
      if (to_float) {
        store_quad(static_cast<float*>(p.to) + to, {{e.at[0], e.at[1], e.at[2], e.at[3]}}, kQuad);
        store_quad(static_cast<float*>(p.to) + to + kQuad, {{e.at[4], e.at[5], e.at[6], e.at[7]}}, kQuad);
      } else {
        *reinterpret_cast<uint4*>(static_cast<uint16_t*>(p.to) + to) = {
            to_16bit(p.to_precision, e.at[0], e.at[1]), to_16bit(p.to_precision, e.at[2], e.at[3]),
            to_16bit(p.to_precision, e.at[4], e.at[5]), to_16bit(p.to_precision, e.at[6], e.at[7])};
      }
    }
  }
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_pack(const void* from, pymimic_precision from_precision, int64_t ld_from, void* to,
                                    pymimic_precision to_precision, int64_t ld_to, int64_t rows, int64_t columns,
                                    cudaStream_t stream) {
  using namespace mimic;
  if (rows < 0 || columns < 0 || ld_from < columns || !is_operand(to, ld_to, columns)) return cudaErrorInvalidValue;
  if (rows == 0 || ld_to == 0) return cudaSuccess;
  const RowTeams teams = teams_for(ld_to / kColumns, kTeamThreads);
  const dim3 grid(blocks_for(ld_to / kColumns, teams.size, kMostGridColumns),
                  blocks_for(rows, teams.count(), kMostGridRows));
  const Pack p = {from, from_precision, ld_from, to, to_precision, ld_to, rows, columns, teams};
  return launch(pack, grid, kTeamThreads, 0, stream, p);
}
