"""The ways of a forward and a backward pass in bfloat16: kernels that make h again; then those or products, with h made again or kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from gpu import truth
from gpu.checks import random_problem
from gpu.measure import timed
from pymimic import ShallowWeights
from pymimic.backends import slabs

H = 8192
SIZES = ((64, 10), (128, 128), (250, 183), (320, 10), (512, 183), (1200, 10), (1845, 183), (128, 512))  # k, C
WAYS = ("kernels", "slabs", "slabs, h kept")
BOUND = 3e-2


def passes(handle: ShallowWeights, z: Any, dy: Any, keeps: bool) -> Callable[[], dict[str, Any]]:
    """Both, as a call; h goes to the memory of the call before."""
    saved: Any = None

    def run() -> dict[str, Any]:
        nonlocal saved
        if keeps:
            y, saved = handle.forward(z, save=saved or True)
        else:
            y = handle.forward(z)
        return {"y": y, **handle.backward(dy, z, saved=saved)._asdict()}

    return run


def ways(batches: list[int]) -> Iterator[dict[str, Any]]:
    """A row for each size, batch and way; where `slabs.LONG` lies should be where the second becomes the faster one."""
    for (k, C), B in itertools.product(SIZES, batches):
        dy, z, U, b, W, c = random_problem(B, k, H, C)
        expected = truth.shallow(dy, z, U, b, W, c, "tanh", "bf16")
        for way in WAYS:
            with patch.object(slabs, "LONG", 1 << 30 if way == "kernels" else -1):
                handle = ShallowWeights(U, b, W, c, "bfloat16", activation="tanh", memory_budget=1 << 40)
                run = passes(handle, z, dy, way == "slabs, h kept")
                errors = {name: truth.error(got, expected[name]) for name, got in run().items()}
                row = {"k": k, "H": H, "C": C, "B": B, "way": way, "errors": errors, "ok": max(errors.values()) <= BOUND}
                yield row | timed(run, 0.3)
