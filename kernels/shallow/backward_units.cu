// dU = da^T z, db = column sums of da, dW = h^T dy, stored or used at once for a step: the plan, and the launchers.
#include "hidden/mask.cuh"
#include "shallow/backward_units.cuh"

namespace mimic {
namespace {

UnitPlan make_plan(const pymimic_shallow& p, bool needs_dU, bool needs_dW) {
  constexpr int kBlocks = 128;  // about as many as a large chip has multiprocessors
  const int most = int(pieces_of(kBackwardUnitsColumns, p.precision));
  UnitPlan plan = {};
  plan.splits = 1, plan.slab = kBackwardUnits;
  plan.U_pieces = p.k > 0 ? int(pieces_of(p.k, p.precision)) : 1;
  plan.W_pieces = int(pieces_of(p.C, p.precision));
  plan.dU_pieces = needs_dU && p.k > 0 ? plan.U_pieces : 0;
  plan.dW_pieces = needs_dW ? plan.W_pieces : 0;
  // Where H is small, several blocks share the columns of the same units.
  plan.unit_blocks = int((p.H + kBackwardUnits - 1) / kBackwardUnits);
  const int pieces = plan.dU_pieces + plan.dW_pieces;
  const int wanted = 2 * plan.unit_blocks <= kBlocks && p.H > 0 ? kBlocks / plan.unit_blocks : 1;
  const int least = (pieces + wanted - 1) / wanted;
  plan.chunk_pieces = least < 1 ? 1 : least < most ? least : most;
  plan.column_chunks = pieces > 0 ? (pieces + plan.chunk_pieces - 1) / plan.chunk_pieces : 1;
  // A step can be in place where a block makes all columns of its units: it has read their weights before it writes
  // them, and no other block reads them.
  plan.in_place = plan.column_chunks == 1;
  plan.sm90a = p.precision == PYMIMIC_BF16 && p.B > 0 && plan.dU_pieces > 0 && plan.dW_pieces > 0 &&
               p.k <= kBackwardUnitsSm90aColumns && p.C <= kBackwardUnitsSm90aColumns && plan.in_place &&
               has_backward_units_sm90a();
  const int piece_columns = int(kPieceRowBytes) / element_bytes(p.precision);
  plan.row_block = plan.sm90a ? piece_columns : kBackwardUnitsSlabPieces * piece_columns;
  plan.kernel = plan.sm90a ? "backward_units_sm90a" : "backward_units_sm80";
  return plan;
}

cudaError_t run(const pymimic_shallow& p, const void* dy, int64_t lddy, UnitGradients to, cudaStream_t stream) {
  if (!is_valid(p) || !is_valid(p.mask) || !is_operand(dy, lddy, p.C)) return cudaErrorInvalidValue;
  to.dU.columns = int(p.k), to.db.columns = 1, to.dW.columns = int(p.C);
  to.dU.needed = to.dU.needed && p.k > 0, to.dW.needed = to.dW.needed && p.C > 0;
  if (p.H == 0 || !(to.dU.needed || to.db.needed || to.dW.needed)) return cudaSuccess;
  const UnitPlan plan = make_plan(p, to.dU.needed, to.dW.needed);
  return (plan.sm90a ? run_backward_units_sm90a : run_backward_units_sm80)(p, dy, lddy, to, plan, stream);
}

}  // namespace
}  // namespace mimic

extern "C" pymimic_plan pymimic_shallow_backward_units_plan(const pymimic_shallow* p, int needs_dU, int needs_dW) {
  return mimic::make_plan(*p, needs_dU, needs_dW);
}

extern "C" cudaError_t pymimic_shallow_backward_units(const pymimic_shallow* p, const void* dy, int64_t lddy, float* dU,
                                                      float* db, float* dW, cudaStream_t stream) {
  using mimic::stored;
  return mimic::run(*p, dy, lddy, {stored(dU), stored(db), stored(dW)}, stream);
}

extern "C" cudaError_t pymimic_shallow_backward_step(const pymimic_shallow* p, const void* dy, int64_t lddy,
                                                     const pymimic_parameter* U, const pymimic_parameter* b,
                                                     const pymimic_parameter* W, cudaStream_t stream) {
  using mimic::stepped;
  if ((U && !mimic::is_valid(*U, p->k)) || (b && !mimic::is_valid(*b, 1)) || (W && !mimic::is_valid(*W, p->C)))
    return cudaErrorInvalidValue;
  return mimic::run(*p, dy, lddy, {stepped(U), stepped(b), stepped(W)}, stream);
}
