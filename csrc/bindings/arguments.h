// What the bindings of the compiled core share: the instruction set in use, and arguments that are not arrays.
#pragma once

#include "bindings/arrays.h"
#include "bindings/gil.h"
#include "bindings/update.h"
#include "cpu/dispatch.h"

namespace mimic {

extern const Isa* isa_in_use;

template <class T>
const Kernels<T>& kernels();
template <>
inline const Kernels<float>& kernels<float>() {
  return isa_in_use->f32;
}
template <>
inline const Kernels<double>& kernels<double>() {
  return isa_in_use->f64;
}

// By how many bfloat16 stand for a number: one or three.
inline const Bf16Kernels& kernels_of_terms(int terms) {
  if (terms != 1 && terms != 3) throw py::value_error("terms: expected 1 or 3");
  const Bf16Kernels& chosen = terms == 1 ? isa_in_use->bf16 : isa_in_use->bf16x3;
  if (!chosen.shallow) throw py::value_error("terms: expected an instruction set with tiles for 3");
  return chosen;
}

// Calls f with a float or a double, whichever the array holds.
template <class F>
void with_dtype(const py::array& array, F f) {
  if (py::isinstance<py::array_t<float>>(array)) return f(float());
  if (py::isinstance<py::array_t<double>>(array)) return f(double());
  throw py::type_error("expected dtype float32 or float64");
}

using MaskTuple = std::tuple<uint32_t, uint64_t, uint32_t, int64_t, int64_t>;  // threshold, seed, offset, row, unit

inline Mask mask_of(const MaskTuple& t) {
  constexpr int64_t most = int64_t(1) << 40;
  const auto& [threshold, seed, offset, row, unit] = t;
  if (threshold < 1 || threshold > 256) throw py::value_error("mask: expected a threshold in [1, 256]");
  if (row < 0 || row > most || unit < 0 || unit > most) throw py::value_error("mask: expected an origin in [0, 2^40]");
  return {threshold, seed, offset, row, unit};
}

inline Activation activation_of(int code) {
  if (code < 0 || code > int(Activation::gelu)) throw py::value_error("activation: unknown code");
  return Activation(code);
}

template <class T>
Parameter<T> parameter_of(const char* name, const py::array& value, const std::vector<py::array>& slots,
                          const UpdateTuple& t) {
  Parameter<T> p = {out<T>(name, value, value.size()), {nullptr, nullptr}, update_of<T>(t)};
  demand_slots(name, slots.size(), p.update);
  for (size_t i = 0; i < slots.size(); ++i) p.slot[i] = out<T>(name, slots[i], value.size());
  return p;
}

using ParameterTuple = std::tuple<py::array, std::vector<py::array>, UpdateTuple>;

template <class T>
Parameter<T> parameter(const char* name, const ParameterTuple& p, int64_t size) {
  in<T>(name, std::get<0>(p), size);
  return parameter_of<T>(name, std::get<0>(p), std::get<1>(p), std::get<2>(p));
}

// Each adds its part to the module.
void bind_shallow(py::module_& m);
void bind_predictor(py::module_& m);

}  // namespace mimic
