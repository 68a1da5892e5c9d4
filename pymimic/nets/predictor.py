"""Prediction of a few rows at a time, as a service makes them: the weights laid out for it, in float32, bfloat16 or int8."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from ml_dtypes import bfloat16

from .. import _check
from ..backends import get
from ..backends.interface import ACTIVATIONS, Array
from ..devices import kind, module, to
from ..errors import BackendUnavailableError
from ..plan import PANEL, plan

if TYPE_CHECKING:
    from .student import Student

DTYPES = ("float32", "bfloat16", "int8")
_ROWS_AT_ONCE = 64
_SLABS, _MOST_UNITS = 128, 2048  # sums of few units cost time, and threads want slabs to share
_PANEL_BYTES = 64 << 20  # weights up to here may lie in a cache, where reading them as they are is what takes the time
_MOST_INT8_COLUMNS = 1 << 16  # sums of products of 8 bits are exact in 32 up to here
_LANES = 16
_LINE = 64  # bytes


class Predictor:
    """A student's net, x to y, for a few rows at a time: bound by reading the weights once, and all of it one call.

    It runs where the student is. float32 gives the bits of `Student.predict` on the CPU; it shares the student's weights or copies them
    into a faster layout, as `copy` says. bfloat16 and int8 are copies of half and a quarter of the size. Only weights are rounded: sums are
    float32 or exact; with int8, x, z and h (times W's scales, 2048 units at a time) are taken to 16 bits of their largest value in a row.
    int8 weights have a scale per row of V, U and W, largest / 127. A row's bits do not depend on the rows beside it. A value that is not
    finite makes its row NaN with int8, and propagates as usual otherwise.

    On a device x, z and h stay float32 and all sums are float32, so that values which are not finite propagate with int8 as well; float32
    shares the student's weights where rows of U, V and W are multiples of 16 values. Weights are read once for every 8 rows, so that for
    many rows `Student.predict` is faster. Calls wait for nothing and can be captured into CUDA graphs inside a `pymimic.Workspace`.

    Parameters
    ----------
    student : the net, on the CPU or on a device; later changes to it are not seen
    dtype : "float32", "bfloat16" or "int8"
    copy : whether float32 weights on the CPU are copied into the faster layout, which large ones are read from at up to 1.2 times the rate;
        None: those that take at most 64 MiB are

    Raises
    ------
    ValueError
        An unknown dtype; on the CPU int8 with more than 65,536 inputs or bottleneck units; on a device more than 2048 bottleneck units (or
        inputs where there is no bottleneck) or 1024 outputs.
    BackendUnavailableError
        This installation has no compiled core, or for a student on a device no CUDA kernels.
    """

    def __init__(self, student: Student, dtype: str = "float32", copy: bool | None = None) -> None:
        if dtype not in DTYPES:
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        self.dtype, self.inputs, self.outputs = dtype, student.inputs, student.outputs
        self._served: Any = _served(student, dtype) if student.device == "cuda" else None
        if self._served is not None:
            self.nbytes: int = self._served.nbytes
            return
        try:
            from .. import _core
        except ImportError as error:
            raise BackendUnavailableError(f"student: a Predictor needs the compiled core, which is not available: {error}") from error
        w = student.weights()
        D, C, (H, k) = self.inputs, self.outputs, w["U"].shape
        if dtype == "int8" and max(D, k) > _MOST_INT8_COLUMNS:
            most = f"{_MOST_INT8_COLUMNS} inputs or bottleneck units"
            raise ValueError(f"dtype: expected 'float32' or 'bfloat16' with more than {most}, got 'int8' with {max(D, k)}")
        padded_W = 4 * H * (-(-C // _LANES) * _LANES)
        small = w["U"].nbytes + (w["V"].nbytes if "V" in w else 0) + padded_W <= _PANEL_BYTES
        storage = "panels" if dtype == "float32" and (small if copy is None else copy) else dtype
        slab = plan(1, D, k, H, C).slab  # float32's sums run as those of training do
        if dtype != "float32":
            slab = max(slab, min(H // _SLABS, _MOST_UNITS) // PANEL * PANEL)
        V = [_panels(w["V"], storage)] if "V" in w else []
        U, W = _panels(w["U"], storage), _rows(w["W"], storage, slab)
        rest = [array for array in (w["b"], w["c"], student.mean, student.scale) if array is not None]
        self.nbytes = sum(array.nbytes for array in (*(array for part in (*V, U, W) for array in part), *rest))
        self._run = _core.Predictor(
            storage, D, k, H, C, slab, ACTIVATIONS.index(student.activation), V[0] if V else None, U, W, w["b"], w["c"],
            student.mean, student.scale,
        ).predict  # fmt: skip

    def predict(self, x: Array) -> Array:
        """Logits y (B, C) float32 of x (B, D), float32 or float64; TypeError and ValueError where it is neither, or of another shape.

        y is where x is; a student on a device takes x from the host too.
        """
        if self._served is not None:
            return self._predict_there(x)
        if not (type(x) is np.ndarray and x.dtype == np.float32 and x.ndim == 2 and x.shape[1] == self.inputs and x.flags.c_contiguous):
            array = _check.host_array("x", x)
            if array.dtype not in _check.FLOATS:
                raise TypeError(f"x: expected dtype float32 or float64, got {array.dtype}")
            _check.Dims(D=self.inputs).shape("x", array.shape, ("B", "D"))
            x = np.ascontiguousarray(array, np.float32)
        if len(x) <= _ROWS_AT_ONCE:
            return self._run(x)
        return np.concatenate([self._run(x[start : start + _ROWS_AT_ONCE]) for start in range(0, len(x), _ROWS_AT_ONCE)])

    def _predict_there(self, x: Any) -> Array:
        there = self._served.array
        if type(x) is there and x.dtype == np.float32 and x.ndim == 2 and x.shape[1] == self.inputs and x.flags.c_contiguous:
            return self._served.predict(x)  # type: ignore[no-any-return]
        array = _check.float_rows("x", x, self.inputs)
        rows = to("cuda", array)
        return to(kind(array), self._served.predict(module(rows).ascontiguousarray(rows, np.float32)))


def _served(student: Student, dtype: str) -> Any:
    """The student's net on its device."""
    get("cuda")  # says what is missing
    from ..backends.cuda.serving import Served

    w = student.weights()
    matrices = {name: _quantised(to("cpu", w[name])) if dtype == "int8" else w[name] for name in "VUW" if name in w}
    mean, scale = (None if array is None else to("cuda", array) for array in (student.mean, student.scale))
    return Served(dtype, student.activation, matrices, w["b"], w["c"], mean, scale)


def _panels(matrix: Array, storage: str) -> list[Array]:
    """V or U as csrc/cpu/kernels.h describes it: values, and for int8 scale and total; rows are padded with zeros to whole panels."""
    if storage == "float32":
        return [matrix]
    rows, columns = matrix.shape
    panels = -(-rows // PANEL)
    if storage == "panels":
        padded = np.zeros((PANEL * panels, columns), np.float32)
        padded[:rows] = matrix
        packed = _aligned((panels, columns, PANEL), np.float32)
        packed[:] = padded.reshape(panels, PANEL, columns).swapaxes(1, 2)
        return [packed]
    if storage == "bfloat16":
        words = _aligned((panels, columns, _LANES), np.uint32)
        for i in range(panels):
            bits = np.zeros((PANEL, columns), np.uint32)
            panel = matrix[PANEL * i : PANEL * (i + 1)]
            bits[: len(panel)] = panel.astype(bfloat16).view(np.uint16)
            words[i] = (bits[:_LANES] | bits[_LANES:] << 16).T
        return [words]
    values = _aligned((2 * panels, -(-columns // 4), _LANES, 4), np.int8)
    scale, total = np.zeros(PANEL * panels, np.float32), np.zeros(PANEL * panels, np.int32)
    for i in range(2 * panels):
        here = slice(_LANES * i, min(_LANES * (i + 1), rows))
        part = np.zeros((_LANES, values.shape[1] * 4), np.int8)
        if here.start < rows:
            part[: here.stop - here.start, :columns], scale[here] = _quantised(matrix[here])
        values[i] = part.reshape(_LANES, -1, 4).transpose(1, 0, 2)
        total[_LANES * i : _LANES * (i + 1)] = part.sum(axis=1, dtype=np.int32)
    return [values, scale, total]


def _rows(matrix: Array, storage: str, slab: int) -> list[Array]:
    """W in the same way: rows as they are, padded to whole vectors, and for bfloat16 two and for int8 four of them interleaved."""
    if storage == "float32":
        return [matrix]
    rows, columns = matrix.shape
    padded = -(-columns // _LANES) * _LANES
    if storage == "panels":
        same = _aligned((rows, padded), np.float32)
        same[:, columns:] = 0
        same[:, :columns] = matrix
        return [same]
    if storage == "bfloat16":
        words = _aligned((-(-rows // 2), padded), np.uint32)
        words[:] = 0
        words[:, :columns] = matrix[0::2].astype(bfloat16).view(np.uint16)
        words[: rows // 2, :columns] |= matrix[1::2].astype(bfloat16).view(np.uint16).astype(np.uint32) << 16
        return [words]
    values, scale = _aligned((-(-rows // 4), padded, 4), np.int8), np.zeros(-(-rows // PANEL) * PANEL, np.float32)
    total = np.zeros((-(-rows // slab), padded), np.int32)
    for i in range(len(total)):
        here = slice(slab * i, min(slab * (i + 1), rows))
        part = np.zeros((-(-(here.stop - here.start) // 4) * 4, padded), np.int8)
        part[: here.stop - here.start, :columns], scale[here] = _quantised(matrix[here])
        values[here.start // 4 : here.start // 4 + len(part) // 4] = part.reshape(-1, 4, padded).swapaxes(1, 2)
        total[i] = part.sum(axis=0, dtype=np.int32)
    return [values, scale, total]


def _aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array whose vectors each lie in one cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    array: Array = memory[start : start + size].view(dtype).reshape(shape)
    return array


def _quantised(matrix: Array) -> tuple[Any, Array]:
    """Each row as integers of at most 127, and what one of them is worth."""
    scale = np.abs(matrix).max(axis=1) / np.float32(127)
    steps = np.divide(matrix, scale[:, None], out=np.zeros_like(matrix), where=scale[:, None] > 0)
    return np.rint(steps), scale
