// The binding of losses, of what is around products by cuBLAS, and of the products themselves.
#include "bindings/blas.h"
#include "bindings/cuda_arrays.h"

namespace mimic {
namespace {

// To be read.
struct Matrix {
  const float* data;
  int64_t rows, columns;
};
Matrix matrix(const char* name, const py::object& object) {
  const DeviceArray array = float_array(name, object, false);
  if (array.shape.size() != 2)
    throw py::value_error(std::string(name) + ": expected two axes, got " + std::to_string(array.shape.size()));
  return {static_cast<const float*>(array.data), array.shape[0], array.shape[1]};
}

// An operand to write, with the rows and ld of another one.
OperandArray operand_like(const char* name, const py::object& array, int precision, const OperandArray& like) {
  const OperandArray o = operand(name, array, precision, 0, true);
  if (o.rows != like.rows || o.ld != like.ld) {
    throw py::value_error(std::string(name) + ": expected shape (" + std::to_string(like.rows) + ", " +
                          std::to_string(like.ld) + "), got (" + std::to_string(o.rows) + ", " + std::to_string(o.ld) +
                          ")");
  }
  return o;
}

void linear_dropout(const py::object& product, const Optional& bias, const py::object& result, int activation,
                    const MaskTuple& mask, uintptr_t stream) {
  const auto [data, rows, units] = matrix("product", product);
  run("linear_dropout", pymimic_linear_dropout, data, in("bias", bias, {units}), out("out", result, {rows, units}),
      rows, units, activation_of(activation), mask_of(mask), stream_of(stream));
}

void linear_dropout_backward(const py::object& dout, const py::object& result, const Optional& bias,
                             const py::object& da, const Optional& dbias, int activation, const MaskTuple& mask,
                             const Optional& scratch, uintptr_t stream) {
  const auto [data, rows, units] = matrix("dout", dout);
  const size_t bytes = pymimic_linear_dropout_backward_workspace(rows, units);
  run("linear_dropout_backward", pymimic_linear_dropout_backward, data, in("out", result, {rows, units}),
      in("bias", bias, {units}), out("da", da, {rows, units}), out("dbias", dbias, {units}), rows, units,
      activation_of(activation), mask_of(mask), workspace(scratch, bytes), stream_of(stream));
}

// Arrays (B, ld), whose first columns are the units of b.
pymimic_hidden hidden(int precision, int activation, const MaskTuple& mask, const Optional& a, const py::object& b,
                      const Optional& saved, const OperandArray& like) {
  pymimic_hidden p = {};
  p.B = like.rows, p.ld = like.ld, p.precision = precision_of(precision), p.activation = activation_of(activation);
  p.mask = mask_of(mask);
  const DeviceArray bias = device_array("b", b, false);
  p.units = bias.size, p.b = in("b", b, {bias.size});
  if (a) p.a = in("a", a, {p.B, p.ld});
  if (!saved) return p;
  p.saved_precision = device_array("saved", *saved, true).itemsize == 2 ? PYMIMIC_BF16 : PYMIMIC_FP32;
  p.saved = operand_like("saved", *saved, p.saved_precision, like).data;
  return p;
}

void hidden_forward(int precision, int activation, const MaskTuple& mask, const py::object& a, const py::object& b,
                    const Optional& saved, const Optional& h, uintptr_t stream) {
  const OperandArray product = operand("a", a, PYMIMIC_FP32, 0, false);
  const pymimic_hidden p = hidden(precision, activation, mask, a, b, saved, product);
  run("hidden_forward", pymimic_hidden_forward, &p, h ? operand_like("h", *h, precision, product).data : nullptr,
      stream_of(stream));
}

void hidden_backward(int precision, int activation, const MaskTuple& mask, const Optional& a, const py::object& b,
                     const Optional& saved, const py::object& dh, const Optional& h, const py::object& da,
                     const Optional& db, const Optional& scratch, uintptr_t stream) {
  const OperandArray gradient = operand("dh", dh, PYMIMIC_FP32, 0, false);
  const pymimic_hidden p = hidden(precision, activation, mask, a, b, saved, gradient);
  if (!p.a && !p.saved) throw py::value_error("a: expected an array where nothing was kept, got None");
  const size_t bytes = pymimic_hidden_backward_workspace(p.B, p.units);
  run("hidden_backward", pymimic_hidden_backward, &p, static_cast<const float*>(gradient.data),
      h ? operand_like("h", *h, precision, gradient).data : nullptr, operand_like("da", da, precision, gradient).data,
      out("db", db, {p.units}), workspace(scratch, bytes), stream_of(stream));
}

void column_sums(const py::object& a, const py::object& sums, const Optional& scratch, uintptr_t stream) {
  const auto [data, rows, columns] = matrix("a", a);
  const size_t bytes = pymimic_column_sums_workspace(rows, columns);
  run("column_sums", pymimic_column_sums, data, out("sums", sums, {columns}), rows, columns, workspace(scratch, bytes),
      stream_of(stream));
}

void dropout(const py::object& x, const py::object& result, const MaskTuple& mask, uintptr_t stream) {
  const DeviceArray array = device_array("x", x, false);
  const size_t axes = array.shape.size();
  if (axes < 2) throw py::value_error("x: expected at least two axes, got " + std::to_string(axes));
  const int64_t rows = array.shape[axes - 2], units = array.shape[axes - 1];
  const int64_t outer = array.size == 0 ? 0 : array.size / (rows * units);
  run("dropout", pymimic_dropout_f32, in("x", x, array.shape), out("out", result, array.shape), outer, rows, units,
      mask_of(mask), stream_of(stream));
}

void mimic_loss(const py::object& y, const py::object& t, const Optional& weights, const py::object& loss,
                const py::object& dy, const Optional& scratch, uintptr_t stream) {
  const auto [data, B, C] = matrix("y", y);
  const size_t bytes = pymimic_loss_workspace(B, C);
  run("mimic_loss", pymimic_mimic_loss, data, in("t", t, {B, C}), in("weights", weights, {B}), B, C,
      out("loss", loss, {}), out("dy", dy, {B, C}), workspace(scratch, bytes), stream_of(stream));
}

void cross_entropy(const py::object& y, const py::object& labels, const Optional& weights, const py::object& loss,
                   const py::object& dy, const Optional& scratch, uintptr_t stream) {
  const auto [data, B, C] = matrix("y", y);
  const size_t bytes = pymimic_loss_workspace(B, C);
  run("cross_entropy", pymimic_cross_entropy, data, in_int64("labels", labels, {B}), in("weights", weights, {B}), B, C,
      out("loss", loss, {}), out("dy", dy, {B, C}), workspace(scratch, bytes), stream_of(stream));
}

void distillation_loss(const py::object& y, const py::object& t, float temperature, const Optional& weights,
                       const py::object& loss, const py::object& dy, const Optional& scratch, uintptr_t stream) {
  const auto [data, B, C] = matrix("y", y);
  const size_t bytes = pymimic_loss_workspace(B, C);
  run("distillation_loss", pymimic_distillation_loss, data, in("t", t, {B, C}), temperature,
      in("weights", weights, {B}), B, C, out("loss", loss, {}), out("dy", dy, {B, C}), workspace(scratch, bytes),
      stream_of(stream));
}

void bottleneck(const py::object& x, const py::object& V, const py::object& z, const Optional& scratch,
                uintptr_t stream) {
  const auto [data, B, D] = matrix("x", x);
  const auto [weights, k, columns] = matrix("V", V);
  if (columns != D)
    throw py::value_error("V: expected " + std::to_string(D) + " columns, as x has, got " + std::to_string(columns));
  const size_t bytes = pymimic_bottleneck_workspace(B, D, k);
  run("bottleneck", pymimic_bottleneck, data, weights, B, D, k, out("z", z, {B, k}), workspace(scratch, bytes),
      stream_of(stream));
}

// `columns` of `from`, which may be a plain array, as an operand.
void pack(const py::object& from, int from_precision, const py::object& to, int to_precision, uintptr_t stream) {
  const DeviceArray source = device_array("from", from, false);
  if (source.shape.size() != 2) throw py::value_error("from: expected two axes");
  const int64_t itemsize = precision_of(from_precision) <= PYMIMIC_FP16 ? 2 : 4;
  if (source.itemsize != itemsize) throw py::value_error("from: expected elements of its precision's size");
  const int64_t rows = source.shape[0], columns = source.shape[1];
  precision_of(to_precision);
  const OperandArray target = operand("to", to, to_precision, columns, true);
  if (target.rows != rows) throw py::value_error("to: expected as many rows as `from` has");
  run("pack", pymimic_pack, static_cast<const void*>(source.data), precision_of(from_precision), columns, target.data,
      precision_of(to_precision), target.ld, rows, columns, stream_of(stream));
}

// Pointer and elements from row to row, as the caller has checked them; column-major, as cuBLAS has it.
using MatrixTuple = std::tuple<uintptr_t, int64_t>;
void multiply_matrices(uintptr_t handle, std::tuple<int64_t, int64_t, int64_t> sizes, std::tuple<bool, bool> transposed,
                       MatrixTuple a, MatrixTuple b, MatrixTuple c, bool halves, bool add, int compute,
                       uintptr_t stream) {
  const auto [m, n, k] = sizes;
  for (const int64_t size : {m, n, k, std::get<1>(a), std::get<1>(b), std::get<1>(c)}) {
    if (size < 1 || size > INT32_MAX)
      throw py::value_error("multiply: expected sizes in [1, 2^31), got " + std::to_string(size));
  }
  Product p = {};
  p.transpose_a = std::get<0>(transposed), p.transpose_b = std::get<1>(transposed);
  p.m = m, p.n = n, p.k = k;
  p.a = reinterpret_cast<const void*>(std::get<0>(a)), p.lda = std::get<1>(a);
  p.b = reinterpret_cast<const void*>(std::get<0>(b)), p.ldb = std::get<1>(b);
  p.c = reinterpret_cast<float*>(std::get<0>(c)), p.ldc = std::get<1>(c);
  p.halves = halves, p.add = add, p.compute = compute;
  std::string wrong;
  {
    const WithoutGil released;
    wrong = multiply(p, handle, stream_of(stream));
  }
  if (!wrong.empty()) raise("cuBLAS: " + wrong + ": free device memory, or take fewer rows at once, if that is short");
}

// The bytes for the device memory from which a parameter's numbers are read.
py::bytes update_numbers(const UpdateTuple& update) {
  const Update<float> u = update_of<float>(update);
  return py::bytes(reinterpret_cast<const char*>(&u), sizeof(u));
}

void optimizer_update(const ParameterTuple& parameter, int precision, const py::object& grad, uintptr_t stream) {
  const DeviceArray value = float_array("param", std::get<0>(parameter), true);
  const bool is_matrix = value.shape.size() == 2;
  const int64_t rows = is_matrix ? value.shape[0] : 1, columns = is_matrix ? value.shape[1] : value.size;
  const pymimic_parameter p = parameter_of("param", parameter, precision, value);
  run("optimizer_update", pymimic_optimizer_update, &p, precision_of(precision), in("grad", grad, value.shape), rows,
      columns, stream_of(stream));
}

}  // namespace

void bind_layers(py::module_& m) {
  m.def("bottleneck", &bottleneck);
  m.def("bottleneck_workspace", &pymimic_bottleneck_workspace);
  m.def("linear_dropout", &linear_dropout);
  m.def("linear_dropout_backward", &linear_dropout_backward);
  m.def("linear_dropout_backward_workspace", &pymimic_linear_dropout_backward_workspace);
  m.def("hidden_forward", &hidden_forward);
  m.def("hidden_backward", &hidden_backward);
  m.def("hidden_backward_workspace", &pymimic_hidden_backward_workspace);
  m.def("column_sums", &column_sums);
  m.def("column_sums_workspace", &pymimic_column_sums_workspace);
  m.def("dropout", &dropout);
  m.def("mimic_loss", &mimic_loss);
  m.def("cross_entropy", &cross_entropy);
  m.def("distillation_loss", &distillation_loss);
  m.def("loss_workspace", &pymimic_loss_workspace);
  m.def("multiply", &multiply_matrices);
  m.def("pack", &pack);
  m.def("optimizer_update", &optimizer_update);
  m.def("update_numbers", &update_numbers);
}

}  // namespace mimic
