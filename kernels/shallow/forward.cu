// y = h W + c with h = mask(f(z U^T + b)): the plan, and the launcher.
#include "shallow/rows.cuh"
#include "tile/split_sums.cuh"

namespace mimic {
namespace {

RowPlan make_plan(const pymimic_shallow& p, bool sm90a) {
  RowPlan plan = plan_rows(p, kForwardRows, sm90a ? kForwardSlabSm90a : kForwardSlabSm80, p.C, kForwardC);
  plan.sm90a = sm90a;
  plan.kernel = sm90a ? "forward_sm90a" : "forward_sm80";
  return plan;
}

RowPlan make_plan(const pymimic_shallow& p) {
  return make_plan(p, element_bytes(p.precision) == 2 && has_forward_sm90a());
}

}  // namespace
}  // namespace mimic

extern "C" pymimic_plan pymimic_shallow_forward_plan(const pymimic_shallow* p) { return mimic::make_plan(*p); }

extern "C" int pymimic_shallow_forward_splits(const pymimic_shallow* p) {
  using namespace mimic;  // as for one row block on any chip
  return choose_splits(plan_rows(*p, kForwardRows, kForwardSlabSm80, p->C, kForwardC).column_chunks,
                       (p->H + kForwardSlabSm80 - 1) / kForwardSlabSm80);
}

extern "C" cudaError_t pymimic_shallow_forward(const pymimic_shallow* p, const float* c, float* y, void* workspace,
                                               cudaStream_t stream) {
  using namespace mimic;
  if (!is_valid(*p)) return cudaErrorInvalidValue;
  if (p->B == 0 || p->C == 0) return cudaSuccess;
  if (p->H == 0) return launch_sum_splits(nullptr, 0, p->B, p->C, c, y, stream);
  const RowPlan plan = make_plan(*p);
  const bool split = plan.splits > 1;
  const ForwardTarget target = {split ? static_cast<float*>(workspace) : y, split ? nullptr : c};
  const auto run = plan.sm90a ? run_forward_sm90a : run_forward_sm80;
  const cudaError_t error = run(*p, plan, target, stream);
  if (error != cudaSuccess || !split) return error;
  return launch_sum_splits(target.sums, plan.splits, p->B, p->C, c, y, stream);
}
