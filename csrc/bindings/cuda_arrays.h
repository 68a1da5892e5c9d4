// Device arrays (whatever has __cuda_array_interface__) as pointers. Python has checked shapes and types; the checks
// here are those without which a kernel would read or write outside an array, or on another device.
#pragma once

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/device.h"
#include "bindings/gil.h"
#include "bindings/update.h"
#include "launch.h"

namespace mimic {

namespace py = pybind11;
using Optional = std::optional<py::object>;

// Raises pymimic.errors.CudaError.
[[noreturn]] void raise(const std::string& message);
[[noreturn]] void raise(const char* what, cudaError_t error);
inline void demand(const char* what, cudaError_t error) {
  if (error != cudaSuccess) raise(what, error);
}

struct DeviceArray {
  void* data = nullptr;
  std::vector<int64_t> shape;
  std::string type;  // of an element, as NumPy writes it: "<f4"
  bool read_only = false;
  int64_t itemsize = 0, size = 0;
};
// A C-contiguous array in memory of the current device; `object` may be a CheckedArray.
DeviceArray device_array(const char* name, const py::object& object, bool writable);

// An array whose interface has been read and checked, for those who pass it again and again. It keeps the array alive
// where it is told to; otherwise its caller does.
class CheckedArray {
 public:
  CheckedArray(const py::object& object, bool keep);
  DeviceArray get(const char* name, bool writable) const;

 private:
  py::object owner_;
  DeviceArray array_;
  int device_ = -1;  // that has the memory, if there is any
};

// The same with float32 elements.
DeviceArray float_array(const char* name, const py::object& object, bool writable);

// Demands memory of the current device.
void demand_on_device(const char* name, const void* memory);

// A float32 (or, with another type, int64) array of a shape; null where it is absent.
const float* in(const char* name, const Optional& array, const std::vector<int64_t>& shape);
float* out(const char* name, const Optional& array, const std::vector<int64_t>& shape);
const int64_t* in_int64(const char* name, const Optional& array, const std::vector<int64_t>& shape);

// An operand of a matrix product, as launch.h describes it.
struct OperandArray {
  void* data = nullptr;
  int64_t rows = 0, ld = 0;
};
OperandArray operand(const char* name, const py::object& array, int precision, int64_t columns, bool writable);

// At least so many bytes of scratch; null where none are needed.
void* workspace(const Optional& array, size_t bytes);

inline cudaStream_t stream_of(uintptr_t stream) { return reinterpret_cast<cudaStream_t>(stream); }
pymimic_precision precision_of(int code);
pymimic_activation activation_of(int code);

// threshold, seed, offset, row, unit; seed and offset are ints or 0-d int64 device arrays.
using MaskTuple = std::tuple<uint32_t, py::object, py::object, int64_t, int64_t>;
pymimic_mask mask_of(const MaskTuple& t);

// value, slots, working operand, update, and the numbers of an update in device memory, which replace the update's
using ParameterTuple = std::tuple<py::object, std::vector<py::object>, Optional, UpdateTuple, Optional>;
pymimic_parameter parameter_of(const char* name, const ParameterTuple& t, int precision,
                               const std::vector<int64_t>& shape);
// The same where the value has been read.
pymimic_parameter parameter_of(const char* name, const ParameterTuple& t, int precision, const DeviceArray& value);

// Calls a launcher, which is `name` to the user.
template <class... P, class... A>
void run(const char* name, cudaError_t (*launcher)(P...), A... args) {
  cudaError_t error;
  {
    const WithoutGil released;
    error = launcher(args...);
  }
  demand(name, error);
}

// Each adds its part to the module.
void bind_arrays(py::module_& m);
void bind_layers(py::module_& m);
void bind_predictor(py::module_& m);

}  // namespace mimic
