// dz = da U with da = (dy W^T) f'(a) mask and a = z U^T + b: the plan, and the launcher.
#include "hidden/mask.cuh"
#include "shallow/rows.cuh"
#include "tile/split_sums.cuh"

namespace mimic {
namespace {

RowPlan make_plan(const pymimic_shallow& p) {
  const int slab = int(kPieceRowBytes) / element_bytes(p.precision);
  RowPlan plan = plan_rows(p, kBackwardRows, slab, p.k, kBackwardRowsK);
  plan.sm90a = p.precision == PYMIMIC_BF16 && plan.column_chunks == 1 && p.C > 0 && p.C <= kBackwardRowsSm90aC &&
               p.H > 0 && has_backward_rows_sm90a();
  plan.kernel = plan.sm90a ? "backward_rows_sm90a" : "backward_rows_sm80";
  return plan;
}

}  // namespace
}  // namespace mimic

extern "C" pymimic_plan pymimic_shallow_backward_rows_plan(const pymimic_shallow* p) { return mimic::make_plan(*p); }

extern "C" cudaError_t pymimic_shallow_backward_rows(const pymimic_shallow* p, const void* dy, int64_t lddy, float* dz,
                                                     void* workspace, cudaStream_t stream) {
  using namespace mimic;
  if (!is_valid(*p) || !is_valid(p->mask) || !is_operand(dy, lddy, p->C)) return cudaErrorInvalidValue;
  if (p->B == 0 || p->k == 0) return cudaSuccess;
  const RowPlan plan = make_plan(*p);
  const bool split = plan.splits > 1;
  float* const sums = split ? static_cast<float*>(workspace) : dz;
  const auto run = plan.sm90a ? run_backward_rows_sm90a : run_backward_rows_sm80;
  const cudaError_t error = run(*p, dy, lddy, plan, sums, stream);
  if (error != cudaSuccess || !split) return error;
  return launch_sum_splits(sums, plan.splits, p->B, p->k, nullptr, dz, stream);
}
