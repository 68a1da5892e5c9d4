// Three losses, each with its gradient. A team of threads takes a row. The rows' losses are summed by thread, then by
// block, then over the blocks: sizes alone decide the order.
#include <math.h>

#include "common/activation.h"
#include "launch.h"
#include "tile/tile.cuh"
#include "tile/vec4.cuh"

namespace mimic {
namespace {

constexpr int kMostMembers = 32, kMostBlocks = 1024;
constexpr uint32_t kSumBytes = kTeamThreads / 32 * sizeof(float);

// In thread 0: the sum over the block.
__device__ __forceinline__ float block_sum(float x) {
#pragma unroll
  for (int apart = 16; apart > 0; apart /= 2) x += shuffle_xor(x, apart);
  if (threadIdx.x % 32 == 0) store_shared(threadIdx.x / 32 * uint32_t(sizeof(float)), x);
  sync_block();
  float sum = 0;
  if (threadIdx.x == 0)
    for (uint32_t at = 0; at < kSumBytes; at += sizeof(float)) sum += load_shared<float>(at);
  return sum;
}

__global__ void __launch_bounds__(kTeamThreads) sum_blocks(const float* parts, int count, float factor, float* loss) {
  float x = 0;
  for (int i = threadIdx.x; i < count; i += kTeamThreads) x += parts[i];
  const float sum = block_sum(x);
  if (threadIdx.x == 0) *loss = factor * sum;
}

// f(row) for the rows of this team. All teams of a warp call f together: one without a row gets a row beyond the last.
template <class F>
__device__ __forceinline__ void each_row(const RowTeams& teams, int64_t rows, F f) {
  const int64_t step = int64_t(gridDim.x) * teams.count();
  for (int64_t first = int64_t(blockIdx.x) * teams.count(); first < rows; first += step) f(first + teams.team());
}

// f(column, how many) for the quads of this thread in a row.
template <class F>
__device__ __forceinline__ void each_quad(const RowTeams& teams, int64_t columns, F f) {
  for (int64_t c = int64_t(teams.member()) * kQuad; c < columns; c += int64_t(teams.size) * kQuad) f(c, columns - c);
}

struct Loss {
  const float* y;
  const float* t;
  const int64_t* labels;
  const float* weights;
  float temperature;
  int64_t B, C;
  float* parts;  // a block's sum each
  float* dy;
  RowTeams teams;

  __device__ float weight(int64_t row) const { return (weights ? weights[row] : 1.0f) / float(B); }
};

__global__ void __launch_bounds__(kTeamThreads) mimic_loss(const Loss f) {
  float loss = 0;
  each_row(f.teams, f.B, [&](int64_t row) {
    if (row >= f.B) return;
    const float weight = f.weight(row);
    each_quad(f.teams, f.C, [&](int64_t column, int64_t count) {
      const int64_t at = row * f.C + column;
      const Quad y = load_quad(f.y + at, count), t = load_quad(f.t + at, count);
      Quad dy;
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const float residual = y.at[i] - t.at[i];
        dy.at[i] = residual * weight;
        loss += residual * dy.at[i];
      }
      store_quad(f.dy + at, dy, count);
    });
  });
  const float sum = block_sum(loss);
  if (threadIdx.x == 0) f.parts[blockIdx.x] = sum;
}

// log(softmax(x / temperature)) of a row.
struct LogSoftmax {
  float inverse_temperature, largest, log_sum;

  __device__ float operator()(float x) const { return x * inverse_temperature - largest - log_sum; }
};

// All threads of a warp call it together, with a row for each team, or null.
__device__ __forceinline__ LogSoftmax log_softmax(const float* row, float inverse_temperature, int64_t columns,
                                                  const RowTeams& teams) {
  LogSoftmax s = {inverse_temperature, -__builtin_inff(), 0};
  const int64_t mine = row ? columns : 0;
  each_quad(teams, mine, [&](int64_t column, int64_t count) {
    const Quad x = load_quad(row + column, count);
#pragma unroll
    for (int i = 0; i < kQuad; ++i)
      if (i < count && x.at[i] * inverse_temperature > s.largest) s.largest = x.at[i] * inverse_temperature;
  });
  for (int apart = 1; apart < teams.size; apart *= 2) {
    const float other = shuffle_xor(s.largest, apart);
    s.largest = other > s.largest ? other : s.largest;
  }
  float sum = 0;  // NaN where the row has one: then all of its probabilities are
  each_quad(teams, mine, [&](int64_t column, int64_t count) {
    const Quad x = load_quad(row + column, count);
#pragma unroll
    for (int i = 0; i < kQuad; ++i)
      if (i < count) sum += exponential(x.at[i] * inverse_temperature - s.largest);
  });
  for (int apart = 1; apart < teams.size; apart *= 2) sum += shuffle_xor(sum, apart);
  s.log_sum = logf(sum);
  return s;
}

__global__ void __launch_bounds__(kTeamThreads) cross_entropy(const Loss f) {
  float loss = 0;
  each_row(f.teams, f.B, [&](int64_t row) {
    const bool valid = row < f.B;
    const LogSoftmax log_p = log_softmax(valid ? f.y + row * f.C : nullptr, 1, f.C, f.teams);
    if (!valid) return;
    const int64_t label = f.labels[row];
    const float weight = f.weight(row);
    each_quad(f.teams, f.C, [&](int64_t column, int64_t count) {
      const int64_t at = row * f.C + column;
      const Quad y = load_quad(f.y + at, count);
      Quad dy;
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const float l = log_p(y.at[i]);
        const bool hit = column + i == label;
        dy.at[i] = (exponential(l) - (hit ? 1.0f : 0.0f)) * weight;
        if (hit) loss -= weight * l;
      }
      store_quad(f.dy + at, dy, count);
    });
  });
  const float sum = block_sum(loss);
  if (threadIdx.x == 0) f.parts[blockIdx.x] = sum;
}

__global__ void __launch_bounds__(kTeamThreads) distillation_loss(const Loss f) {
  const float inverse = 1 / f.temperature;
  float loss = 0;
  each_row(f.teams, f.B, [&](int64_t row) {
    const bool valid = row < f.B;
    const LogSoftmax log_q = log_softmax(valid ? f.y + row * f.C : nullptr, inverse, f.C, f.teams);
    const LogSoftmax log_p = log_softmax(valid ? f.t + row * f.C : nullptr, inverse, f.C, f.teams);
    if (!valid) return;
    const float weight = f.weight(row), factor = f.temperature * weight;
    each_quad(f.teams, f.C, [&](int64_t column, int64_t count) {
      const int64_t at = row * f.C + column;
      const Quad y = load_quad(f.y + at, count), t = load_quad(f.t + at, count);
      Quad dy;
#pragma unroll
      for (int i = 0; i < kQuad; ++i) {
        const float q = log_q(y.at[i]), p = log_p(t.at[i]), probability = exponential(p);
        dy.at[i] = (exponential(q) - probability) * factor;
        if (i < count && probability != 0) loss += weight * probability * (p - q);  // 0 log 0 = 0
      }
      store_quad(f.dy + at, dy, count);
    });
  });
  const float sum = block_sum(loss);
  if (threadIdx.x == 0) f.parts[blockIdx.x] = sum;
}

RowTeams teams_of(int64_t C) { return teams_for(ceil_div(C, kQuad), kMostMembers); }

unsigned blocks_of(int64_t B, int64_t C) { return C == 0 ? 0 : blocks_for(B, teams_of(C).count(), kMostBlocks); }

// The kernel, where there are elements, then the sum of its blocks times `factor`.
cudaError_t run(void (*kernel)(Loss), Loss f, float factor, float* loss, void* workspace, cudaStream_t stream) {
  if (f.B < 0 || f.C < 0) return cudaErrorInvalidValue;
  f.parts = static_cast<float*>(workspace);
  f.teams = teams_of(f.C);
  const unsigned blocks = blocks_of(f.B, f.C);
  const cudaError_t error = blocks ? launch(kernel, dim3(blocks), kTeamThreads, kSumBytes, stream, f) : cudaSuccess;
  if (error != cudaSuccess) return error;
  return launch(sum_blocks, dim3(1), kTeamThreads, kSumBytes, stream, f.parts, int(blocks), factor, loss);
}

}  // namespace
}  // namespace mimic

extern "C" size_t pymimic_loss_workspace(int64_t B, int64_t C) { return mimic::blocks_of(B, C) * sizeof(float); }

extern "C" cudaError_t pymimic_mimic_loss(const float* y, const float* t, const float* weights, int64_t B, int64_t C,
                                          float* loss, float* dy, void* workspace, cudaStream_t stream) {
  const mimic::Loss f = {y, t, nullptr, weights, 1, B, C, nullptr, dy, {}};
  return mimic::run(mimic::mimic_loss, f, 0.5f, loss, workspace, stream);
}

extern "C" cudaError_t pymimic_cross_entropy(const float* y, const int64_t* labels, const float* weights, int64_t B,
                                             int64_t C, float* loss, float* dy, void* workspace, cudaStream_t stream) {
  const mimic::Loss f = {y, nullptr, labels, weights, 1, B, C, nullptr, dy, {}};
  return mimic::run(mimic::cross_entropy, f, 1, loss, workspace, stream);
}

extern "C" cudaError_t pymimic_distillation_loss(const float* y, const float* t, float temperature,
                                                 const float* weights, int64_t B, int64_t C, float* loss, float* dy,
                                                 void* workspace, cudaStream_t stream) {
  if (!(temperature > 0 && temperature < __builtin_inff())) return cudaErrorInvalidValue;
  const mimic::Loss f = {y, t, nullptr, weights, temperature, B, C, nullptr, dy, {}};
  return mimic::run(mimic::distillation_loss, f, temperature * temperature, loss, workspace, stream);
}
