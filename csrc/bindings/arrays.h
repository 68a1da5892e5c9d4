// NumPy arrays as pointers. Shapes and dtypes arrive checked by Python; what is checked here again is what would
// otherwise read or write outside an array.
#pragma once

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <initializer_list>
#include <optional>
#include <string>

namespace mimic {

namespace py = pybind11;

// Sizes whose product is this large are refused, so that no product of sizes inside a kernel, with padding, overflows.
constexpr int64_t kMostProducts = int64_t(1) << 58;
constexpr int64_t kMostPadding = 64;  // that a kernel adds to a size

inline void demand_sizes(const char* names, std::initializer_list<int64_t> sizes) {
  int64_t product = 1;
  for (const int64_t size : sizes) {
    if (size < 0 || size > kMostProducts || __builtin_mul_overflow(product, size + kMostPadding, &product) ||
        product > kMostProducts)
      throw py::value_error(std::string(names) + ": expected sizes of at least 0 whose product is below 2^58");
  }
}

inline void demand_axes(const char* name, const py::array& array, int64_t axes) {
  if (array.ndim() != axes)
    throw py::value_error(std::string(name) + ": expected " + std::to_string(axes) + " axes, got " +
                          std::to_string(array.ndim()));
}

// The data of a contiguous array of T with `size` elements.
template <class T>
T* data(const char* name, const py::array& array, int64_t size, bool writable) {
  if (!py::isinstance<py::array_t<T>>(array))
    throw py::type_error(std::string(name) + ": dtype differs from the first array's");
  if (!(array.flags() & py::array::c_style))
    throw py::value_error(std::string(name) + ": expected a C-contiguous array");
  if (!(array.flags() & py::detail::npy_api::NPY_ARRAY_ALIGNED_))
    throw py::value_error(std::string(name) + ": expected an array aligned to its elements");
  if (writable && !array.writeable()) throw py::value_error(std::string(name) + ": expected a writable array");
  if (array.size() != size) {
    throw py::value_error(std::string(name) + ": expected " + std::to_string(size) + " elements, got " +
                          std::to_string(array.size()));
  }
  return static_cast<T*>(const_cast<void*>(array.data()));
}
template <class T>
const T* in(const char* name, const py::array& array, int64_t size) {
  return data<T>(name, array, size, false);
}
template <class T>
T* out(const char* name, const py::array& array, int64_t size) {
  return data<T>(name, array, size, true);
}
using Optional = std::optional<py::array>;
template <class T>
const T* in(const char* name, const Optional& array, int64_t size) {
  return array ? data<T>(name, *array, size, false) : nullptr;
}
template <class T>
T* out(const char* name, const Optional& array, int64_t size) {
  return array ? data<T>(name, *array, size, true) : nullptr;
}

}  // namespace mimic
