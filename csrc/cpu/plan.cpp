#include "cpu/plan.h"

#include <algorithm>
#include <cstdlib>

#include "cpu/own_memory.h"

namespace mimic {
namespace {

constexpr int64_t kStep = 32;              // values of k, C or rows in one step of a product on tiles
constexpr int64_t kMostSteps = 20;         // of k, for z U^T in one piece
constexpr int64_t kLongSlab = 192;         // units, at most, where k is longer
constexpr int64_t kLongBytes = 3LL << 20;  // of such a slab's weights as three terms, at most

int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// With a slab's weights whole, in cache, that slab would be so small that z had to be read too often.
// Weights are U in the form for dz, a run of it, and W.
int64_t long_k_slab(const ShallowCall& call) {
  return std::min(kLongBytes / (6 * (call.k + kMostSteps * kStep + call.C)) / kStep * kStep, kLongSlab);
}

// With three terms h and da are three times as large, and blocks beyond some k + C rows cost more in cache than they
// save in gradients that are added to.
int64_t row_block_x3(const ShallowCall& call, int64_t most) {
  const int64_t wanted = std::max<int64_t>(call.k + call.C, 128), blocks = (call.B + wanted / 2) / wanted;
  return std::min(ceil_div(ceil_div(call.B, std::max<int64_t>(blocks, 1)), kStep) * kStep, most);
}

// Each part may have a dz of its own as long as a pass takes no more than four times B (k + C) values and 4 MiB a
// thread: tiles of z and dy are three times as many. Where k is long, a slab's weights leave less room.
int most_parts(const ShallowCall& call, bool long_k) {
  if (!call.backward || !call.dz) return kMostParts;
  const int64_t room = call.B * call.C + (int64_t(long_k ? 3 : 5) << 18), dz = call.B * call.k;
  return 4 * dz <= room ? 4 : 2 * dz <= room ? 2 : 1;
}

}  // namespace

ShallowPlan plan_shallow(const ShallowCall& call, int64_t slab, int64_t row_block) {
  ShallowPlan plan = {slab, row_block};
  if (call.by == Multiplier::vectors) {
    plan.few_rows = call.float32 && call.B <= kFewRows && !call.backward && !call.saves_h && !call.dropout;
    return plan;
  }
  if (call.by == Multiplier::pairs) return plan;
  const int64_t steps = ceil_div(call.k, kStep), runs = ceil_div(steps, kMostSteps);
  if (runs > 1) {
    plan.k_run = 4 * ceil_div(steps, 4 * runs);  // whole pages
    plan.slab = std::max(slab, long_k_slab(call));
  }
  if (call.backward && call.by == Multiplier::tiles_x3) plan.row_block = row_block_x3(call, row_block);
  if (call.H > 0) plan.parts = int(std::min<int64_t>(most_parts(call, runs > 1), ceil_div(call.H, plan.slab)));
  return plan;
}

ShallowRun& shallow_run() {
  static const OwnMemory own;
  void* const run = own.get();
  return *static_cast<ShallowRun*>(run ? run : own.take(std::calloc(1, sizeof(ShallowRun)), sizeof(ShallowRun)));
}

}  // namespace mimic
