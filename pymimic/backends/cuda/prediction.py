"""A net while it predicts on a device: U and W are packed once, and the number of rows has no part in the order of any sum."""

from __future__ import annotations

from collections.abc import Callable

from ... import _cuda
from ...plan import plan
from .. import interface
from ..interface import Activation, Array, Mask, Shallow
from . import operands
from .handle import Pair
from .memory import empty, scratch, stream

ForwardPacked = Callable[[Shallow, Array, Pair, int, Array | None], Array]
"""y of (net, c, packed U and W, splits of H, out)."""


class Prediction(interface.Prediction):
    """V (unless there is no bottleneck), U, b, W and c, float32 arrays on the device.

    A row's bits depend on no other row, nor on how many there are: z = x V^T is a kernel of ours, in float32 whatever the others are
    multiplied in, because cuBLAS chooses by the number of rows in which order to sum.
    """

    def __init__(self, forward: ForwardPacked, code: int, weights: dict[str, Array], activation: Activation) -> None:
        self._forward, self._code, self._weights, self._activation = forward, code, weights, activation
        self._packed = operands.packed(weights["U"], code), operands.packed(weights["W"], code)
        (H, k), C = weights["U"].shape, len(weights["c"])
        self._splits = _cuda.shallow_forward_splits(code, k, H, C)

    @property
    def row_bytes(self) -> int:
        (H, k), C = self._weights["U"].shape, len(self._weights["c"])
        return _cuda.shallow_forward_plan(self._code, 1, k, H, C, self._splits).workspace

    def predict(self, x: Array, out: Array | None) -> Array:
        w = self._weights
        z = self._bottleneck(x, w["V"]) if "V" in w else x
        (B, k), (H, C) = z.shape, w["W"].shape
        net = Shallow(z, w["U"], w["b"], w["W"], self._activation, Mask(), plan(B, k, k, H, C))
        return self._forward(net, w["c"], self._packed, self._splits, out)

    def _bottleneck(self, x: Array, V: Array) -> Array:
        (B, D), k = x.shape, len(V)
        z = empty((B, k))
        _cuda.bottleneck(x, V, z, scratch(_cuda.bottleneck_workspace(B, D, k)), stream())
        return z
