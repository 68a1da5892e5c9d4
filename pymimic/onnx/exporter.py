"""A net as an ONNX model: plain operators, any number of rows, float32 in and out."""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from typing import Any, Literal, NamedTuple

import numpy as np

from .. import __version__, _check
from ..backends.interface import Activation, Array, quantised
from ..devices import to
from ..files import raw_bytes
from ..formats import demand_replaceable
from ..nets.student import Student
from ..targets import Path, expanded, replacing
from ..training.deepnet import DeepNet
from .packages import package

Precision = Literal["float32", "float16", "int8"]
PRECISIONS = ("float32", "float16", "int8")
OPSETS = {"float32": (9, 4), "float16": (9, 4), "int8": (13, 7)}  # opset and IR version: Erf came with 9, scales a row with 13
_MOST_BYTES = (1 << 31) - (1 << 20)  # of weights in the model's own file: protobuf ends at 2 GiB
_PAGE = 4096  # tensors in a data file begin at multiples of it, so that they can be mapped
_OURS = re.compile(rb"\x08[\x01-\x7f]\x12\x07pymimic")  # the first fields of a model: its IR version and its producer
_SMALL = 1024  # bytes of a constant that is never put into a data file
_FOLDED = 4  # largest |mean| in deviations that is folded into weights: larger ones would cancel there, and lose digits
_MOST_DOUBLINGS = 40  # of a scale that is folded: weights times others may leave float32's range


class _Layer(NamedTuple):
    """x -> f(x weight^T + bias), or with `across` x -> f(x weight + bias)."""

    weight: str
    bias: str
    activation: Activation
    across: bool = False


def export(student: Student | DeepNet, path: Path, precision: Precision = "float32") -> None:
    """Write a net as an ONNX model with input "x" (B, D) and output "y" (B, C), both float32, for any B.

    Its operators are Gemm, Relu, Tanh, Sigmoid, Erf, Add, Sub, Mul, Div, Cast (float16) and DequantizeLinear (int8), of opset 9, for int8
    13. Standardisation is in it: with float32 it is folded into the first weights where no mean is beyond 4 deviations, otherwise it is
    a Sub and a Mul. The metadata key "pymimic" holds `describe()` and the precision, as JSON. Weights of 2 GiB and more go to a file
    `NAME.TOKEN.data` beside the model, which later exports leave alone: copies of the model may name it. A runtime keeps h (B, H).

    Parameters
    ----------
    student : a `pymimic.Student` or `pymimic.DeepNet`, on any device
    path : the model's file, written atomically; its folder must exist
    precision : how weights are kept. Biases and all that is computed are float32. y differs from `predict` by at most 1e-5 of the largest
        |y| for

        - "float32": this net;
        - "float16": the net with weights rounded to float16, each by at most 2^-11 of itself or 2^-25;
        - "int8": the net with weights that have a scale a row of V, U and W, largest / 127, as `pymimic.Predictor` has them. That one
          takes x, z and h to 16 bits besides, for up to another 1e-3 of the largest |y|.

    Raises
    ------
    ImportError
        onnx is missing or too old; the message says what to install.
    TypeError
        Another kind of net.
    ValueError
        Weights that are not finite, or beyond float16's range.
    OSError
        The file cannot be written; what was there before is untouched.
    """
    onnx = package("onnx")
    if not isinstance(student, (Student, DeepNet)):
        raise TypeError(f"student: expected a pymimic.Student or a pymimic.DeepNet, got {type(student).__name__}")
    if not _check.one_of(precision, PRECISIONS):
        raise ValueError(f"precision: expected one of {', '.join(PRECISIONS)}, got {precision!r}")
    net, graph = student.as_it_is(), _Graph(onnx.helper, precision)
    _build(graph, net)
    _write(onnx, graph, net, expanded(path))


def demand_model_or_none(name: str, path: Path) -> None:
    """Demand that a model that is to be written takes the place of none, of another that `export` wrote, or of an empty file."""
    demand_replaceable(name, path, "an ONNX model that pymimic wrote", _is_ours)


def _is_ours(path: str) -> bool:
    with open(path, "rb") as file:
        return _OURS.match(file.read(32)) is not None


class _Graph:
    """Nodes and constants, while they are put together. What a node gives is named after its weight."""

    def __init__(self, helper: Any, precision: Precision) -> None:
        self._helper, self.precision = helper, precision
        self.opset, self.ir_version = OPSETS[precision]
        self.nodes: list[Any] = []
        self.constants: dict[str, Array] = {}

    def node(self, kind: str, output: str, *inputs: str, **attributes: Any) -> str:
        self.nodes.append(self._helper.make_node(kind, list(inputs), [output], **attributes))
        return output

    def constant(self, name: str, values: Any) -> str:
        self.constants[name] = np.asarray(values)
        return name

    def weight(self, name: str, matrix: Array, steps: Array | None) -> str:
        """A matrix in the precision of the model, which its nodes see in float32; `steps` are the scales that its rows have already."""
        _check.finite(name, matrix)
        if self.precision == "int8":
            values, scale = quantised(matrix, steps)
            stored = self.constant(f"{name}.int8", values.astype(np.int8))
            return self.node("DequantizeLinear", name, stored, self.constant(f"{name}.scale", scale), axis=0)
        if self.precision == "float16":
            with np.errstate(over="ignore"):
                values = matrix.astype(np.float16)
            if np.isinf(values).any():
                most, got = np.finfo(np.float16).max, f"'float16' with {np.abs(matrix).max():g} in {name}"
                raise ValueError(f"precision: expected 'float32' for weights beyond {most:g}, got {got}")
            stored = self.constant(f"{name}.float16", values)
            return self.node("Cast", name, stored, to=self._helper.np_dtype_to_tensor_dtype(np.dtype(np.float32)))
        return self.constant(name, matrix)


def _build(graph: _Graph, net: Student | DeepNet) -> None:
    """Put the net's nodes and constants into the graph."""
    layers, arrays = _layers(net), {name: to("cpu", array) for name, array in net.weights().items()}
    arrays.setdefault(layers[0].bias, np.zeros(len(arrays[layers[0].weight]), np.float32))  # V has no bias; opset 9's Gemm has one
    x, steps = "x", {} if net._rounding is None else net._rounding.steps
    if net.mean is not None and net.scale is not None:
        folded = _folded(layers[0], arrays, net.mean, net.scale) if graph.precision == "float32" else None
        if folded is None:
            x = graph.node("Sub", "centred", x, graph.constant("mean", net.mean))
            x = graph.node("Mul", "standardised", x, graph.constant("scale", net.scale))
        arrays |= folded or {}
    for weight, bias, activation, across in layers:
        _check.finite(bias, arrays[bias])
        matrix = graph.weight(weight, arrays[weight], steps.get(weight))
        a = graph.node("Gemm", f"{weight}.out", x, matrix, graph.constant(bias, arrays[bias]), transB=int(not across))
        x = _activated(graph, a, activation)
    graph.nodes[-1].output[0] = "y"


def _layers(net: Student | DeepNet) -> list[_Layer]:
    if isinstance(net, Student):
        bottleneck = [] if net.rank is None else [_Layer("V", "V.bias", "identity")]
        return [*bottleneck, _Layer("U", "b", net.activation), _Layer("W", "c", "identity", across=True)]
    names, activation = list(net.shapes), net.configuration()["activation"]
    layers = [_Layer(weight, bias, activation) for weight, bias in zip(names[::2], names[1::2])]
    return [*layers[:-1], layers[-1]._replace(activation="identity")]


def _folded(first: _Layer, arrays: dict[str, Array], mean: Array, scale: Array) -> dict[str, Array] | None:
    """The first layer's arrays, changed so that they take x instead of (x - mean) * scale; None where digits would be lost."""
    with np.errstate(divide="ignore"):  # a scale of 0 is not folded
        doublings = np.abs(np.log2(np.abs(scale)))
    if np.abs(mean * scale).max() > _FOLDED or doublings.max() > _MOST_DOUBLINGS:
        return None
    weight = arrays[first.weight] * scale
    bias = arrays[first.bias] - np.einsum("ij,j->i", weight, mean, dtype=np.float64)
    return {first.weight: weight, first.bias: bias.astype(np.float32)}


def _activated(graph: _Graph, a: str, activation: Activation) -> str:
    """f(a) by ONNX's operators; gelu is a / 2 * (1 + erf(a / sqrt(2)))."""
    if activation == "identity":
        return a
    if activation != "gelu":
        return graph.node(activation.capitalize(), f"{a}.{activation}", a)
    one, half, root = (graph.constant(name, np.float32(value)) for name, value in (("1", 1), ("1/2", 0.5), ("sqrt(2)", math.sqrt(2))))
    erf = graph.node("Erf", f"{a}.erf", graph.node("Div", f"{a}.scaled", a, root))
    return graph.node("Mul", f"{a}.gelu", graph.node("Mul", f"{a}.half", a, half), graph.node("Add", f"{a}.gate", erf, one))


def _write(onnx: Any, graph: _Graph, net: Student | DeepNet, path: str) -> None:
    """Check the model and write it, and first a file of its large constants where the model's own cannot hold them."""
    apart = [array for array in graph.constants.values() if array.nbytes >= _SMALL]
    apart = apart if sum(array.nbytes for array in apart) > _MOST_BYTES else []
    digest = hashlib.sha256()
    for array in apart:
        digest.update(raw_bytes(array))
    data = f"{os.path.basename(path)}.{digest.hexdigest()[:16]}.data"
    model = _model(onnx, graph, net, data if apart else None)
    onnx.checker.check_model(_with_weights_as_inputs(onnx, model) if apart else model, full_check=True)
    with replacing(path) as file:
        file.write(model.SerializeToString())
        if apart:
            with replacing(os.path.join(os.path.dirname(path), data)) as constants:
                for array in apart:
                    constants.write(raw_bytes(array))
                    constants.write(bytes(-array.nbytes % _PAGE))


def _model(onnx: Any, graph: _Graph, net: Student | DeepNet, data: str | None) -> Any:
    """The graph as a ModelProto, whose large constants are in the file `data`, if there is one."""
    helper, tensors, offset = onnx.helper, [], 0
    for name, array in graph.constants.items():
        tensor = onnx.TensorProto(name=name, dims=array.shape, data_type=helper.np_dtype_to_tensor_dtype(array.dtype))
        if data is None or array.nbytes < _SMALL:
            tensor.raw_data = bytes(raw_bytes(array))
        else:
            tensor.data_location = onnx.TensorProto.EXTERNAL
            for key, value in (("location", data), ("offset", offset), ("length", array.nbytes)):
                tensor.external_data.add(key=key, value=str(value))
            offset += -(-array.nbytes // _PAGE) * _PAGE
        tensors.append(tensor)
    x, y = (
        helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["B", size]) for name, size in (("x", net.inputs), ("y", net.outputs))
    )
    opset = helper.make_opsetid("", graph.opset)
    model = helper.make_model(
        helper.make_graph(graph.nodes, net.file_kind, [x], [y], tensors), ir_version=graph.ir_version, opset_imports=[opset],
        producer_name="pymimic", producer_version=__version__,
    )  # fmt: skip
    helper.set_model_props(model, {"pymimic": json.dumps({"precision": graph.precision, **net.describe()})})
    return model


def _with_weights_as_inputs(onnx: Any, model: Any) -> Any:
    """A model of the same nodes without data, for the checker, which takes none above 2 GiB from memory."""
    like = onnx.ModelProto()
    like.CopyFrom(model)
    del like.graph.initializer[:]
    like.graph.input.extend(onnx.helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer)
    return like
