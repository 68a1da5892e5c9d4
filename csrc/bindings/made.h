// The C++ object of a Python one.
#pragma once

#include <pybind11/pybind11.h>

#include <string>

namespace mimic {

// `cls.__new__(cls)` makes a Python object without a C++ one, and pybind11 would hand out raw memory for it.
template <class T>
T& made(const pybind11::handle self) {
  using Instance = pybind11::detail::instance;
  if (!pybind11::isinstance<T>(self) ||
      !reinterpret_cast<Instance*>(self.ptr())->get_value_and_holder().holder_constructed())
    throw pybind11::type_error(std::string(Py_TYPE(self.ptr())->tp_name) + ": expected what its constructor made");
  return self.cast<T&>();
}

}  // namespace mimic
