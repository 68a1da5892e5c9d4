"""The shapes that the kernels must be fastest at, and random arrays of them. Ba & Caruana 2014, and others named in the docs."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


class Shape(NamedTuple):
    B: int
    D: int
    k: int
    H: int
    C: int

    def step_operations(self) -> int:
        """Multiplications and additions of forward, loss and all gradients, with h kept: what every peer must do."""
        narrow, wide = self.D * self.k, self.H * (self.k + self.C)
        return 2 * self.B * (2 * narrow + 3 * wide)


SHAPES = {
    "mnist-8k": Shape(512, 784, 64, 8192, 10),
    "timit-8k": Shape(512, 1845, 250, 8000, 183),
    "timit-50k": Shape(1024, 1845, 250, 50000, 183),
    "timit-400k": Shape(256, 1845, 250, 400000, 183),
    "wide-100k": Shape(2048, 512, 64, 100000, 10),
    "cifar-30k": Shape(512, 8192, 1200, 30000, 10),
}


def arrays(shape: Shape, seed: int = 0) -> dict[str, Array]:
    """Random x, t, V, U, b, W and c in float32, scaled so that every layer's values are of order one."""
    rng = np.random.default_rng(seed)
    B, D, k, H, C = shape

    def normal(*size: int, fan_in: int = 1) -> Array:
        values = rng.standard_normal(size, dtype=np.float32)
        values /= np.sqrt(fan_in, dtype=np.float32)
        return values

    return {
        "x": normal(B, D), "t": normal(B, C), "V": normal(k, D, fan_in=D), "U": normal(H, k, fan_in=k),
        "b": normal(H, fan_in=100), "W": normal(H, C, fan_in=H), "c": normal(C),
    }  # fmt: skip
