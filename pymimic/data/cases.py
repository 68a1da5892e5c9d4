"""What the trainer reads: anything with rows, by index; and labelled rows in that shape."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike

from .. import _check
from ..backends.interface import Array
from .mapped import mapped_file, packed, unpacked
from .rounding import warn_of_merged_values


class Targets(NamedTuple):
    """A teacher's logits and labels, for losses that take both."""

    logits: Array  # (n, C) float
    labels: Array  # (n,) int

    def copy(self) -> Targets:
        """Copies of both."""
        return Targets(self.logits.copy(), self.labels.copy())


Rows = tuple[Array, Array | Targets, Array | None]
"""x, targets and weights, as `Cases.batch` gives them."""


class Cases(Protocol):
    """Training or validation cases. `pymimic.TransferSet` and `LabelledSet` are such, and any object of yours can be.

    `batch` must give the same rows for the same indices whenever it is called, or a resumed run is another run;
    for fresh random cases at every step use `Trainer(augment=...)`. The trainer checks each batch: shapes and dtypes, the labels' range,
    weights of at least 0, and of validation rows that values are finite.
    """

    @property
    def inputs(self) -> int:
        """D."""

    @property
    def outputs(self) -> int:
        """C."""

    def __len__(self) -> int:
        """How many rows there are."""

    def batch(self, indices: Array) -> tuple[Array, Array | Targets, Array | None]:
        """Rows x (n, D) float, targets, weights (n,) float or None; indices (n,) int64.

        Targets are logits (n, C) float, or labels (n,) int, or both as `Targets`.
        """


class LabelledSet:
    """Inputs with a class each, for the shallow net on labels and for validation.

    Parameters
    ----------
    x : (N, D) float32 or float64 array; kept as it is, memory-mapped or not. A read-only map pickles as its path, and once its file is
        written to, `batch` raises ValueError.
    labels : (N,) array of integers in [0, outputs)
    outputs : C
    weights : (N,) float array of per-row weights of at least 0, or None for ones

    Raises
    ------
    TypeError, ValueError
        A wrong dtype, shape or label, NaN or infinity (as float32), a weight below 0.

    Warns
    -----
    UserWarning
        Many float64 values of a column of x are one as float32, in which nets learn.
    """

    def __init__(self, x: Array, labels: Array, outputs: int, weights: Array | None = None) -> None:
        dims = _check.Dims()
        self.x = _check.data_array("x", x)
        _check.float_dtype("x", self.x)
        dims.shape("x", self.x.shape, ("N", "D"))
        demand_values("x", self.x)
        warn_of_merged_values("x", self.x)
        self.outputs = _check.integer("outputs", outputs, 1, 1 << 31)
        self.labels = class_labels(dims, labels, self.outputs)
        self.weights = None
        if weights is not None:
            weights = _check.data_array("weights", weights)
            if weights.dtype.kind not in "fiub":
                raise TypeError(f"weights: expected numbers, got {weights.dtype}")
            with np.errstate(over="ignore"):  # values that become infinite are refused next
                self.weights = dims.array("weights", weights.astype(np.float32), "N")
            demand_values("weights", self.weights)
        self.inputs = dims["D"]
        self._file = mapped_file(self.x)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"x": packed(self.x)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self.x = unpacked(self.x)
        self._file = mapped_file(self.x)

    def __repr__(self) -> str:
        return f"<LabelledSet: {len(self)} rows, {self.inputs} inputs -> labels of {self.outputs} classes>"

    def __len__(self) -> int:
        return len(self.x)

    def batch(self, indices: Array) -> tuple[Array, Array, Array | None]:
        """Rows x (n, D) float32, labels (n,) int64, and weights (n,) float32 or None."""
        if self._file is not None:
            self._file.demand()
        weights = None if self.weights is None else self.weights[indices]
        return np.asarray(self.x[indices], np.float32), self.labels[indices], weights


def read(name: str, cases: Cases, indices: Array) -> Rows:
    """`cases.batch(indices)`, demanded to be what `Cases` promises, weights as float32; `name` is the argument's. Values of x and logits
    may still be NaN or infinite."""
    made: Any = cases.batch(indices)
    if not isinstance(made, (tuple, list)) or len(made) != 3:
        raise TypeError(f"{name}: expected (x, targets, weights) from batch, got {counted(made)}")
    x, targets, weights = made
    x, targets = demand_pair(name, x, targets, (len(indices), cases.inputs, cases.outputs), indices)
    if weights is not None:
        weights = _check.host_array(f"{name}: weights", weights)
        if weights.dtype.kind not in "fiub":
            raise TypeError(f"{name}: weights: expected numbers, got {weights.dtype}")
        _demand_shape(f"{name}: weights", weights, (len(indices),))
        weights = np.asarray(weights, np.float32)
        if weights.size and weights.min() < 0:
            place = int(weights.argmin())
            raise ValueError(f"{name}: weights: expected values of at least 0, got {weights[place]} in row {indices[place]}")
    return x, targets, weights


def demand_pair(name: str, x: Any, targets: Any, sizes: tuple[int, int, int], numbers: Array) -> tuple[Array, Array | Targets]:
    """Demand x (n, D) float and targets of n rows and C outputs as `Cases` has them, given sizes (n, D, C); rows have these numbers."""
    n, D, C = sizes
    if _is_float32(x, (n, D)) and _is_float32(targets, (n, C)):  # most batches are
        return x, targets
    x = _check.host_array(f"{name}: x", x)
    _check.float_dtype(f"{name}: x", x)
    _demand_shape(f"{name}: x", x, (n, D))
    if isinstance(targets, (tuple, list)) and not isinstance(targets, Targets):
        raise TypeError(f"{name}: targets: expected logits, or labels, or both as pymimic.Targets, got {counted(targets)}")
    parts = [_check.host_array(f"{name}: targets", part) for part in (targets if isinstance(targets, Targets) else (targets,))]
    targets = Targets(*parts) if isinstance(targets, Targets) else parts[0]
    logits, labels = both(targets)
    if logits is not None:
        if logits.dtype.kind != "f" and logits.dtype != _check.BFLOAT16:
            raise TypeError(f"{name}: targets: expected logits as floats, or labels as integers, got {logits.dtype}")
        _demand_shape(f"{name}: logits", logits, (n, C))
    if labels is not None:
        _check.integer_array(f"{name}: labels", labels)
        _demand_shape(f"{name}: labels", labels, (n,))
        if n and not 0 <= labels.min() <= labels.max() < C:
            place = int(np.flatnonzero((labels < 0) | (labels >= C))[0])
            raise ValueError(f"{name}: labels: expected values in [0, {C}), got {labels[place]} in row {numbers[place]}")
    return x, targets


def counted(value: object) -> str:
    """What kind of thing came, and how many it holds."""
    return type(value).__name__ + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")


def _is_float32(value: Any, shape: tuple[int, ...]) -> bool:
    return type(value) is np.ndarray and value.dtype == np.float32 and value.shape == shape


def _demand_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")


def in_order(name: str, cases: Cases) -> Iterator[Rows]:
    """All rows in order, some 16 MiB at a time; `name` is the argument's."""
    rows = max(1, (4 << 20) // (cases.inputs + cases.outputs))
    return (read(name, cases, np.arange(start, min(start + rows, len(cases)))) for start in range(0, len(cases), rows))


def finite_in_order(name: str, cases: Cases, ruled_out: bool) -> Iterator[Rows]:
    """`in_order`, of finite values; with `ruled_out` a logit may be -inf, for a class that the teacher rules out."""
    row = 0
    for x, targets, weights in in_order(name, cases):
        demand_values(f"{name}: x", x, row)
        logits = both(targets)[0]
        if logits is not None:
            demand_values(f"{name}: logits", np.where(np.isneginf(logits), 0, logits) if ruled_out else logits, row)
        if weights is not None:
            demand_values(f"{name}: weights", weights, row)
        yield x, targets, weights
        row += len(x)


def demand_values(name: str, array: Array, first_row: int = 0) -> None:
    """Demand values that are finite as float32, in which batches come, and no negative weights."""
    if array.size == 0:
        return
    step = max(1, (4 << 20) // math.prod(array.shape[1:]))
    for start in range(0, len(array), step):
        with np.errstate(over="ignore"):
            slab = array[start : start + step].astype(np.float32, copy=False)
        _check.finite(name, slab, first_row + start)
    if name == "weights" and array.min() < 0:
        raise ValueError(f"weights: expected values of at least 0, got {array.min()} in row {first_row + int(array.argmin())}")


def float32_array(dims: _check.Dims, name: str, value: object, *axes: str) -> Array:
    """Demand a float array of that shape, and give it as float32; a float32 one is not copied."""
    array = _check.data_array(name, value)
    _check.float_dtype(name, array)
    dims.shape(name, array.shape, axes)
    with np.errstate(over="ignore"):  # values that become infinite are refused afterwards
        return np.asarray(array.astype(np.float32, copy=False))


def row_numbers(indices: ArrayLike, rows: int, name: str = "indices") -> Array:
    """Demand (n,) ints in [0, rows); `name` is of the argument."""
    try:
        array = _check.host_array(name, indices) if isinstance(indices, np.ndarray) else np.asarray(indices)
    except ValueError:  # sequences of several lengths
        raise TypeError(f"{name}: expected (n,) ints, got {type(indices).__name__}") from None
    if array.size == 0:
        array = array.astype(np.int64)
    _check.integer_array(name, array)
    _check.Dims().shape(name, array.shape, ("n",))
    if array.size and not 0 <= array.min() <= array.max() < rows:
        raise ValueError(f"{name}: expected values in [0, {rows}), got [{array.min()}, {array.max()}]")
    return array


def class_labels(dims: _check.Dims, labels: object, outputs: int | None) -> Array:
    """Demand (N,) integers in [0, outputs), or of at least 0 where nobody knows the outputs yet, and give them as int64."""
    array = _check.data_array("labels", labels, floats=False)
    _check.label_array("labels", array)
    dims.shape("labels", array.shape, ("N",))
    if array.size and not 0 <= array.min() <= array.max() < (1 << 63 if outputs is None else outputs):
        raise _check.other_labels("labels", array, outputs)
    return array.astype(np.int64)


def both(targets: Array | Targets) -> tuple[Array | None, Array | None]:
    """Logits and labels, None for what there is not."""
    if isinstance(targets, Targets):
        return targets
    return (None, targets) if targets.dtype.kind in "iu" else (targets, None)


def together(logits: Array | None, labels: Array | None) -> Array | Targets:
    """The targets that `both` took apart."""
    if logits is not None:
        return logits if labels is None else Targets(logits, labels)
    assert labels is not None
    return labels


def demand_cases(inputs: int, outputs: int, data: Cases, validation: Cases | None) -> None:
    """Demand rows that fit a student of so many inputs and outputs."""
    for name, cases in (("data", data), *(() if validation is None else (("validation", validation),))):
        demand_parts(name, cases)
        for axis, want, have in (("inputs", inputs, cases.inputs), ("outputs", outputs, cases.outputs)):
            if want != have:
                raise ValueError(f"{name}: expected {want} {axis}, as the student has, got {have}")


def demand_parts(name: str, cases: Cases) -> None:
    """Demand what all cases have, and a row."""
    if not all(hasattr(cases, part) for part in ("inputs", "outputs", "batch", "__len__")):
        cure = ": pass TransferSet(x, logits), or LabelledSet(x, labels, outputs)" if isinstance(cases, (tuple, list, dict)) else ""
        raise TypeError(
            f"{name}: expected a TransferSet, a LabelledSet, or an object with inputs, outputs, len() and batch(indices), "
            f"got {type(cases).__module__}.{type(cases).__qualname__}{cure}"
        )
    if len(cases) == 0:
        raise ValueError(f"{name}: expected at least one row, got none")
