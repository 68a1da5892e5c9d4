"""The shapes that the kernels must be fastest at, with what each kind of work costs at least; and random arrays of them."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import numpy as np

from ..backends.interface import Array

What = Literal["forward", "step", "adamw", "serving"]
WHATS: tuple[What, ...] = get_args(What)
"""forward: x to y; step: forward, loss and all gradients, x to dV; adamw: a step and all updates; serving: x to y, 1 row."""


class Shape(NamedTuple):
    """B rows, D inputs, k bottleneck units (None: no bottleneck), H hidden units, C outputs."""

    name: str
    B: int
    D: int
    k: int | None
    H: int
    C: int

    @property
    def rank(self) -> int:
        """Width of what the hidden units see."""
        return self.D if self.k is None else self.k

    @property
    def parameters(self) -> int:
        """Numbers in V, U, b, W and c."""
        return (0 if self.k is None else self.k * self.D) + self.H * (self.rank + 1 + self.C) + self.C

    def operations(self, what: What, recompute: bool = False) -> int:
        """Multiplications and additions in matrix products: what everyone must do, and with `recompute` h made a second time."""
        bottleneck = 0 if self.k is None else self.D * self.k
        if what in ("forward", "serving"):
            return 2 * self.B * (bottleneck + self.H * (self.rank + self.C))
        products_with_U = 2 + (self.k is not None) + recompute  # a, dU, dz, a again
        return 2 * self.B * (2 * bottleneck + self.H * (products_with_U * self.rank + 3 * self.C))

    def least_bytes(self, what: What, weight_bytes: float = 4) -> float:
        """Bytes that must cross the memory bus when no weight is in a cache: arguments read once, results written once."""
        rows = 4 * self.B * (self.D + self.C)
        if what in ("forward", "serving"):
            return rows + weight_bytes * self.parameters
        if what == "step":
            return rows + (weight_bytes + 4) * self.parameters
        return rows + 6 * 4 * self.parameters  # weights and two slots, read and written

    def small(self) -> Shape:
        """The same kind of net in odd sizes that take no time: for tests."""
        k = None if self.k is None else min(self.k, 21)
        return Shape(self.name, min(self.B, 37), min(self.D, 45), k, min(self.H, 603), min(self.C, 11))


SHAPES = {
    shape.name: shape
    for shape in (
        Shape("letter-4k", 512, 16, None, 4096, 26),
        Shape("mnist-8k", 512, 784, 64, 8192, 10),
        Shape("timit-8k", 512, 1845, 250, 8000, 183),
        Shape("timit-dense", 512, 1845, None, 8000, 183),
        Shape("timit-50k", 1024, 1845, 250, 50000, 183),
        Shape("timit-400k", 256, 1845, 250, 400000, 183),
        Shape("wide-100k", 2048, 512, 64, 100000, 10),
        Shape("cifar-30k", 512, 8192, 1200, 30000, 10),
    )
}
"""Ba & Caruana 2014 (timit, cifar), Bucila, Caruana & Niculescu-Mizil 2006 (letter), and the ends of the range."""


def arrays(shape: Shape, seed: int = 0) -> dict[str, Array]:
    """Random x, t, V (where there is a bottleneck), U, b, W and c in float32, scaled so that every layer's values are of order one."""
    rng = np.random.default_rng(np.random.SeedSequence(seed))
    B, D, H, C, rank = shape.B, shape.D, shape.H, shape.C, shape.rank

    def normal(*size: int, fan_in: int = 1) -> Array:
        values = rng.standard_normal(size, np.float32)
        values *= np.float32(fan_in**-0.5)
        return values

    bottleneck = {} if shape.k is None else {"V": normal(rank, D, fan_in=D)}
    wide = {"U": normal(H, rank, fan_in=rank), "b": normal(H, fan_in=100), "W": normal(H, C, fan_in=H), "c": normal(C)}
    return {"x": normal(B, D), "t": normal(B, C), **bottleneck, **wide}
