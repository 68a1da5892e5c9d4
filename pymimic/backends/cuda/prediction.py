"""A net while it predicts on a device: U and W packed once, and sums whose order the number of rows has no part in."""

from __future__ import annotations

from ... import _cuda
from ...plan import plan
from ..interface import Activation, Array, Mask
from . import operands
from .backend import Cuda
from .memory import empty, scratch, stream


class Net(Cuda):
    """V (unless there is no bottleneck), U, b, W and c, in float32 there; `weights` by name.

    A row's bits depend on no other row, nor on how many there are: z = x V^T is a kernel of ours, in float32 whatever the others are
    multiplied in, because cuBLAS chooses by the number of rows in which order to sum.
    """

    def __init__(self, name: str, weights: dict[str, Array], activation: Activation) -> None:
        super().__init__(name)
        self._weights, self._activation = weights, activation
        self._packed = [operands.held(weights[key], self._code) for key in "UW"]

    @property
    def row_bytes(self) -> int:
        """Scratch that a row of y takes."""
        (H, k), C = self._weights["U"].shape, len(self._weights["c"])
        return _cuda.shallow_forward_workspace(self._code, 1, k, H, C, self._splits(k, H, C))

    def predict(self, x: Array, out: Array | None) -> Array:
        """y (B, C) of x (B, D) as the first weights see it."""
        w = self._weights
        z = self._bottleneck(x, w["V"]) if "V" in w else x
        (B, k), (H, C) = z.shape, w["W"].shape
        how = plan(B, k, k, H, C)
        return self.shallow_forward(z, w["U"], w["b"], w["W"], w["c"], self._activation, Mask(), how, False, None, out)[0]

    def _bottleneck(self, x: Array, V: Array) -> Array:
        (B, D), k = x.shape, len(V)
        z = empty((B, k))
        _cuda.bottleneck(x, V, z, scratch(_cuda.bottleneck_workspace(B, D, k)), stream())
        return z

    def _splits(self, k: int, H: int, C: int) -> int:
        return _cuda.shallow_forward_splits(self._code, k, H, C)

    def _between(self, U: Array, b: Array, W: Array) -> tuple[Array, Array, Array]:
        packed_U, packed_W = self._packed
        return packed_U, b, packed_W
