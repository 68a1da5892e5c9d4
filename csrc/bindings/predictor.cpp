// _core.Predictor: a net's weights, checked once, so that a call costs next to nothing.
#include "bindings/arguments.h"
#include "bindings/made.h"

namespace mimic {
namespace {

// values, and for int8 scale and total.
using Matrix = std::vector<py::array>;

class Predictor {
 public:
  Predictor(const std::string& storage, int64_t D, int64_t k, int64_t H, int64_t C, int64_t slab, int activation,
            const std::optional<Matrix>& V, const Matrix& U, const Matrix& W, const py::array& b, const py::array& c,
            const Optional& mean, const Optional& scale) {
    if (D < 1 || k < 1 || H < 1 || C < 1) throw py::value_error("D, k, H, C: expected at least 1");
    demand_sizes("D, k", {D, k}), demand_sizes("k, H", {k, H}), demand_sizes("H, C", {H, C});
    if (slab < 32 || slab % 32 || slab > kMostServedUnits)
      throw py::value_error("slab: expected a multiple of 32, at most " + std::to_string(kMostServedUnits));
    if (activation < 0 || activation > int(Activation::gelu)) throw py::value_error("activation: unknown code");
    if (!V && k != D) throw py::value_error("k: expected D where there is no V");
    if (mean.has_value() != scale.has_value())
      throw py::value_error("scale: expected None if and only if mean is None");
    f_.storage = storage_of(storage);
#ifdef MIMIC_X86
    f_.vnni = __builtin_cpu_supports("avx512vnni");
#endif
    f_.D = D, f_.k = k, f_.H = H, f_.C = C, f_.slab = slab, f_.activation = Activation(activation);
    if (V) f_.V = panels("V", *V, k, D);
    f_.U = panels("U", U, H, k);
    f_.W = rows("W", W, H, C);
    f_.b = own<float>("b", b, H), f_.c = own<float>("c", c, C);
    if (mean) f_.mean = own<float>("mean", *mean, D), f_.scale = own<float>("scale", *scale, D);
  }

  py::array_t<float> predict(const py::array& x) const {
    if (x.ndim() != 2 || x.shape(1) != f_.D)
      throw py::value_error("x: expected shape (B, " + std::to_string(f_.D) + ")");
    demand_sizes("x, U", {x.shape(0), f_.H, f_.k}), demand_sizes("x, W", {x.shape(0), f_.H, f_.C});
    Serving f = f_;
    f.B = x.shape(0);
    f.x = in<float>("x", x, f.B * f.D);
    py::array_t<float> y({f.B, f.C});
    f.y = y.mutable_data();
    const Interruptible released;
    isa_in_use->serve(f);
    return y;
  }

 private:
  template <class T>
  const T* own(const char* name, const py::array& array, int64_t size) {
    owned_.push_back(array);
    return in<T>(name, array, size);
  }

  static Storage storage_of(const std::string& name) {
    if (name == "float32") return Storage::float32;
    if (name == "panels") return Storage::panels;
    if (name == "bfloat16") return Storage::bfloat16;
    if (name == "int8") return Storage::int8;
    throw py::value_error("storage: unknown");
  }

  static int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

  StoredMatrix panels(const char* name, const Matrix& m, int64_t n, int64_t columns) {
    expect_arrays(name, m);
    const int64_t padded = rounded_up(n, 32);
    switch (f_.storage) {
      case Storage::float32: return {own<float>(name, m[0], n * columns), nullptr, nullptr};
      case Storage::panels: return {own<float>(name, m[0], padded * columns), nullptr, nullptr};
      case Storage::bfloat16: return {own<uint32_t>(name, m[0], padded / 2 * columns), nullptr, nullptr};
      default:
        return {own<int8_t>(name, m[0], padded * rounded_up(columns, 4)), own<float>(name, m[1], padded),
                own<int32_t>(name, m[2], padded)};
    }
  }

  StoredMatrix rows(const char* name, const Matrix& m, int64_t n, int64_t columns) {
    expect_arrays(name, m);
    const int64_t padded = rounded_up(columns, 16);
    switch (f_.storage) {
      case Storage::float32: return {own<float>(name, m[0], n * columns), nullptr, nullptr};
      case Storage::panels: return {own<float>(name, m[0], n * padded), nullptr, nullptr};
      case Storage::bfloat16: return {own<uint32_t>(name, m[0], (n + 1) / 2 * padded), nullptr, nullptr};
      default:
        return {own<int8_t>(name, m[0], rounded_up(n, 4) * padded), own<float>(name, m[1], rounded_up(n, 32)),
                own<int32_t>(name, m[2], (n + f_.slab - 1) / f_.slab * padded)};
    }
  }

  void expect_arrays(const char* name, const Matrix& m) const {
    const size_t want = f_.storage == Storage::int8 ? 3 : 1;
    if (m.size() != want) throw py::value_error(std::string(name) + ": expected " + std::to_string(want) + " arrays");
  }

  std::vector<py::array> owned_;
  Serving f_{};
};

}  // namespace

void bind_predictor(py::module_& m) {
  py::class_<Predictor>(m, "Predictor")
      .def(py::init<const std::string&, int64_t, int64_t, int64_t, int64_t, int64_t, int, const std::optional<Matrix>&,
                    const Matrix&, const Matrix&, const py::array&, const py::array&, const Optional&,
                    const Optional&>())
      .def("predict", [](const py::object& self, const py::array& x) { return made<Predictor>(self).predict(x); });
}

}  // namespace mimic
