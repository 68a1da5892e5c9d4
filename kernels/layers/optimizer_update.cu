// One optimizer step of an array from its gradient. The working operand is rewritten from the new values.
#include "hidden/optimizer.cuh"
#include "launch.h"
#include "tile/operands.cuh"
#include "tile/vec4.cuh"

namespace mimic {
namespace {

constexpr int kMostGridRows = 65535, kMostGridColumns = 4096;

struct Step {
  pymimic_parameter parameter;
  pymimic_precision working_precision;
  const float* grad;
  int64_t rows, columns;
  RowTeams teams;
};

// Columns [column, column + count) of a row of the working operand. Zeros beyond the true columns stay zeros.
__device__ __forceinline__ void store_working(void* row, int64_t column, pymimic_precision precision, const Quad& q,
                                              int64_t count) {
  if (precision >= PYMIMIC_TF32) return store_quad(static_cast<float*>(row) + column, q, count);
  store_quad(static_cast<uint16_t*>(row) + column, precision, q, count);
}

__global__ void __launch_bounds__(kTeamThreads) optimizer_update(const Step s) {
  const pymimic_parameter& p = s.parameter;
  const Update<float> update = update_of(p);
  const int slots = slots_of(p);
  const int64_t first_row = int64_t(blockIdx.y) * s.teams.count() + s.teams.team();
  const int64_t first_column = (int64_t(blockIdx.x) * s.teams.size + s.teams.member()) * kQuad;
  const int64_t ld_bytes = p.ld * (s.working_precision >= PYMIMIC_TF32 ? 4 : 2);
  for (int64_t row = first_row; row < s.rows; row += int64_t(gridDim.y) * s.teams.count()) {
    for (int64_t column = first_column; column < s.columns; column += int64_t(gridDim.x) * s.teams.size * kQuad) {
      const int64_t at = row * s.columns + column, count = s.columns - column;
      const Quad grad = load_quad(s.grad + at, count);
      Quad value = load_quad(p.value + at, count), first = {}, second = {};
      if (slots > 0) first = load_quad(p.slot[0] + at, count);
      if (slots > 1) second = load_quad(p.slot[1] + at, count);
#pragma unroll
      for (int i = 0; i < kQuad; ++i) step(update, slots, value.at[i], first.at[i], second.at[i], grad.at[i]);
      store_quad(p.value + at, value, count);
      if (slots > 0) store_quad(p.slot[0] + at, first, count);
      if (slots > 1) store_quad(p.slot[1] + at, second, count);
      if (p.working)
        store_working(static_cast<char*>(p.working) + row * ld_bytes, column, s.working_precision, value, count);
    }
  }
}

}  // namespace
}  // namespace mimic

extern "C" cudaError_t pymimic_optimizer_update(const pymimic_parameter* parameter, pymimic_precision working_precision,
                                                const float* grad, int64_t rows, int64_t columns, cudaStream_t stream) {
  using namespace mimic;
  const pymimic_parameter& p = *parameter;
  if (rows < 0 || columns < 0 || !is_valid(p, columns)) return cudaErrorInvalidValue;
  if (rows == 0 || columns == 0) return cudaSuccess;
  Step s = {p, working_precision, grad, rows, columns, {}};
  if (!p.working) {  // rows do not matter then: take all as one
    s.rows = 1;
    s.columns = rows * columns;
  }
  s.teams = teams_for(ceil_div(s.columns, kQuad), kTeamThreads);
  const dim3 grid(blocks_for(ceil_div(s.columns, kQuad), s.teams.size, kMostGridColumns),
                  blocks_for(s.rows, s.teams.count(), kMostGridRows));
  return launch(optimizer_update, grid, kTeamThreads, 0, stream, s);
}
