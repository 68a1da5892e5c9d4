"""A net for a few rows at a time on a device: the weights as the serving kernels read them, and all of it one call."""

from __future__ import annotations

from typing import Any, cast

import numpy as np

from ... import _cuda
from ...devices import cupy, to
from .. import get
from ..interface import ACTIVATIONS, Activation, Array
from . import operands
from .backend import Cuda
from .memory import empty, scratch, stream

_PRECISIONS = {"float32": operands.FP32, "bfloat16": operands.BF16}
Quantised = tuple[Array, Array]  # whole numbers of at most 127, and for each row what one of them is worth


class Served:
    """x to y with weights in float32, bfloat16 or int8; sums are float32.

    Parameters
    ----------
    dtype : of V, U and W
    matrices : V (unless there is no bottleneck), U and W by name: float32 arrays there, or with int8 quantised ones of the host
    b, c, mean, scale : float32 arrays there; mean and scale may be None
    """

    def __init__(
        self, dtype: str, activation: Activation, matrices: dict[str, Array | Quantised], b: Array, c: Array, mean: Array | None,
        scale: Array | None,
    ) -> None:  # fmt: skip
        packed = {name: _packed(dtype, matrix) for name, matrix in matrices.items()}
        shapes = {name: (matrix[0] if isinstance(matrix, tuple) else matrix).shape for name, matrix in matrices.items()}
        (H, k), self.outputs = shapes["U"], shapes["W"][1]
        self.inputs = shapes["V"][1] if "V" in shapes else k
        cast(Cuda, get("cuda")).demand_sizes(k, self.outputs)
        arrays = (*(array for pair in packed.values() for array in pair), b, c, mean, scale)
        self.array: type = cupy().ndarray  # what `predict` takes
        self.nbytes = sum(int(array.nbytes) for array in arrays if array is not None)
        self._native = _cuda.Predictor(
            dtype, ACTIVATIONS.index(activation), self.inputs, k, H, self.outputs, packed.get("V"), packed["U"], packed["W"], b, c, mean,
            scale,
        )  # fmt: skip

    def predict(self, x: Array) -> Array:
        """y (B, C) of x (B, D), a C-contiguous float32 array there."""
        y = empty((len(x), self.outputs))
        self._native.predict(x, y, scratch(self._native.workspace(len(x))), stream())
        return y


def _packed(dtype: str, matrix: Array | Quantised) -> tuple[Array, Array | None]:
    """As an operand, and with int8 the scales of its rows."""
    if not isinstance(matrix, tuple):
        return operands.held(matrix, _PRECISIONS[dtype]), None
    values, scale = matrix
    padded: Any = np.zeros((len(values), -(-values.shape[1] // 16) * 16), np.int8)
    padded[:, : values.shape[1]] = values
    return to("cuda", padded), to("cuda", scale)
