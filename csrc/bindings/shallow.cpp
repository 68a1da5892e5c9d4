// The shallow ops, in float32 or float64 and with bfloat16 operands.
#include <algorithm>

#include "bindings/arguments.h"

namespace mimic {
namespace {

using namespace py::literals;

constexpr int64_t kMostPlanned = int64_t(1) << 20;  // hidden units of a slab, rows of a block

const char* name_of(Multiplier by) {
  static const char* const names[] = {"vectors", "pairs", "tiles", "tiles_x3"};
  return names[int(by)];
}

// By how many bfloat16 stand for a number in a product: 0 for products of the arrays' own numbers, 1 or 3.
Multiplier multiplier_of(int terms) {
  if (terms == 0) return Multiplier::vectors;
  return terms == 3 ? Multiplier::tiles_x3 : kernels_of_terms(terms).linear ? Multiplier::tiles : Multiplier::pairs;
}

void demand_plan(const ShallowCall& call, int64_t slab, int64_t row_block) {
  if (slab < 32 || slab % 32 || slab > kMostPlanned || row_block < 32 || row_block % 32 || row_block > kMostPlanned) {
    throw py::value_error("plan: expected slab and row_block to be multiples of 32, at most 2^20");
  }
  demand_sizes("B, k, H", {call.B, call.k, call.H}), demand_sizes("B, H, C", {call.B, call.H, call.C});
  demand_sizes("slab, k", {slab, call.k}), demand_sizes("slab, C", {slab, call.C});
}

// How many rows a pass looks at. Where there are no outputs, rows have no part in y or in a gradient: a pass over one
// gives the same at once, and there may be any number of such rows in no memory.
int64_t rows_of(int64_t B, int64_t H, int64_t C, bool saves_h) {
  return C == 0 && !(saves_h && H > 0) ? std::min<int64_t>(B, 1) : B;
}

// The call's shape, of as many rows as the pass looks at.
ShallowShape run_shape(ShallowShape s, bool saves_h) {
  s.B = rows_of(s.B, s.H, s.C, saves_h);
  return s;
}

template <class T>
void clear(T* array, int64_t size) {
  if (array) std::fill(array, array + size, T(0));
}

ShallowShape shape_of(const py::array& z, const py::array& right, int64_t H, int activation, const MaskTuple& mask,
                      int64_t slab, int64_t row_block, int terms, bool backward, bool dz, bool saves_h) {
  demand_axes("z", z, 2), demand_axes("W", right, 2);
  const Mask drawn = mask_of(mask);
  ShallowCall call = {
      z.shape(0), z.shape(1), H,       right.shape(1), multiplier_of(terms), !py::isinstance<py::array_t<double>>(z),
      backward,   dz,         saves_h, drawn.drops()};
  demand_plan(call, slab, row_block);
  shallow_run() = {};
  const int64_t B = call.B;
  call.B = rows_of(B, H, call.C, saves_h);
  return {plan_shallow(call, slab, row_block), B, call.k, H, call.C, activation_of(activation), drawn};
}

py::dict shallow_plan(int64_t B, int64_t k, int64_t H, int64_t C, int64_t slab, int64_t row_block, bool float32,
                      int terms, bool backward, bool dz, bool saves_h, bool dropout) {
  const ShallowCall call = {B, k, H, C, multiplier_of(terms), float32, backward, dz, saves_h, dropout};
  demand_plan(call, slab, row_block);
  const ShallowPlan plan = plan_shallow(call, slab, row_block);
  return py::dict("by"_a = name_of(call.by), "few_rows"_a = plan.few_rows, "slab"_a = plan.slab,
                  "row_block"_a = plan.row_block, "parts"_a = plan.parts, "k_run"_a = 32 * plan.k_run);
}

py::dict last_shallow_run() {
  const ShallowRun& run = shallow_run();
  return py::dict("by"_a = name_of(run.by), "few_rows"_a = run.few_rows, "slabs"_a = run.slabs,
                  "row_blocks"_a = run.row_blocks, "parts"_a = run.parts, "k_runs"_a = run.k_runs);
}

// h between the passes: an array of T, or of uint16 that holds bfloat16.
template <class T>
SavedH<T> saved_of(const Optional& saved, const ShallowShape& s, bool write) {
  if (!saved) return {nullptr, nullptr};
  const int64_t size = (s.B + 31) / 32 * 32 * s.H;
  if (py::isinstance<py::array_t<uint16_t>>(*saved)) return {nullptr, data<uint16_t>("saved", *saved, size, write)};
  return {data<T>("saved", *saved, size, write), nullptr};
}

// Kernels that multiply operands M, and such operands.
template <class T, class M>
struct Multiplied {
  using Value = T;
  using Operand = M;

  const ShallowKernels<T, M>& kernels;
  int terms;

  // bfloat16 arrives as uint16; three terms are made of float32 alone.
  M operator()(const char* name, const py::array& array, int64_t size) const {
    if constexpr (std::is_same<M, Source>::value) {
      if (terms == 1 && py::isinstance<py::array_t<uint16_t>>(array)) return in<uint16_t>(name, array, size);
    }
    return in<T>(name, array, size);
  }
};

// `terms` is 0 for products of the arrays' own numbers.
template <class F>
void with_operands(const py::array& z, int terms, F f) {
  if (terms) return f(Multiplied<float, Source>{*kernels_of_terms(terms).shallow, terms});
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    f(Multiplied<T, const T*>{*kernels<T>().shallow, terms});
  });
}

void shallow_forward(const py::array& z, const py::array& U, const py::array& b, const py::array& W, const py::array& c,
                     int activation, const MaskTuple& mask, int64_t slab, int64_t row_block, int terms,
                     const py::array& y, const Optional& saved) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block, terms, false, false, saved.has_value());
  with_operands(z, terms, [&](const auto& operand) {
    using Operands = std::decay_t<decltype(operand)>;
    using T = typename Operands::Value;
    const ShallowForward<T, typename Operands::Operand> f = {
        run_shape(s, saved.has_value()), operand("z", z, s.B * s.k), operand("U", U, s.H * s.k),
        operand("W", W, s.H * s.C),      in<T>("b", b, s.H),         in<T>("c", c, s.C),
        out<T>("y", y, s.B * s.C),       saved_of<T>(saved, s, true)};
    const Interruptible released;
    operand.kernels.forward(f);
  });
}

void shallow_backward(const py::array& dy, const py::array& z, const py::array& U, const py::array& b,
                      const py::array& W, int activation, const MaskTuple& mask, int64_t slab, int64_t row_block,
                      int terms, const Optional& saved, const Optional& dz, const Optional& dU, const Optional& db,
                      const Optional& dW, const Optional& dc) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block, terms, true, dz.has_value(), false);
  with_operands(z, terms, [&](const auto& operand) {
    using Operands = std::decay_t<decltype(operand)>;
    using T = typename Operands::Value;
    const ShallowBackward<T, typename Operands::Operand> f = {
        run_shape(s, false),          operand("dy", dy, s.B * s.C), operand("z", z, s.B * s.k),
        operand("U", U, s.H * s.k),   operand("W", W, s.H * s.C),   in<T>("b", b, s.H),
        saved_of<T>(saved, s, false), out<T>("dz", dz, s.B * s.k),  out<T>("dU", dU, s.H * s.k),
        out<T>("db", db, s.H),        out<T>("dW", dW, s.H * s.C),  out<T>("dc", dc, s.C)};
    const Interruptible released;
    if (f.shape.B < s.B) clear(f.dz, s.B * s.k);
    operand.kernels.backward(f);
  });
}

void shallow_step(const py::array& dy, const py::array& z, const ParameterTuple& U, const ParameterTuple& b,
                  const ParameterTuple& W, const ParameterTuple& c, int activation, const MaskTuple& mask, int64_t slab,
                  int64_t row_block, int terms, const Optional& saved, const Optional& dz, const py::array& dc) {
  const auto s = shape_of(z, std::get<0>(W), std::get<0>(b).size(), activation, mask, slab, row_block, terms, true,
                          dz.has_value(), false);
  with_operands(z, terms, [&](const auto& operand) {
    using Operands = std::decay_t<decltype(operand)>;
    using T = typename Operands::Value;
    const ShallowStep<T, typename Operands::Operand> f = {run_shape(s, false),
                                                          operand("dy", dy, s.B * s.C),
                                                          operand("z", z, s.B * s.k),
                                                          saved_of<T>(saved, s, false),
                                                          out<T>("dz", dz, s.B * s.k),
                                                          out<T>("dc", dc, s.C),
                                                          parameter<T>("U", U, s.H * s.k),
                                                          parameter<T>("b", b, s.H),
                                                          parameter<T>("W", W, s.H * s.C),
                                                          parameter<T>("c", c, s.C)};
    const WithoutGil released;
    if (f.shape.B < s.B) clear(f.dz, s.B * s.k);
    operand.kernels.step(f);
  });
}

}  // namespace

void bind_shallow(py::module_& m) {
  m.attr("FEW_ROWS") = kFewRows;
  m.def("shallow_plan", &shallow_plan);
  m.def("last_shallow_run", &last_shallow_run);
  m.def("shallow_forward", &shallow_forward);
  m.def("shallow_backward", &shallow_backward);
  m.def("shallow_step", &shallow_step);
}

}  // namespace mimic
