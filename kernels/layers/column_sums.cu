// Sums over the rows of a matrix in a fixed order: each block takes a part of the rows and up to 128 columns, and a
// second pass adds the parts.
#include "launch.h"
#include "tile/split_sums.cuh"
#include "tile/tile.cuh"
#include "tile/vec4.cuh"

namespace mimic {
namespace {

constexpr int kMostMembers = 32, kRowsOfSlab = 32;

__global__ void __launch_bounds__(kTeamThreads)
    column_sums(const float* a, float* parts, int64_t rows, int64_t columns, RowTeams teams) {
  const int64_t column = (int64_t(blockIdx.x) * teams.size + teams.member()) * kQuad, count = columns - column;
  const int64_t slabs = (rows + kRowsOfSlab - 1) / kRowsOfSlab;
  const int64_t first = slabs * blockIdx.y / gridDim.y * kRowsOfSlab;
  const int64_t part_end = slabs * (blockIdx.y + 1) / gridDim.y * kRowsOfSlab, end = part_end < rows ? part_end : rows;
  Quad sum = {};
  for (int64_t row = first + teams.team(); count > 0 && row < end; row += teams.count()) {
    const Quad q = load_quad(a + row * columns + column, count);
#pragma unroll
    for (int i = 0; i < kQuad; ++i) sum.at[i] += q.at[i];
  }

  const int team = teams.team();
  for (int half = teams.count() / 2; half > 0; half /= 2) {
    if (team >= half && team < 2 * half) store_shared(threadIdx.x * uint32_t(sizeof(Quad)), sum);
    sync_block();
    if (team >= half) continue;
    const Quad other = load_shared<Quad>((threadIdx.x + half * teams.size) * uint32_t(sizeof(Quad)));
#pragma unroll
    for (int i = 0; i < kQuad; ++i) sum.at[i] += other.at[i];
  }
  if (team == 0 && count > 0) store_quad(parts + blockIdx.y * columns + column, sum, count);
}

struct SumPlan {
  RowTeams teams;
  int64_t blocks;
  int splits;
};

SumPlan make_plan(int64_t rows, int64_t columns) {
  const int64_t quads = ceil_div(columns, kQuad);
  const RowTeams teams = teams_for(quads, kMostMembers);
  const int64_t blocks = ceil_div(quads, teams.size);
  return {teams, blocks, choose_splits(blocks, ceil_div(rows, kRowsOfSlab))};
}

}  // namespace
}  // namespace mimic

extern "C" size_t pymimic_column_sums_workspace(int64_t rows, int64_t columns) {
  return mimic::split_bytes(mimic::make_plan(rows, columns).splits, columns);
}

extern "C" cudaError_t pymimic_column_sums(const float* a, float* sums, int64_t rows, int64_t columns, void* workspace,
                                           cudaStream_t stream) {
  using namespace mimic;
  if (rows < 0 || columns < 0) return cudaErrorInvalidValue;
  if (columns == 0) return cudaSuccess;
  const SumPlan plan = make_plan(rows, columns);
  float* const parts = plan.splits > 1 ? static_cast<float*>(workspace) : sums;
  const cudaError_t error = launch(column_sums, dim3(unsigned(plan.blocks), unsigned(plan.splits)), kTeamThreads,
                                   kTeamThreads * sizeof(Quad), stream, a, parts, rows, columns, plan.teams);
  if (error != cudaSuccess || plan.splits == 1) return error;
  return launch_sum_splits(parts, plan.splits, 1, columns, nullptr, sums, stream);
}
