"""The training step as one writes it in NumPy: h in memory, one BLAS call per product, buffers reused."""

from __future__ import annotations

import numpy as np
from shapes import Array


class NumpyStep:
    def __init__(self, a: dict[str, Array]) -> None:
        self.a = a
        B, H = len(a["x"]), len(a["U"])
        self.h, self.da = np.empty((B, H), np.float32), np.empty((B, H), np.float32)
        self.dU, self.dW = np.empty_like(a["U"]), np.empty_like(a["W"])

    def __call__(self) -> dict[str, Array]:
        a, h, da = self.a, self.h, self.da
        z = a["x"] @ a["V"].T
        np.matmul(z, a["U"].T, out=h)
        h += a["b"]
        np.maximum(h, 0, out=h)
        y = h @ a["W"] + a["c"]
        dy = (y - a["t"]) / len(y)
        np.matmul(dy, a["W"].T, out=da)
        da *= h > 0
        np.matmul(da.T, z, out=self.dU)
        np.matmul(h.T, dy, out=self.dW)
        dz = da @ a["U"]
        return {"y": y, "V": dz.T @ a["x"], "U": self.dU, "b": da.sum(0), "W": self.dW, "c": dy.sum(0)}
