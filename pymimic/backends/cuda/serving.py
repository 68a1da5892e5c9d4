"""A net for a few rows at a time on a device: weights in the form that the serving kernels read, and one call for the whole net."""

from __future__ import annotations

from typing import Any

import numpy as np

from ... import _cuda
from ...devices import cupy, to
from ..interface import ACTIVATIONS, Activation, Array, quantised
from . import operands
from .memory import empty, scratch, stream

_PRECISIONS = {"float32": operands.FP32, "bfloat16": operands.BF16}


class Served:
    """x to y with weights in float32, bfloat16 or int8; sums are float32.

    Parameters
    ----------
    weights : V (unless there is no bottleneck), U, b, W and c by name, float32 arrays on the device
    activation, mean, scale : of the net; mean and scale may be None
    dtype : of V, U and W
    steps : see `Backend.predictor`
    """

    def __init__(
        self, weights: dict[str, Array], activation: Activation, mean: Array | None, scale: Array | None, dtype: str,
        steps: dict[str, Array],
    ) -> None:  # fmt: skip
        matrices = {name: weights[name] for name in "VUW" if name in weights}
        packed = {name: _packed(dtype, matrix, steps.get(name)) for name, matrix in matrices.items()}
        (H, k), self.outputs = matrices["U"].shape, matrices["W"].shape[1]
        D = matrices["V"].shape[1] if "V" in matrices else k
        mean, scale = (None if array is None else to("cuda", array) for array in (mean, scale))
        vectors = (weights["b"], weights["c"], mean, scale)
        arrays = (*(array for pair in packed.values() for array in pair), *vectors)
        self.array: type = cupy().ndarray
        self.nbytes = sum(int(array.nbytes) for array in arrays if array is not None)
        self._build(dtype, ACTIVATIONS.index(activation), D, k, H, self.outputs, packed.get("V"), packed["U"], packed["W"], *vectors)

    def _build(self, *parts: Any) -> None:
        self._parts = parts
        self._native = _cuda.Predictor(*parts)

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_native"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._build(*self._parts)

    def predict(self, x: Array) -> Array:
        """y (B, C) of x (B, D), a C-contiguous float32 array on the device."""
        y = empty((len(x), self.outputs))
        self._native.predict(x, y, scratch(self._native.plan(len(x)).workspace), stream())
        return y


def _packed(dtype: str, matrix: Array, steps: Array | None) -> tuple[Array, Array | None]:
    """As an operand, and with int8 the scales of its rows."""
    if dtype != "int8":
        return operands.packed(matrix, _PRECISIONS[dtype]), None
    values, scale = quantised(to("cpu", matrix), steps)
    padded: Any = np.zeros((len(values), -(-values.shape[1] // 16) * 16), np.int8)
    padded[:, : values.shape[1]] = values
    return to("cuda", padded), to("cuda", scale)
