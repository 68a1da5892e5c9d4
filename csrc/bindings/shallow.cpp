// The shallow ops, in float32 or float64 and with bfloat16 operands.
#include "bindings/arguments.h"

namespace mimic {
namespace {

ShallowShape shape_of(const py::array& z, const py::array& right, int64_t H, int activation, const MaskTuple& mask,
                      int64_t slab, int64_t row_block) {
  if (slab < 32 || slab % 32 || row_block < 32 || row_block % 32) {
    throw py::value_error("plan: expected slab and row_block to be multiples of 32");
  }
  return {z.shape(0), z.shape(1), H, right.shape(1), slab, row_block, activation_of(activation), mask_of(mask)};
}

// What the forward pass keeps: an array of T, or of uint16 that holds bfloat16.
template <class T>
Keep<T> keep_of(const Optional& saved, const ShallowShape& s, bool write) {
  if (!saved) return {nullptr, nullptr};
  const int64_t size = (s.B + 31) / 32 * 32 * s.H;
  if (py::isinstance<py::array_t<uint16_t>>(*saved)) return {nullptr, data<uint16_t>("saved", *saved, size, write)};
  return {data<T>("saved", *saved, size, write), nullptr};
}
template <class T>
Kept<T> kept_of(const Optional& saved, const ShallowShape& s) {
  const Keep<T> keep = keep_of<T>(saved, s, false);
  return {keep.full, keep.bf16};
}

void shallow_forward(const py::array& z, const py::array& U, const py::array& b, const py::array& W, const py::array& c,
                     int activation, const MaskTuple& mask, int64_t slab, int64_t row_block, const py::array& y,
                     const Optional& saved) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    const ShallowForward<T> f = {s,
                                 in<T>("z", z, s.B * s.k),
                                 in<T>("U", U, s.H * s.k),
                                 in<T>("b", b, s.H),
                                 in<T>("W", W, s.H * s.C),
                                 in<T>("c", c, s.C),
                                 out<T>("y", y, s.B * s.C),
                                 keep_of<T>(saved, s, true)};
    py::gil_scoped_release released;
    kernels<T>().shallow->forward(f);
  });
}

void shallow_backward(const py::array& dy, const py::array& z, const py::array& U, const py::array& b,
                      const py::array& W, int activation, const MaskTuple& mask, int64_t slab, int64_t row_block,
                      const Optional& saved, const Optional& dz, const Optional& dU, const Optional& db,
                      const Optional& dW, const Optional& dc) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    const ShallowBackward<T> f = {s,
                                  in<T>("dy", dy, s.B * s.C),
                                  in<T>("z", z, s.B * s.k),
                                  in<T>("U", U, s.H * s.k),
                                  in<T>("b", b, s.H),
                                  in<T>("W", W, s.H * s.C),
                                  kept_of<T>(saved, s),
                                  out<T>("dz", dz, s.B * s.k),
                                  out<T>("dU", dU, s.H * s.k),
                                  out<T>("db", db, s.H),
                                  out<T>("dW", dW, s.H * s.C),
                                  out<T>("dc", dc, s.C)};
    py::gil_scoped_release released;
    kernels<T>().shallow->backward(f);
  });
}

void shallow_step(const py::array& dy, const py::array& z, const ParameterTuple& U, const ParameterTuple& b,
                  const ParameterTuple& W, const ParameterTuple& c, int activation, const MaskTuple& mask, int64_t slab,
                  int64_t row_block, const Optional& saved, const Optional& dz, const py::array& dc) {
  const auto s = shape_of(z, std::get<0>(W), std::get<0>(b).size(), activation, mask, slab, row_block);
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    const ShallowStep<T> f = {s,
                              in<T>("dy", dy, s.B * s.C),
                              in<T>("z", z, s.B * s.k),
                              kept_of<T>(saved, s),
                              out<T>("dz", dz, s.B * s.k),
                              out<T>("dc", dc, s.C),
                              parameter<T>("U", U, s.H * s.k),
                              parameter<T>("b", b, s.H),
                              parameter<T>("W", W, s.H * s.C),
                              parameter<T>("c", c, s.C)};
    py::gil_scoped_release released;
    kernels<T>().shallow->step(f);
  });
}

// bfloat16 arrives as uint16; three terms are made of float32 alone.
Source source(const char* name, const py::array& array, int64_t size, int terms) {
  if (terms == 1 && py::isinstance<py::array_t<uint16_t>>(array)) return {in<uint16_t>(name, array, size), true};
  return {in<float>(name, array, size), false};
}

void shallow_forward_bf16(const py::array& z, const py::array& U, const py::array& b, const py::array& W,
                          const py::array& c, int activation, const MaskTuple& mask, int64_t slab, int64_t row_block,
                          int terms, const py::array& y, const Optional& saved) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  const ShallowForwardBf16 f = {s,
                                source("z", z, s.B * s.k, terms),
                                source("U", U, s.H * s.k, terms),
                                source("W", W, s.H * s.C, terms),
                                in<float>("b", b, s.H),
                                in<float>("c", c, s.C),
                                out<float>("y", y, s.B * s.C),
                                keep_of<float>(saved, s, true)};
  py::gil_scoped_release released;
  bfloat_kernels(terms).shallow->forward(f);
}

void shallow_backward_bf16(const py::array& dy, const py::array& z, const py::array& U, const py::array& b,
                           const py::array& W, int activation, const MaskTuple& mask, int64_t slab, int64_t row_block,
                           int terms, const Optional& saved, const Optional& dz, const Optional& dU, const Optional& db,
                           const Optional& dW, const Optional& dc) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  const ShallowBackwardBf16 f = {s,
                                 source("dy", dy, s.B * s.C, terms),
                                 source("z", z, s.B * s.k, terms),
                                 source("U", U, s.H * s.k, terms),
                                 source("W", W, s.H * s.C, terms),
                                 in<float>("b", b, s.H),
                                 kept_of<float>(saved, s),
                                 out<float>("dz", dz, s.B * s.k),
                                 out<float>("dU", dU, s.H * s.k),
                                 out<float>("db", db, s.H),
                                 out<float>("dW", dW, s.H * s.C),
                                 out<float>("dc", dc, s.C)};
  py::gil_scoped_release released;
  bfloat_kernels(terms).shallow->backward(f);
}

void shallow_step_bf16(const py::array& dy, const py::array& z, const ParameterTuple& U, const ParameterTuple& b,
                       const ParameterTuple& W, const ParameterTuple& c, int activation, const MaskTuple& mask,
                       int64_t slab, int64_t row_block, int terms, const Optional& saved, const Optional& dz,
                       const py::array& dc) {
  const auto s = shape_of(z, std::get<0>(W), std::get<0>(b).size(), activation, mask, slab, row_block);
  const ShallowStepBf16 f = {s,
                             source("dy", dy, s.B * s.C, terms),
                             source("z", z, s.B * s.k, terms),
                             kept_of<float>(saved, s),
                             out<float>("dz", dz, s.B * s.k),
                             out<float>("dc", dc, s.C),
                             parameter<float>("U", U, s.H * s.k),
                             parameter<float>("b", b, s.H),
                             parameter<float>("W", W, s.H * s.C),
                             parameter<float>("c", c, s.C)};
  py::gil_scoped_release released;
  bfloat_kernels(terms).shallow->step(f);
}

}  // namespace

void bind_shallow(py::module_& m) {
  m.def("shallow_forward", &shallow_forward);
  m.def("shallow_backward", &shallow_backward);
  m.def("shallow_step", &shallow_step);
  m.def("shallow_forward_bf16", &shallow_forward_bf16);
  m.def("shallow_backward_bf16", &shallow_backward_bf16);
  m.def("shallow_step_bf16", &shallow_step_bf16);
}

}  // namespace mimic
