"""A net for a few rows at a time on the CPU: its weights laid out for that, and all of it one call of the compiled core.

csrc/cpu/kernels.h describes the layouts.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from .. import _core
from ..plan import PANEL, plan
from .interface import ACTIVATIONS, Activation, Array, quantised

_ROWS_AT_ONCE = 64
_SLABS, _MOST_UNITS = 128, 2048  # slabs large enough that sums are cheap, and many enough for the threads
_PANEL_BYTES = 64 << 20  # smaller weights fit a cache, and there the faster layout pays
_MOST_INT8_COLUMNS = 1 << 16  # sums of products of 8 bits are exact in 32 up to here
_LANES = 16
_LINE = 64  # bytes


class Served:
    """x to y with weights in float32, bfloat16 or int8; see `pymimic.Predictor`.

    Parameters
    ----------
    weights : V (unless there is no bottleneck), U, b, W and c by name, float32
    activation, mean, scale : of the net; mean and scale may be None
    dtype, copy : see `pymimic.Predictor`
    steps : see `Backend.predictor`
    """

    array: type = np.ndarray

    def __init__(
        self, weights: dict[str, Array], activation: Activation, mean: Array | None, scale: Array | None, dtype: str, copy: bool | None,
        steps: dict[str, Array],
    ) -> None:  # fmt: skip
        w, V_matrix = weights, weights.get("V")
        (H, k), C = w["U"].shape, len(w["c"])
        D = k if V_matrix is None else V_matrix.shape[1]
        if dtype == "int8" and max(D, k) > _MOST_INT8_COLUMNS:
            most = f"{_MOST_INT8_COLUMNS} inputs or bottleneck units"
            raise ValueError(f"dtype: expected 'float32' or 'bfloat16' with more than {most}, got 'int8' with {max(D, k)}")
        padded_W = 4 * H * (-(-C // _LANES) * _LANES)
        small = w["U"].nbytes + (0 if V_matrix is None else V_matrix.nbytes) + padded_W <= _PANEL_BYTES
        storage = "panels" if dtype == "float32" and (small if copy is None else copy) else dtype
        slab = plan(1, D, k, H, C).slab  # float32 sums in the order of training
        if dtype != "float32":
            slab = max(slab, min(H // _SLABS, _MOST_UNITS) // PANEL * PANEL)
        V = None if V_matrix is None else _panels(V_matrix, storage, steps.get("V"))
        U, W = _panels(w["U"], storage, steps.get("U")), _rows(w["W"], storage, slab, steps.get("W"))
        arrays = (*(V or ()), *U, *W, w["b"], w["c"], mean, scale)
        self.nbytes = sum(array.nbytes for array in arrays if array is not None)
        self._build(storage, D, k, H, C, slab, ACTIVATIONS.index(activation), V, U, W, w["b"], w["c"], mean, scale)

    def _build(self, *parts: Any) -> None:
        self._parts = parts
        self._run = _core.Predictor(*parts).predict

    def __getstate__(self) -> tuple[int, tuple[Any, ...]]:
        return self.nbytes, self._parts

    def __setstate__(self, state: tuple[int, tuple[Any, ...]]) -> None:
        self.nbytes, parts = state
        self._build(*([_aligned_copy(a) for a in part] if isinstance(part, list) else part for part in parts))

    def predict(self, x: Array) -> Array:
        """y (B, C) of x (B, D), a C-contiguous float32 array."""
        if len(x) <= _ROWS_AT_ONCE:
            return self._run(x)
        return np.concatenate([self._run(x[start : start + _ROWS_AT_ONCE]) for start in range(0, len(x), _ROWS_AT_ONCE)])


def _panels(matrix: Array, storage: str, steps: Array | None) -> list[Array]:
    """V or U: values, and for int8 scale and total; rows are padded with zeros to whole panels."""
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
            part[: here.stop - here.start, :columns], scale[here] = quantised(matrix[here], None if steps is None else steps[here])
        values[i] = part.reshape(_LANES, -1, 4).transpose(1, 0, 2)
        total[_LANES * i : _LANES * (i + 1)] = part.sum(axis=1, dtype=np.int32)
    return [values, scale, total]


def _rows(matrix: Array, storage: str, slab: int, steps: Array | None) -> list[Array]:
    """W: rows as they are, padded to whole vectors, and for bfloat16 two and for int8 four of them interleaved."""
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
        part[: here.stop - here.start, :columns], scale[here] = quantised(matrix[here], None if steps is None else steps[here])
        values[here.start // 4 : here.start // 4 + len(part) // 4] = part.reshape(-1, 4, padded).swapaxes(1, 2)
        total[i] = part.sum(axis=0, dtype=np.int32)
    return [values, scale, total]


def _aligned_copy(array: Array) -> Array:
    copy = _aligned(array.shape, array.dtype)
    copy[...] = array
    return copy


def _aligned(shape: tuple[int, ...], dtype: Any) -> Array:
    """An array that starts on a cache line."""
    size = math.prod(shape) * np.dtype(dtype).itemsize
    memory = np.empty(size + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    array: Array = memory[start : start + size].view(dtype).reshape(shape)
    return array
