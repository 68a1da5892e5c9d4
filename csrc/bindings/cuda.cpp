// pymimic._cuda: unpacks device arrays and calls the launchers of kernels/launch.h on the caller's stream. Allocates
// nothing and synchronises nothing; imports where there is no driver.
#include "bindings/cuda_arrays.h"
#include "bindings/made.h"

namespace {

using namespace mimic;

// precision, activation, splits, k, C, mask
using ProblemTuple = std::tuple<int, int, int, int64_t, int64_t, MaskTuple>;

pymimic_shallow sizes_of(int precision, int64_t B, int64_t k, int64_t H, int64_t C, int splits) {
  pymimic_shallow p = {};
  p.B = B, p.k = k, p.H = H, p.C = C, p.precision = precision_of(precision), p.splits = splits;
  p.ldz = p.ldu = (k + 15) / 16 * 16, p.ldw = (C + 15) / 16 * 16;
  return p;
}

pymimic_shallow shallow(const ProblemTuple& problem, const py::object& z, const py::object& U, const py::object& b,
                        const py::object& W) {
  const auto& [precision, activation, splits, k, C, mask] = problem;
  precision_of(precision);
  const OperandArray Z = operand("z", z, precision, k, false), K = operand("U", U, precision, k, false),
                     V = operand("W", W, precision, C, false);
  if (V.rows != K.rows) throw py::value_error("W: expected as many rows as U has");
  pymimic_shallow p = sizes_of(precision, Z.rows, k, K.rows, C, splits);
  p.activation = activation_of(activation);
  p.mask = mask_of(mask);
  p.z = Z.data, p.ldz = Z.ld;
  p.U = K.data, p.ldu = K.ld;
  p.W = V.data, p.ldw = V.ld;
  p.b = in("b", b, {p.H});
  return p;
}

OperandArray gradient(const pymimic_shallow& p, const py::object& dy) {
  const OperandArray g = operand("dy", dy, p.precision, p.C, false);
  if (g.rows != p.B) throw py::value_error("dy: expected as many rows as z has");
  return g;
}

void shallow_forward(const ProblemTuple& problem, const py::object& z, const py::object& U, const py::object& b,
                     const py::object& W, const py::object& c, const py::object& y, const Optional& scratch,
                     uintptr_t stream) {
  const pymimic_shallow p = shallow(problem, z, U, b, W);
  const size_t bytes = pymimic_shallow_forward_plan(&p).workspace;
  run("shallow_forward", pymimic_shallow_forward, &p, in("c", c, {p.C}), out("y", y, {p.B, p.C}),
      workspace(scratch, bytes), stream_of(stream));
}

void shallow_backward_rows(const ProblemTuple& problem, const py::object& z, const py::object& U, const py::object& b,
                           const py::object& W, const py::object& dy, const py::object& dz, const Optional& scratch,
                           uintptr_t stream) {
  const pymimic_shallow p = shallow(problem, z, U, b, W);
  const OperandArray g = gradient(p, dy);
  const size_t bytes = pymimic_shallow_backward_rows_plan(&p).workspace;
  run("shallow_backward_rows", pymimic_shallow_backward_rows, &p, static_cast<const void*>(g.data), g.ld,
      out("dz", dz, {p.B, p.k}), workspace(scratch, bytes), stream_of(stream));
}

void shallow_backward_units(const ProblemTuple& problem, const py::object& z, const py::object& U, const py::object& b,
                            const py::object& W, const py::object& dy, const Optional& dU, const Optional& db,
                            const Optional& dW, uintptr_t stream) {
  const pymimic_shallow p = shallow(problem, z, U, b, W);
  const OperandArray g = gradient(p, dy);
  run("shallow_backward_units", pymimic_shallow_backward_units, &p, static_cast<const void*>(g.data), g.ld,
      out("dU", dU, {p.H, p.k}), out("db", db, {p.H}), out("dW", dW, {p.H, p.C}), stream_of(stream));
}

void shallow_backward_step(const ProblemTuple& problem, const py::object& z, const py::object& U, const py::object& b,
                           const py::object& W, const py::object& dy, const ParameterTuple& to_U,
                           const ParameterTuple& to_b, const ParameterTuple& to_W, uintptr_t stream) {
  const pymimic_shallow p = shallow(problem, z, U, b, W);
  const OperandArray g = gradient(p, dy);
  const int precision = std::get<0>(problem);
  const pymimic_parameter u = parameter_of("U", to_U, precision, {p.H, p.k});
  const pymimic_parameter bias = parameter_of("b", to_b, precision, {p.H});
  const pymimic_parameter w = parameter_of("W", to_W, precision, {p.H, p.C});
  const bool reads_what_it_writes = u.working == p.U || w.working == p.W || bias.value == p.b;
  if (reads_what_it_writes && !pymimic_shallow_backward_units_plan(&p, 1, 1).in_place)
    throw py::value_error("U: expected buffers apart from those that are read, as this shape is not updated in place");
  run("shallow_backward_step", pymimic_shallow_backward_step, &p, static_cast<const void*>(g.data), g.ld, &u, &bias, &w,
      stream_of(stream));
}

template <pymimic_plan (*plan)(const pymimic_shallow*)>
pymimic_plan plan_of(int precision, int64_t B, int64_t k, int64_t H, int64_t C, int splits) {
  const pymimic_shallow p = sizes_of(precision, B, k, H, C, splits);
  return plan(&p);
}

int forward_splits(int precision, int64_t k, int64_t H, int64_t C) {
  const pymimic_shallow p = sizes_of(precision, 1, k, H, C, 0);
  return pymimic_shallow_forward_splits(&p);
}

pymimic_plan backward_units_plan(int precision, int64_t B, int64_t k, int64_t H, int64_t C, bool dU, bool dW) {
  const pymimic_shallow p = sizes_of(precision, B, k, H, C, 0);
  return pymimic_shallow_backward_units_plan(&p, dU, dW);
}

std::vector<std::string> devices() {
  std::vector<std::string> lines;
  demand("devices", list_devices(&lines));
  return lines;
}

// Of each kernel that this thread launched since the last call: its name, ptxVersion, binaryVersion and numRegs.
std::vector<std::tuple<std::string, int, int, int>> recent_kernels() {
  const void* kernels[PYMIMIC_RECENT_KERNELS];
  std::vector<std::tuple<std::string, int, int, int>> found;
  for (int i = 0, count = pymimic_recent_kernels(kernels); i < count; ++i) {
    KernelReport report;
    demand("recent_kernels", describe_kernel(kernels[i], &report));
    found.emplace_back(report.name, report.ptx_version, report.binary_version, report.registers);
  }
  return found;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "The CUDA kernels. Arrays are taken by __cuda_array_interface__; its `stream` is the caller's business.";
  m.attr("MAX_K") = PYMIMIC_MAX_K;
  m.attr("MAX_C") = PYMIMIC_MAX_C;
  m.def("devices", &devices);
  m.def("recent_kernels", &recent_kernels);
  py::class_<pymimic_plan>(m, "Plan", py::module_local())
      .def_property_readonly("kernel", [](const py::object& self) { return made<pymimic_plan>(self).kernel; })
      .def_readonly("row_block", &pymimic_plan::row_block)
      .def_readonly("slab", &pymimic_plan::slab)
      .def_readonly("splits", &pymimic_plan::splits)
      .def_readonly("column_chunks", &pymimic_plan::column_chunks)
      .def_property_readonly("in_place", [](const pymimic_plan& plan) { return plan.in_place != 0; })
      .def_readonly("workspace", &pymimic_plan::workspace);
  m.def("shallow_forward", &shallow_forward);
  m.def("shallow_forward_plan", &plan_of<pymimic_shallow_forward_plan>);
  m.def("shallow_forward_splits", &forward_splits);
  m.def("shallow_backward_rows", &shallow_backward_rows);
  m.def("shallow_backward_rows_plan", &plan_of<pymimic_shallow_backward_rows_plan>);
  m.def("shallow_backward_units", &shallow_backward_units);
  m.def("shallow_backward_step", &shallow_backward_step);
  m.def("shallow_backward_units_plan", &backward_units_plan);
  bind_arrays(m);
  bind_layers(m);
  bind_predictor(m);
}
