"""An ONNX model as a teacher: rows in batches, as its input wants them."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.classes import distinct
from ..data.classifier import demand_probabilities, log_probabilities
from ..data.teacher import FunctionTeacher, Teacher
from ..foreign import demand_plain
from ..targets import expanded, naming
from ..threads import get_num_threads
from .packages import package

_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}
_INTEGERS = {"tensor(uint8)": np.uint8, "tensor(int32)": np.int32, "tensor(int64)": np.int64}
_NUMBERS: dict[str, Any] = _FLOATS | _INTEGERS


def teacher(
    model: Any, output: str | None = None, *, probabilities: bool = False, floor: float = 0.01, classes: Sequence[Any] | None = None,
    batch_size: int = 1024, description: str | None = None,
) -> Teacher:  # fmt: skip
    """A teacher from any ONNX model with one input of numbers and an output (B, C), for `TransferSet.create`, `label`, `Ensemble` ...

    Rows x (B, D) become what the input wants: float32, float64, float16, uint8, int32 or int64, and of its shape, such as
    (B, 1, 28, 28), if that has D values. For integers x holds whole numbers, such as bytes or tokens.
    Where the input has a fixed number of rows, the last batch is filled up with copies of its last row.
    The teacher pickles if it was made from a path.

    Parameters
    ----------
    model : path of an .onnx file, which runs on the CPU with `get_num_threads()` threads, or an `onnxruntime.InferenceSession`
    output : name of the output that holds the logits; None where there is one
    probabilities : the output holds probabilities: the logits are log(p + floor), less their mean over each row, as of `from_sklearn`
    floor : above 0, added to each probability
    classes : the labels that the columns stand for, where `Ensemble` and `out_of_fold` shall compare them
    batch_size : rows that the model gets at a time, where its input has no fixed number
    description : of a session that does not know its file; others are described by the sha256 of the model's files

    Raises
    ------
    ImportError
        onnxruntime or onnx is missing or too old; the message says what to install.
    TypeError, ValueError
        The file is no ONNX model; several inputs, or one that does not hold numbers in rows; an unknown output, one that is no tensor of
        floats (B, C), or several and none named. When it labels: x has another D, or fractions for an input of
        integers; rows that are no probabilities; whatever the model says is wrong.
    OSError
        The file cannot be read.
    """
    floor = _check.number("floor", floor, above=0)
    columns = None if classes is None else distinct(classes)
    if description is not None and not isinstance(description, str):
        raise TypeError(f"description: expected a str or None, got {type(description).__name__}")
    batch_size = _check.integer("batch_size", batch_size, 1, 1 << 31)
    asked = _Model(model, output, floor if _check.flag("probabilities", probabilities) else None, batch_size, description)
    return FunctionTeacher(asked, asked.name, asked.described, columns)


class _Model:
    """Logits of rows, by a session; see `teacher`.

    Parameters
    ----------
    floor : of probabilities, or None for logits
    """

    def __init__(self, model: Any, output: str | None, floor: float | None, batch_size: int, description: str | None) -> None:
        runtime = package("onnxruntime")
        self.path = None if isinstance(model, runtime.InferenceSession) else expanded(model, "model")
        self.session = model if self.path is None else _opened(runtime, self.path)
        self.floor, self.batch_size = floor, batch_size
        self.input, self.dtype, self.shape = _input_of(self.session)
        self.output = _output_of(self.session, output)
        self.name = description or os.path.basename(self.path or getattr(self.session, "_model_path", None) or "model")
        self.described = {"kind": "onnx", "output": self.output, "floor": floor, **_digest(self.session, self.path, description)}

    def __getstate__(self) -> dict[str, Any]:
        if self.path is None:
            raise TypeError("model: expected the path of a file, for a teacher that is pickled, got a session")
        return {name: value for name, value in self.__dict__.items() if name != "session"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        assert self.path is not None
        self.session = _opened(package("onnxruntime"), self.path)
        if "sha256" in self.described and _digest(self.session, self.path, None)["sha256"] != self.described["sha256"]:
            raise ValueError(f"model: expected {self.path!r} as it was when the teacher was pickled, got another model")

    def __call__(self, x: Array) -> Array:
        x = _rows(x)
        parts = [self._checked(self._run(batch)[: len(rows)], len(rows)) for rows, batch in self._batches(x)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _batches(self, x: Array) -> Iterator[tuple[Array, Array]]:
        """Rows, and the same as the model takes them."""
        D, (fixed, *axes) = x.shape[1], self.shape or [None, x.shape[1]]
        known, step = math.prod(size or 1 for size in axes), fixed or self.batch_size
        if D % known or (None not in axes and known != D):
            wanted = _check.shape_text(["B", *("any" if size is None else size for size in axes)])
            raise ValueError(f"x: expected rows for an input of shape {wanted}, as {self.name!r} has, got rows of {D} values")
        for start in range(0, max(1, len(x)), step):
            rows = filled = x[start : start + step]
            if fixed is not None and len(rows) < fixed:
                filled = np.zeros((fixed, D), x.dtype)
                filled[: len(rows)], filled[len(rows) :] = rows, rows[-1] if len(rows) else 0
            with np.errstate(over="ignore", invalid="ignore"):  # the model has the last word on what becomes infinite
                narrow = filled.astype(self.dtype, copy=False)
            if narrow.dtype.kind in "iu" and not np.array_equal(narrow, filled):
                odd = filled[narrow != filled][0]
                raise ValueError(f"x: expected whole numbers that {narrow.dtype} holds, as {self.name!r} takes, got {odd}")
            yield rows, narrow.reshape(len(filled), *(size or D // known for size in axes))

    def _run(self, batch: Array) -> Any:
        try:
            return self.session.run([self.output], {self.input: batch})[0]
        except Exception as error:  # ONNX Runtime's own kinds
            raise ValueError(f"model: expected {self.name!r} to answer rows of shape {batch.shape}, got {_first_line(error)}") from error

    def _checked(self, y: Any, rows: int) -> Array:
        """Demand (B, C), and make logits of probabilities."""
        if not isinstance(y, np.ndarray) or y.ndim != 2 or len(y) != rows:
            raise ValueError(
                f"output: expected shape (B, C) of {self.output!r} for {rows} rows, got {getattr(y, 'shape', type(y).__name__)}"
            )
        if self.floor is None:
            return y
        p = demand_probabilities("probabilities", y.astype(np.float64), repr(self.name))
        return log_probabilities(p, self.floor)


def _rows(x: Any) -> Array:
    """Rows as whoever asks the teacher itself may bring them: (B, D) numbers."""
    rows = _check.data_array("x", x)
    if rows.dtype.kind not in "fiub":
        raise TypeError(f"x: expected rows of real numbers, got {rows.dtype}")
    _check.Dims().shape("x", rows.shape, ("B", "D"))
    return rows


def _opened(runtime: Any, path: str) -> Any:
    """A session on the CPU with the library's number of threads."""
    with naming(path, "model: "):
        demand_plain(path)
        with open(path, "rb"):
            pass
    options = runtime.SessionOptions()
    options.intra_op_num_threads = get_num_threads()
    try:
        return runtime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds
        raise ValueError(f"model: expected an ONNX model that ONNX Runtime can run, got {path!r}: {_first_line(error)}") from error


def _input_of(session: Any) -> tuple[str, Any, list[int | None]]:
    """Name, dtype and shape of the one input; None for sizes that are not fixed, and an empty shape where the model says none."""
    found = session.get_inputs()
    if len(found) != 1:
        raise ValueError(f"model: expected one with one input, got {len(found)}: {', '.join(each.name for each in found)}")
    given = found[0]
    if given.type not in _NUMBERS:
        raise TypeError(f"model: expected an input of {', '.join(_NUMBERS)}, got {given.name!r} of {given.type}")
    shape = [size if isinstance(size, int) and size > 0 else None for size in given.shape or []]
    if len(shape) == 1 or shape[1:].count(None) > 1:
        raise ValueError(
            f"model: expected an input (B, D), or (B, ...) with one size open at most, got {given.name!r} of shape {given.shape}"
        )
    return given.name, _NUMBERS[given.type], shape


def _output_of(session: Any, wanted: str | None) -> str:
    """The name of the output, demanded to be a tensor of floats with two axes where the model says so much."""
    found = {each.name: each for each in session.get_outputs()}
    if wanted is not None and not _check.one_of(wanted, found):
        raise ValueError(f"output: expected one of {', '.join(found)}, got {wanted!r}")
    if wanted is None and len(found) > 1:
        raise ValueError(f"output: expected the name of one, as the model has several: {', '.join(found)}, got None")
    given = found[next(iter(found)) if wanted is None else wanted]
    if given.type not in _FLOATS:
        cure = ": convert the classifier with options={'zipmap': False}, which makes it a tensor" if given.type.startswith("seq") else ""
        raise TypeError(f"output: expected one of {', '.join(_FLOATS)}, got {given.name!r} of {given.type}{cure}")
    if given.shape and len(given.shape) != 2:
        raise ValueError(f"output: expected shape (B, C), got {given.name!r} of shape {given.shape}")
    return str(given.name)


def _digest(session: Any, path: str | None, description: str | None) -> dict[str, str]:
    """What tells this model from others: the description, if there is one, and the sha256 of its files, if they are known."""
    named = {} if description is None else {"name": description}
    path = path or getattr(session, "_model_path", None)
    if path:
        return {**named, "sha256": _sha256(path)}
    if held := getattr(session, "_model_bytes", None):
        return {**named, "sha256": hashlib.sha256(held).hexdigest()}
    if not named:
        raise ValueError("description: expected what tells this model from others, as the session does not know its file, got None")
    return named


def _sha256(path: str) -> str:
    """Of the model's file, and of the files that hold its tensors, each once and in order of their names."""
    onnx, digest = package("onnx"), hashlib.sha256()
    model = onnx.load(path, load_external_data=False)
    apart = {entry.value for tensor in _tensors(model.graph) for entry in tensor.external_data if entry.key == "location"}
    for file in (path, *(os.path.join(os.path.dirname(path), name) for name in sorted(apart))):
        demand_plain(file, "model")
        with naming(file, "model: "), open(file, "rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _tensors(graph: Any) -> Iterator[Any]:
    """All constants of a graph, and of those inside it."""
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)


def _first_line(error: Exception) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)
