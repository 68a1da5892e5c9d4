"""The training step on pymimic's ops."""

from __future__ import annotations

import numpy as np
from shapes import Array

from pymimic import ops


class MimicStep:
    def __init__(self, a: dict[str, Array], keep: bool) -> None:
        self.a, self.keep = a, keep
        self.no_bias = np.zeros(len(a["V"]), np.float32)

    def __call__(self) -> dict[str, Array]:
        a = self.a
        z = ops.linear_dropout(a["x"], a["V"], self.no_bias, activation="identity")
        result = ops.shallow_forward(z, a["U"], a["b"], a["W"], a["c"], save=self.keep)
        y, saved = result if isinstance(result, tuple) else (result, None)
        _, dy = ops.mimic_loss(y, a["t"])
        grads = ops.shallow_backward(dy, z, a["U"], a["b"], a["W"], saved=saved)
        dV = ops.linear_dropout_backward(grads.z, a["x"], a["V"], z, activation="identity", needs="weight").weight
        return {"y": y, "V": dV, "U": grads.U, "b": grads.b, "W": grads.W, "c": grads.c}
