"""The losses that the trainer knows by name."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

from .. import ops
from ..backends.interface import Array

Loss = Callable[[Array, Array, Array | None], tuple[float, Array]]
"""(y, targets, weights or None) -> (loss, a mean over the rows; dL/dy), like `pymimic.ops.mimic_loss`."""


def loss_function(name: str, temperature: float, backend: str | None) -> Loss:
    """The loss called "mimic", "cross_entropy" or "distillation"; `temperature` is read by the last alone."""
    if name == "mimic":
        return partial(ops.mimic_loss, backend=backend)
    if name == "cross_entropy":
        return partial(ops.cross_entropy, backend=backend)
    if name != "distillation":
        raise ValueError(f"loss: expected 'mimic', 'cross_entropy', 'distillation' or a function, got {name!r}")

    if not 0 < temperature < math.inf:
        raise ValueError(f"temperature: expected a number above 0, got {temperature}")

    def distillation(y: Array, targets: Array, weights: Array | None) -> tuple[float, Array]:
        if weights is not None:
            raise ValueError("weights: expected none with loss 'distillation', got some")
        return ops.distillation_loss(y, targets, temperature, backend=backend)

    return distillation
