// pymimic._core: unpacks arrays, releases the GIL, calls the kernels.
#include <dlfcn.h>

#include "bindings/arguments.h"
#include "cpu/parallel.h"

namespace mimic {
namespace {

template <class T>
Linear<T> layer_of(const py::array& x, const py::array& weight, const Optional& bias, int activation,
                   const MaskTuple& mask, const py::array& result, bool write) {
  demand_axes("x", x, 2), demand_axes("weight", weight, 2);
  const int64_t B = x.shape(0), I = x.shape(1), O = weight.shape(0);
  demand_sizes("x, weight", {B, I, O});
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

const LinearKernels<float>& layer_kernels(int terms) {
  const LinearKernels<float>* const chosen = kernels_of_terms(terms).linear;
  if (!chosen) throw py::value_error("terms: expected an instruction set with tiles, or 0");
  return *chosen;
}

// `terms` is 0 for products of the arrays' own numbers.

void linear(const py::array& x, const py::array& weight, const Optional& bias, int activation, const MaskTuple& mask,
            int terms, const py::array& out) {
  if (terms) {
    const auto f = layer_of<float>(x, weight, bias, activation, mask, out, true);
    const auto run = layer_kernels(terms).forward;
    const Interruptible released;
    return run(f);
  }
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto f = layer_of<T>(x, weight, bias, activation, mask, out, true);
    const Interruptible released;
    kernels<T>().linear->forward(f);
  });
}

template <class T>
void linear_backward_with(void (*run)(const LinearBackward<T>&), const Linear<T>& l, const py::array& dout,
                          const Optional& da, const Optional& dx, const Optional& dweight, const Optional& dbias) {
  const LinearBackward<T> f = {l,
                               in<T>("dout", dout, l.B * l.O),
                               out<T>("da", da, l.B * l.O),
                               out<T>("dx", dx, l.B * l.I),
                               out<T>("dweight", dweight, l.O * l.I),
                               out<T>("dbias", dbias, l.O)};
  if (l.activation == Activation::gelu && !(f.da && l.bias))
    throw py::value_error("bias: expected it and da with gelu");
  if (!f.da && (l.activation != Activation::identity || l.mask.drops()))
    throw py::value_error("da: expected an array with an activation or dropout");
  const Interruptible released;
  run(f);
}

void linear_backward(const py::array& dout, const py::array& x, const py::array& weight, const Optional& bias,
                     const py::array& result, int activation, const MaskTuple& mask, int terms, const Optional& da,
                     const Optional& dx, const Optional& dweight, const Optional& dbias) {
  if (terms) {
    const auto l = layer_of<float>(x, weight, bias, activation, mask, result, false);
    return linear_backward_with<float>(layer_kernels(terms).backward, l, dout, da, dx, dweight, dbias);
  }
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const auto l = layer_of<T>(x, weight, bias, activation, mask, result, false);
    linear_backward_with<T>(kernels<T>().linear->backward, l, dout, da, dx, dweight, dbias);
  });
}

void dropout(const py::array& x, const py::array& result, const MaskTuple& mask) {
  if (x.ndim() < 2) throw py::value_error("x: expected at least 2 axes, got " + std::to_string(x.ndim()));
  const int64_t units = x.shape(x.ndim() - 1), rows = x.shape(x.ndim() - 2);
  const int64_t outer = x.size() == 0 ? 0 : x.size() / (rows * units);
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const T* from = in<T>("x", x, x.size());
    T* to = out<T>("out", result, x.size());
    if (outer == 0) return;
    const Interruptible released;
    kernels<T>().elementwise->dropout(from, to, outer, rows, units, mask_of(mask));
  });
}

void update(const py::array& param, const py::array& grad, const std::vector<py::array>& slots,
            const UpdateTuple& rule) {
  with_dtype(param, [&](auto zero) {
    using T = decltype(zero);
    const auto p = parameter_of<T>("param", param, slots, rule);
    const T* g = in<T>("grad", grad, param.size());
    const WithoutGil released;
    kernels<T>().elementwise->update(param.size(), g, p);
  });
}

double multiply_adds(const std::string& dtype, int64_t steps) {
  if (steps < 0 || steps > int64_t(1) << 40) throw py::value_error("steps: expected a number in [0, 2^40]");
  const Interruptible released;
  if (dtype == "float32") return kernels<float>().elementwise->multiply_adds(steps, 0.5f, 1.0f);
  if (dtype == "float64") return kernels<double>().elementwise->multiply_adds(steps, 0.5, 1.0);
  if (dtype == "bfloat16" && isa_in_use->bf16_multiply_adds) return isa_in_use->bf16_multiply_adds(steps);
  return 0;
}

double sum_all(const py::array& x) {
  double result = 0;
  with_dtype(x, [&](auto zero) {
    using T = decltype(zero);
    const T* values = in<T>("x", x, x.size());
    const Interruptible released;
    result = double(kernels<T>().elementwise->sum_all(x.size(), values));
  });
  return result;
}

std::vector<std::string> names(const std::vector<const Isa*>& isas) {
  std::vector<std::string> result;
  for (const Isa* isa : isas) result.emplace_back(isa->name);
  return result;
}

void set_isa(const std::string& name) {
  for (const Isa* isa : runnable_isas()) {
    if (name == isa->name) {
      isa_in_use = isa;
      return;
    }
  }
  throw py::value_error("isa: '" + name + "' is not among those compiled in that this machine can run");
}

void set_threads(int n) {
  if (n < 1 || n > kMostThreads)
    throw py::value_error("n: expected a number of threads in [1, " + std::to_string(kMostThreads) + "]");
  set_num_threads(n);
}

template <class F>
void find(void* library, const char* name, F& function) {
  function = reinterpret_cast<F>(dlsym(library, name));
  if (!function) throw py::value_error(std::string("path: expected a library of OpenMP, got one without ") + name);
}

// `path` is of a library that this process has loaded.
void run_on_openmp(const std::string& path) {
  // "" would be the program itself
  void* const library = path.empty() ? nullptr : dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (!library) throw py::value_error("path: expected a library that is loaded, got '" + path + "'");
  OpenMp openmp;
  find(library, "GOMP_parallel", openmp.parallel);
  find(library, "omp_get_thread_num", openmp.rank);
  find(library, "omp_get_num_threads", openmp.size);
  find(library, "omp_get_max_threads", openmp.most);
  run_on(openmp);
}

}  // namespace

const Isa* isa_in_use = nullptr;

}  // namespace mimic

PYBIND11_MODULE(_core, m) {
  using namespace mimic;
  m.doc() = "The compiled CPU kernels.";
  // Now, not at the first call: this runs Python, and gives up the interpreter's lock. A daemon thread that waits for
  // the lock in there when the interpreter ends would abort the process, see gil.h.
  py::detail::npy_api::get();
  const std::vector<const Isa*> runnable = runnable_isas();
  if (runnable.empty())
    throw py::import_error("pymimic._core was compiled for instruction sets that this machine lacks");
  isa_in_use = runnable.back();
  m.def("compiled_isas", [] { return names(compiled_isas()); });
  m.def("runnable_isas", [] { return names(runnable_isas()); });
  m.def("isa", [] { return std::string(isa_in_use->name); });
  m.def("set_isa", &set_isa);
  m.def("has_tiles", [] { return isa_in_use->bf16x3.linear != nullptr; });
  m.def("num_threads", &num_threads);
  m.def("set_num_threads", &set_threads);
  m.def("run_on_openmp", &run_on_openmp);
  bind_shallow(m);
  bind_predictor(m);
  m.def("linear", &linear);
  m.def("linear_backward", &linear_backward);
  m.def("dropout", &dropout);
  m.def("update", &update);
  m.def("multiply_adds", &multiply_adds);
  m.def("sum_all", &sum_all);
}
