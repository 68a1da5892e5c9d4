// The numbers of an optimizer step, as Python passes them to both compiled modules.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <tuple>

#include "common/optimizer.h"

namespace mimic {

// (kind, learning_rate, weight_decay, momentum, nesterov, beta1, beta2, epsilon, correction1, correction2)
using UpdateTuple = std::tuple<std::string, double, double, double, bool, double, double, double, double, double>;

template <class T>
Update<T> update_of(const UpdateTuple& t) {
  const auto& [kind, rate, weight_decay, momentum, nesterov, beta1, beta2, epsilon, correction1, correction2] = t;
  if (kind != "adamw" && kind != "sgd")
    throw pybind11::value_error("update: expected 'adamw' or 'sgd', got '" + kind + "'");
  const Rule rule = kind == "adamw" ? Rule::adamw : Rule::sgd;
  return {rule,     nesterov, T(rate),    T(weight_decay),       T(momentum),
          T(beta1), T(beta2), T(epsilon), T(rate / correction1), T(1 / correction2)};
}

template <class T>
void demand_slots(const char* name, size_t slots, const Update<T>& u) {
  if (slots != (u.rule == Rule::adamw ? 2u : u.momentum != 0 ? 1u : 0u))
    throw pybind11::value_error(std::string(name) + ": wrong number of slots");
}

}  // namespace mimic
