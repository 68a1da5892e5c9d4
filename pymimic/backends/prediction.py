"""A student's forward pass without dropout, where its weights are."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import numpy as np

from .. import ops
from ..devices import is_device
from . import choose
from .interface import Activation, Array

Forward = Callable[[Array, Array | None], Array]
"""y of standardised rows, written to the second array if it is given."""


def forward_of(weights: dict[str, Array], activation: Activation, backend: str | None) -> tuple[Forward, int]:
    """The forward pass of these weights, by name, and bytes that it takes for a row, besides z and what else each has to take."""
    V, (U, b, W, c) = weights.get("V"), (weights[name] for name in ("U", "b", "W", "c"))
    chosen = choose(backend, c)
    if is_device(c):
        net = cast(Any, chosen).net(weights, activation)
        return net.predict, net.row_bytes

    def forward(z: Array, out: Array | None) -> Array:
        if V is not None:
            z = ops.linear_dropout(z, V, np.zeros(len(V), np.float32), activation="identity", backend=backend)
        return ops.shallow_forward(z, U, b, W, c, activation=activation, out=out, backend=backend)

    return forward, 16 * len(U) if chosen.name == "reference" else 0  # the reference writes h out
