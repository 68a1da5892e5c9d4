#include "bindings/cuda_arrays.h"

#include "bindings/made.h"

namespace mimic {
namespace {

std::string text(const std::vector<int64_t>& shape) {
  std::string result = "(";
  for (size_t i = 0; i < shape.size(); ++i) result += (i ? ", " : "") + std::to_string(shape[i]);
  return result + (shape.size() == 1 ? ",)" : ")");
}

[[noreturn]] void refuse(const char* name, const std::string& expected, const std::string& got) {
  throw py::value_error(std::string(name) + ": expected " + expected + ", got " + got);
}

void demand_current(const char* name, int device, int current) {
  if (device < 0) refuse(name, "device memory", "host memory");
  if (device != current) {
    refuse(name, "memory of device " + std::to_string(current) + ", the current one",
           "memory of device " + std::to_string(device));
  }
}

void demand_type(const char* name, const DeviceArray& array, const char* type) {
  if (array.type != type)
    throw py::type_error(std::string(name) + ": expected elements " + type + ", got " + array.type);
}

DeviceArray typed(const char* name, const py::object& object, const char* type, const std::vector<int64_t>& shape,
                  bool writable) {
  DeviceArray array = device_array(name, object, writable);
  demand_type(name, array, type);
  if (array.shape != shape) refuse(name, "shape " + text(shape), text(array.shape));
  return array;
}

}  // namespace

void raise(const std::string& message) {
  const py::object kind = py::module_::import("pymimic.errors").attr("CudaError");
  PyErr_SetString(kind.ptr(), message.c_str());
  throw py::error_already_set();
}

void raise(const char* what, cudaError_t error) {
  const Error e = describe(error);
  raise(std::string(what) + ": " + e.name + " (" + e.text + "): " + e.advice);
}

void demand_on_device(const char* name, const void* memory) {
  int device = 0, current = 0;
  demand(name, device_of(memory, &device, &current));
  demand_current(name, device, current);
}

CheckedArray::CheckedArray(const py::object& object, bool keep) : array_(device_array("array", object, false)) {
  if (keep) owner_ = object;
  if (array_.size > 0) demand("array", current_device(&device_));
}

DeviceArray CheckedArray::get(const char* name, bool writable) const {
  if (writable && array_.read_only) refuse(name, "a writable array", "a read-only one");
  if (array_.size == 0) return array_;
  int current = 0;
  demand(name, current_device(&current));
  demand_current(name, device_, current);
  return array_;
}

DeviceArray device_array(const char* name, const py::object& object, bool writable) {
  if (py::isinstance<CheckedArray>(object)) return made<CheckedArray>(object).get(name, writable);
  const py::object interface = py::getattr(object, "__cuda_array_interface__", py::none());
  if (interface.is_none()) {
    throw py::type_error(std::string(name) + ": expected an array with __cuda_array_interface__, got " +
                         std::string(py::str(py::type::of(object))));
  }
  const py::dict about = interface;
  const auto [address, read_only] = about["data"].cast<std::tuple<uintptr_t, bool>>();
  DeviceArray array;
  array.data = reinterpret_cast<void*>(address);
  array.shape = about["shape"].cast<std::vector<int64_t>>();
  array.type = about["typestr"].cast<std::string>();
  array.itemsize = array.type.size() > 2 ? std::stoll(array.type.substr(2)) : 0;
  array.size = 1;
  for (const int64_t n : array.shape) array.size *= n;
  if (about.contains("strides") && !about["strides"].is_none() && array.size > 0) {
    const auto strides = about["strides"].cast<std::vector<int64_t>>();
    int64_t step = array.itemsize;
    for (size_t i = array.shape.size(); i-- > 0; step *= array.shape[i]) {
      if (array.shape[i] != 1 && strides.at(i) != step)
        refuse(name, "a C-contiguous array", "shape " + text(array.shape) + " with strides " + text(strides));
    }
  }
  array.read_only = read_only;
  if (writable && read_only) refuse(name, "a writable array", "a read-only one");
  if (array.size == 0) return array;
  if (array.itemsize == 0 || address % uintptr_t(array.itemsize)) {
    refuse(name, "memory aligned to its " + std::to_string(array.itemsize) + "-byte elements",
           "address " + std::to_string(address));
  }
  demand_on_device(name, array.data);
  return array;
}

DeviceArray float_array(const char* name, const py::object& object, bool writable) {
  const DeviceArray array = device_array(name, object, writable);
  demand_type(name, array, "<f4");
  return array;
}

const float* in(const char* name, const Optional& array, const std::vector<int64_t>& shape) {
  return array ? static_cast<const float*>(typed(name, *array, "<f4", shape, false).data) : nullptr;
}
float* out(const char* name, const Optional& array, const std::vector<int64_t>& shape) {
  return array ? static_cast<float*>(typed(name, *array, "<f4", shape, true).data) : nullptr;
}
const int64_t* in_int64(const char* name, const Optional& array, const std::vector<int64_t>& shape) {
  return array ? static_cast<const int64_t*>(typed(name, *array, "<i8", shape, false).data) : nullptr;
}

OperandArray operand(const char* name, const py::object& object, int precision, int64_t columns, bool writable) {
  const DeviceArray array = device_array(name, object, writable);
  const int64_t itemsize = precision == PYMIMIC_BF16 || precision == PYMIMIC_FP16 ? 2 : 4;
  if (array.itemsize != itemsize) refuse(name, "elements of " + std::to_string(itemsize) + " bytes", array.type);
  if (array.shape.size() != 2) refuse(name, "shape (rows, ld)", text(array.shape));
  const int64_t ld = array.shape[1];
  if (ld % 16 || ld < columns) {
    refuse(name, "rows of at least " + std::to_string(columns) + " elements, a multiple of 16", std::to_string(ld));
  }
  if (reinterpret_cast<uintptr_t>(array.data) % 16) refuse(name, "memory aligned to 16 bytes", "other");
  return {array.data, array.shape[0], ld};
}

void* workspace(const Optional& object, size_t bytes) {
  if (bytes == 0) return nullptr;
  const DeviceArray array = object ? device_array("workspace", *object, true) : DeviceArray();
  const int64_t have = array.size * array.itemsize;
  if (have < int64_t(bytes)) refuse("workspace", "at least " + std::to_string(bytes) + " bytes", std::to_string(have));
  if (reinterpret_cast<uintptr_t>(array.data) % 16) refuse("workspace", "memory aligned to 16 bytes", "other");
  return array.data;
}

pymimic_precision precision_of(int code) {
  if (code < PYMIMIC_BF16 || code > PYMIMIC_FP32) throw py::value_error("precision: unknown code");
  return pymimic_precision(code);
}

pymimic_activation activation_of(int code) {
  if (code < PYMIMIC_RELU || code > PYMIMIC_GELU) throw py::value_error("activation: unknown code");
  return pymimic_activation(code);
}

pymimic_mask mask_of(const MaskTuple& t) {
  const auto& [threshold, seed, offset, row, unit] = t;
  if (threshold < 1 || threshold > 256 || row < 0 || unit < 0 || row % 16 || unit % 32)
    throw py::value_error("mask: expected keep in [1, 256] and an origin of multiples of (16, 32)");
  pymimic_mask mask = {threshold, 0, 0, nullptr, nullptr, row, unit};
  const auto take = [](const char* name, const py::object& value, int64_t* number, const int64_t** pointer) {
    if (py::isinstance<py::int_>(value)) {
      *number = int64_t(value.cast<uint64_t>());
    } else {
      *pointer = in_int64(name, value, {});
    }
  };
  take("seed", seed, &mask.seed, &mask.device_seed);
  take("offset", offset, &mask.offset, &mask.device_offset);
  return mask;
}

pymimic_parameter parameter_of(const char* name, const ParameterTuple& t, int precision,
                               const std::vector<int64_t>& shape) {
  const DeviceArray value = typed(name, std::get<0>(t), "<f4", shape, true);
  return parameter_of(name, t, precision, value);
}

pymimic_parameter parameter_of(const char* name, const ParameterTuple& t, int precision, const DeviceArray& value) {
  const auto& [_, slots, working, update, numbers] = t;
  const std::vector<int64_t>& shape = value.shape;
  pymimic_parameter p = {};
  p.update = update_of<float>(update);
  demand_slots(name, slots.size(), p.update);
  p.value = static_cast<float*>(value.data);
  for (size_t i = 0; i < slots.size(); ++i) p.slot[i] = out(name, slots[i], shape);
  if (working) {
    const OperandArray to = operand(name, *working, precision, shape.back(), true);
    if (to.rows != shape[0]) refuse(name, std::to_string(shape[0]) + " working rows", std::to_string(to.rows));
    p.working = to.data, p.ld = to.ld;
  }
  if (numbers) {
    const DeviceArray bytes = device_array(name, *numbers, false);
    const auto address = reinterpret_cast<uintptr_t>(bytes.data);
    if (bytes.size * bytes.itemsize != sizeof(p.update) || address % alignof(Update<float>))
      refuse(name, std::to_string(sizeof(p.update)) + " aligned bytes for a step's numbers", "others");
    p.device_update = static_cast<const Update<float>*>(bytes.data);
  }
  return p;
}

void bind_arrays(py::module_& m) {
  py::class_<CheckedArray>(m, "CheckedArray", py::module_local()).def(py::init<const py::object&, bool>());
}

}  // namespace mimic
