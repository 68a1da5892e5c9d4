// pymimic._core: unpacks arrays, releases the GIL, calls the kernels.
#include "../cpu/dispatch.h"
#include "../cpu/parallel.h"
#include "arrays.h"
#include "predictor.h"

namespace py = pybind11;

namespace {

using mimic::data, mimic::in, mimic::Isa, mimic::Optional, mimic::out;

const Isa* g_isa = nullptr;

template <class T>
const mimic::Kernels<T>& kernels();
template <>
const mimic::Kernels<float>& kernels<float>() {
  return g_isa->f32;
}
template <>
const mimic::Kernels<double>& kernels<double>() {
  return g_isa->f64;
}

// Calls f with a float or a double, whichever the array holds.
template <class F>
void with_dtype(const py::array& array, F f) {
  if (py::isinstance<py::array_t<float>>(array)) return f(float());
  if (py::isinstance<py::array_t<double>>(array)) return f(double());
  throw py::type_error("expected dtype float32 or float64");
}

using MaskTuple = std::tuple<uint32_t, uint64_t, uint32_t, int64_t, int64_t>;  // keep, seed, offset, row, unit

mimic::Mask mask_of(const MaskTuple& t) {
  return {std::get<0>(t), std::get<1>(t), std::get<2>(t), std::get<3>(t), std::get<4>(t)};
}

mimic::Activation activation_of(int code) {
  if (code < 0 || code > int(mimic::Activation::gelu)) throw py::value_error("activation: unknown code");
  return mimic::Activation(code);
}

mimic::ShallowShape shape_of(const py::array& z, const py::array& right, int64_t H, int activation,
                             const MaskTuple& mask, int64_t slab, int64_t row_block) {
  if (slab < 32 || slab % 32 || row_block < 32 || row_block % 32) {
    throw py::value_error("plan: expected slab and row_block to be multiples of 32");
  }
  return {z.shape(0), z.shape(1), H, right.shape(1), slab, row_block, activation_of(activation), mask_of(mask)};
}

// What the forward pass keeps: an array of T, or of uint16 that holds bfloat16.
template <class T>
mimic::Keep<T> keep_of(const Optional& saved, const mimic::ShallowShape& s, bool write) {
  if (!saved) return {nullptr, nullptr};
  const int64_t size = (s.B + 31) / 32 * 32 * s.H;
  if (py::isinstance<py::array_t<uint16_t>>(*saved)) return {nullptr, data<uint16_t>("saved", *saved, size, write)};
  return {data<T>("saved", *saved, size, write), nullptr};
}
template <class T>
mimic::Kept<T> kept_of(const Optional& saved, const mimic::ShallowShape& s) {
  const mimic::Keep<T> keep = keep_of<T>(saved, s, false);
  return {keep.full, keep.bf16};
}

void shallow_forward(const py::array& z, const py::array& U, const py::array& b, const py::array& W, const py::array& c,
                     int activation, const MaskTuple& mask, int64_t slab, int64_t row_block, const py::array& y,
                     const Optional& saved) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    const mimic::ShallowForward<T> f = {s,
                                        in<T>("z", z, s.B * s.k),
                                        in<T>("U", U, s.H * s.k),
                                        in<T>("b", b, s.H),
                                        in<T>("W", W, s.H * s.C),
                                        in<T>("c", c, s.C),
                                        out<T>("y", y, s.B * s.C),
                                        keep_of<T>(saved, s, true)};
    py::gil_scoped_release released;
    kernels<T>().shallow_forward(f);
  });
}

void shallow_backward(const py::array& dy, const py::array& z, const py::array& U, const py::array& b,
                      const py::array& W, int activation, const MaskTuple& mask, int64_t slab, int64_t row_block,
                      const Optional& saved, const Optional& dz, const Optional& dU, const Optional& db,
                      const Optional& dW, const Optional& dc) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    const mimic::ShallowBackward<T> f = {s,
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
    kernels<T>().shallow_backward(f);
  });
}

// (kind, learning_rate, weight_decay, momentum, nesterov, beta1, beta2, epsilon, correction1, correction2)
using UpdateTuple = std::tuple<std::string, double, double, double, bool, double, double, double, double, double>;

template <class T>
mimic::Parameter<T> parameter_of(const char* name, const py::array& value, const std::vector<py::array>& slots,
                                 const UpdateTuple& t) {
  const auto& [kind, learning_rate, weight_decay, momentum, nesterov, beta1, beta2, epsilon, correction1, correction2] =
      t;
  const bool adamw = kind == "adamw";
  if (slots.size() != (adamw ? 2u : momentum != 0 ? 1u : 0u))
    throw py::value_error(std::string(name) + ": wrong number of slots");
  mimic::Parameter<T> p = {out<T>(name, value, value.size()), {nullptr, nullptr}, {}};
  for (size_t i = 0; i < slots.size(); ++i) p.slot[i] = out<T>(name, slots[i], value.size());
  p.update.rule = adamw ? mimic::Rule::adamw : mimic::Rule::sgd;
  p.update.nesterov = nesterov;
  p.update.learning_rate = T(learning_rate), p.update.weight_decay = T(weight_decay), p.update.momentum = T(momentum);
  p.update.beta1 = T(beta1), p.update.beta2 = T(beta2), p.update.epsilon = T(epsilon);
  p.update.step_size = T(learning_rate / correction1), p.update.inverse_correction2 = T(1 / correction2);
  return p;
}

using ParameterTuple = std::tuple<py::array, std::vector<py::array>, UpdateTuple>;

template <class T>
mimic::Parameter<T> parameter(const char* name, const ParameterTuple& p, int64_t size) {
  in<T>(name, std::get<0>(p), size);
  return parameter_of<T>(name, std::get<0>(p), std::get<1>(p), std::get<2>(p));
}

void shallow_step(const py::array& dy, const py::array& z, const ParameterTuple& U, const ParameterTuple& b,
                  const ParameterTuple& W, const ParameterTuple& c, int activation, const MaskTuple& mask, int64_t slab,
                  int64_t row_block, const Optional& saved, const Optional& dz, const py::array& dc) {
  const auto s = shape_of(z, std::get<0>(W), std::get<0>(b).size(), activation, mask, slab, row_block);
  with_dtype(z, [&](auto zero) {
    using T = decltype(zero);
    const mimic::ShallowStep<T> f = {s,
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
    kernels<T>().shallow_step(f);
  });
}

// bfloat16 arrives as uint16.
mimic::Source source(const char* name, const py::array& array, int64_t size) {
  if (py::isinstance<py::array_t<uint16_t>>(array)) return {in<uint16_t>(name, array, size), true};
  return {in<float>(name, array, size), false};
}

bool has_native_pairs() {
#ifdef MIMIC_X86
  return __builtin_cpu_supports("avx512bf16");
#else
  return false;
#endif
}

void shallow_forward_bf16(const py::array& z, const py::array& U, const py::array& b, const py::array& W,
                          const py::array& c, int activation, const MaskTuple& mask, int64_t slab, int64_t row_block,
                          const py::array& y) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  const mimic::ShallowForwardBf16 f = {s,
                                       has_native_pairs(),
                                       source("z", z, s.B * s.k),
                                       source("U", U, s.H * s.k),
                                       source("W", W, s.H * s.C),
                                       in<float>("b", b, s.H),
                                       in<float>("c", c, s.C),
                                       out<float>("y", y, s.B * s.C)};
  py::gil_scoped_release released;
  g_isa->shallow_forward_bf16(f);
}

void shallow_backward_bf16(const py::array& dy, const py::array& z, const py::array& U, const py::array& b,
                           const py::array& W, int activation, const MaskTuple& mask, int64_t slab, int64_t row_block,
                           const Optional& dz, const Optional& dU, const Optional& db, const Optional& dW,
                           const Optional& dc) {
  const auto s = shape_of(z, W, b.size(), activation, mask, slab, row_block);
  const mimic::ShallowBackwardBf16 f = {s,
                                        has_native_pairs(),
                                        source("dy", dy, s.B * s.C),
                                        source("z", z, s.B * s.k),
                                        source("U", U, s.H * s.k),
                                        source("W", W, s.H * s.C),
                                        in<float>("b", b, s.H),
                                        out<float>("dz", dz, s.B * s.k),
                                        out<float>("dU", dU, s.H * s.k),
                                        out<float>("db", db, s.H),
                                        out<float>("dW", dW, s.H * s.C),
                                        out<float>("dc", dc, s.C)};
  py::gil_scoped_release released;
  g_isa->shallow_backward_bf16(f);
}

void shallow_step_bf16(const py::array& dy, const py::array& z, const ParameterTuple& U, const ParameterTuple& b,
                       const ParameterTuple& W, const ParameterTuple& c, int activation, const MaskTuple& mask,
                       int64_t slab, int64_t row_block, const Optional& dz, const py::array& dc) {
  const auto s = shape_of(z, std::get<0>(W), std::get<0>(b).size(), activation, mask, slab, row_block);
  const mimic::ShallowStepBf16 f = {s,
                                    has_native_pairs(),
                                    source("dy", dy, s.B * s.C),
                                    source("z", z, s.B * s.k),
                                    out<float>("dz", dz, s.B * s.k),
                                    out<float>("dc", dc, s.C),
                                    parameter<float>("U", U, s.H * s.k),
                                    parameter<float>("b", b, s.H),
                                    parameter<float>("W", W, s.H * s.C),
                                    parameter<float>("c", c, s.C)};
  py::gil_scoped_release released;
  g_isa->shallow_step_bf16(f);
}

template <class T>
mimic::Linear<T> layer_of(const py::array& x, const py::array& weight, const Optional& bias, int activation,
                          const MaskTuple& mask, const py::array& result, bool write) {
  const int64_t B = x.shape(0), I = x.shape(1), O = weight.shape(0);
  T* const to = data<T>("out", result, B * O, write);
  return {B,
          I,
          O,
          activation_of(activation),
          mask_of(mask),
          in<T>("x", x, B * I),
          in<T>("weight", weight, O * I),
          in<T>("bias", bias, O),
          to};
}

void linear(const py::array& x, const py::array& weight, const Optional& bias, int activation, const MaskTuple& mask,
            const py::array& out) {
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto f = layer_of<T>(x, weight, bias, activation, mask, out, true);
    py::gil_scoped_release released;
    kernels<T>().linear(f);
  });
}

void linear_backward(const py::array& dout, const py::array& x, const py::array& weight, const Optional& bias,
                     const py::array& result, int activation, const MaskTuple& mask, const Optional& da,
                     const Optional& dx, const Optional& dweight, const Optional& dbias) {
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto l = layer_of<T>(x, weight, bias, activation, mask, result, false);
    const mimic::LinearBackward<T> f = {l,
                                        in<T>("dout", dout, l.B * l.O),
                                        out<T>("da", da, l.B * l.O),
                                        out<T>("dx", dx, l.B * l.I),
                                        out<T>("dweight", dweight, l.O * l.I),
                                        out<T>("dbias", dbias, l.O)};
    py::gil_scoped_release released;
    kernels<T>().linear_backward(f);
  });
}

void dropout(const py::array& x, const py::array& result, const MaskTuple& mask) {
  const int64_t units = x.shape(x.ndim() - 1), rows = x.shape(x.ndim() - 2);
  const int64_t outer = x.size() == 0 ? 0 : x.size() / (rows * units);
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = in<T>("x", x, x.size());
    T* to = out<T>("out", result, x.size());
    py::gil_scoped_release released;
    kernels<T>().dropout(from, to, outer, rows, units, mask_of(mask));
  });
}

void update(const py::array& param, const py::array& grad, const std::vector<py::array>& slots,
            const UpdateTuple& rule) {
  with_dtype(param, [&](auto zero) {
    using T = decltype(zero);
    const auto p = parameter_of<T>("param", param, slots, rule);
    const T* g = in<T>("grad", grad, param.size());
    py::gil_scoped_release released;
    kernels<T>().update(param.size(), g, p);
  });
}

double multiply_adds(const std::string& dtype, int64_t steps) {
  py::gil_scoped_release released;
  if (dtype == "float32") return kernels<float>().multiply_adds(steps, 0.5f, 1.0f);
  if (dtype == "float64") return kernels<double>().multiply_adds(steps, 0.5, 1.0);
#ifdef MIMIC_X86
  if (dtype == "bfloat16" && __builtin_cpu_supports("avx512bf16")) return g_isa->bf16_multiply_adds(steps);
#endif
  return 0;
}

double sum_all(const py::array& x) {
  double result = 0;
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const T* values = in<T>("x", x, x.size());
    py::gil_scoped_release released;
    result = double(kernels<T>().sum_all(x.size(), values));
  });
  return result;
}

std::vector<std::string> names(const std::vector<const Isa*>& isas) {
  std::vector<std::string> result;
  for (const Isa* isa : isas) result.emplace_back(isa->name);
  return result;
}

void set_isa(const std::string& name) {
  for (const Isa* isa : mimic::runnable_isas()) {
    if (name == isa->name) {
      g_isa = isa;
      return;
    }
  }
  throw py::value_error("isa: '" + name + "' is not among those compiled in that this machine can run");
}

}  // namespace

PYBIND11_MODULE(_core, m) {
  m.doc() = "The compiled CPU kernels.";
  g_isa = mimic::runnable_isas().back();
  m.def("compiled_isas", [] { return names(mimic::compiled_isas()); });
  m.def("runnable_isas", [] { return names(mimic::runnable_isas()); });
  m.def("isa", [] { return std::string(g_isa->name); });
  m.def("set_isa", &set_isa);
  m.def("num_threads", &mimic::num_threads);
  m.def("set_num_threads", &mimic::set_num_threads);
  m.def("shallow_forward", &shallow_forward);
  m.def("shallow_backward", &shallow_backward);
  m.def("shallow_step", &shallow_step);
  m.def("shallow_forward_bf16", &shallow_forward_bf16);
  m.def("shallow_backward_bf16", &shallow_backward_bf16);
  m.def("shallow_step_bf16", &shallow_step_bf16);
  m.def("linear", &linear);
  m.def("linear_backward", &linear_backward);
  m.def("dropout", &dropout);
  m.def("update", &update);
  mimic::bind_predictor(m, g_isa);
  m.def("multiply_adds", &multiply_adds);
  m.def("sum_all", &sum_all);
}
