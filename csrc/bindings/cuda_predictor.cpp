// _cuda.Predictor: a net's weights on a device, checked once, so that a call costs little.
#include "bindings/cuda_arrays.h"
#include "bindings/made.h"

namespace mimic {
namespace {

// An operand in the type of the weights and, for int8, the scale of each row.
using Matrix = std::tuple<py::object, Optional>;

class DevicePredictor {
 public:
  DevicePredictor(const std::string& weights, int activation, int64_t D, int64_t k, int64_t H, int64_t C,
                  const std::optional<Matrix>& V, const Matrix& U, const Matrix& W, const py::object& b,
                  const py::object& c, const Optional& mean, const Optional& scale) {
    p_.weights = served(weights), p_.activation = activation_of(activation);
    p_.D = D, p_.k = k, p_.H = H, p_.C = C;
    if (D < 1 || k < 1 || H < 1 || C < 1) throw py::value_error("D, k, H, C: expected at least 1");
    if (!V && k != D) throw py::value_error("k: expected D where there is no V");
    if (mean.has_value() != scale.has_value())
      throw py::value_error("scale: expected None if and only if mean is None");
    if (V) p_.V = matrix("V", *V, k, D, &p_.ldv, &p_.V_scale);
    p_.U = matrix("U", U, H, k, &p_.ldu, &p_.U_scale);
    p_.W = matrix("W", W, H, C, &p_.ldw, &p_.W_scale);
    p_.b = own("b", b, H), p_.c = own("c", c, C);
    p_.mean = own("mean", mean, D), p_.scale = own("scale", scale, D);
  }

  pymimic_plan plan(int64_t B) const {
    const pymimic_serving p = of(B);
    return pymimic_serve_plan(&p);
  }

  void predict(const py::object& x, const py::object& y, const Optional& scratch, uintptr_t stream) const {
    const DeviceArray rows = device_array("x", x, false);
    pymimic_serving p = of(rows.shape.empty() ? 0 : rows.shape[0]);
    p.x = in("x", x, {p.B, p.D});
    demand_on_device("weights", p.U);
    const size_t bytes = pymimic_serve_plan(&p).workspace;
    run("serve", pymimic_serve, &p, out("y", y, {p.B, p.C}), workspace(scratch, bytes), stream_of(stream));
  }

 private:
  static pymimic_served served(const std::string& name) {
    if (name == "bfloat16") return PYMIMIC_SERVE_BF16;
    if (name == "int8") return PYMIMIC_SERVE_INT8;
    if (name == "float32") return PYMIMIC_SERVE_FP32;
    throw py::value_error("weights: expected 'bfloat16', 'int8' or 'float32', got '" + name + "'");
  }

  pymimic_serving of(int64_t B) const {
    pymimic_serving p = p_;
    p.B = B;
    return p;
  }

  const float* own(const char* name, const Optional& array, int64_t size) {
    if (array) owned_.push_back(*array);
    return in(name, array, {size});
  }

  const void* matrix(const char* name, const Matrix& m, int64_t rows, int64_t columns, int64_t* ld,
                     const float** scale) {
    const auto& [object, scales] = m;
    const int64_t itemsize = p_.weights == PYMIMIC_SERVE_INT8 ? 1 : p_.weights == PYMIMIC_SERVE_BF16 ? 2 : 4;
    const DeviceArray array = device_array(name, object, false);
    if (array.shape.size() != 2 || array.shape[0] != rows || array.itemsize != itemsize || array.shape[1] % 16 ||
        array.shape[1] < columns || reinterpret_cast<uintptr_t>(array.data) % 16)
      throw py::value_error(std::string(name) + ": expected (" + std::to_string(rows) +
                            ", ld) aligned to 16 bytes, ld a multiple of 16 of at least " + std::to_string(columns) +
                            ", in the type of the weights");
    if (scales.has_value() != (p_.weights == PYMIMIC_SERVE_INT8))
      throw py::value_error(std::string(name) + ": expected scales with int8 alone");
    owned_.push_back(object);
    *ld = array.shape[1];
    *scale = own(name, scales, rows);
    return array.data;
  }

  std::vector<py::object> owned_;
  pymimic_serving p_{};
};

}  // namespace

void bind_predictor(py::module_& m) {
  py::class_<DevicePredictor>(m, "Predictor", py::module_local())
      .def(py::init<const std::string&, int, int64_t, int64_t, int64_t, int64_t, const std::optional<Matrix>&,
                    const Matrix&, const Matrix&, const py::object&, const py::object&, const Optional&,
                    const Optional&>())
      .def("plan", [](const py::object& self, int64_t B) { return made<DevicePredictor>(self).plan(B); })
      .def("predict", [](const py::object& self, const py::object& x, const py::object& y, const Optional& scratch,
                         uintptr_t stream) { made<DevicePredictor>(self).predict(x, y, scratch, stream); });
}

}  // namespace mimic
