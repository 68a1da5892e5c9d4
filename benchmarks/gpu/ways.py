"""The ways of a forward and a backward pass: by kernels that make h again, or by products as well, with h made again or kept."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from gpu import truth
from gpu.measure import timed
from gpu.problems import random_problem
from gpu.watch import about_to
from pymimic import ShallowWeights
from pymimic.backends.cuda import by_cublas

H = 8192
SIZES = ((64, 10), (128, 128), (250, 183), (320, 10), (512, 183), (1200, 10), (1845, 183), (128, 512))  # k, C
KINDS = {"bfloat16": "cuda", "tf32": "cuda-tf32", "float32": "cuda"}
MOST_OTHERS = 512  # rows of those that are not bfloat16
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
    """A row for each size, type, batch and way; `by_cublas.LONG` should lie where the second way becomes the faster one."""
    for (k, C), (dtype, backend), B in itertools.product(SIZES, KINDS.items(), batches):
        if dtype != "bfloat16" and B > MOST_OTHERS:
            continue
        dy, z, U, b, W, c = random_problem(B, k, H, C)
        expected = truth.shallow(dy, z, U, b, W, c, "tanh", "bf16" if dtype == "bfloat16" else "float32")
        for way in WAYS:
            if not about_to(f"{way}, {dtype}"):
                continue
            with patch.object(by_cublas, "LONG", dict.fromkeys(by_cublas.LONG, 1 << 30 if way == "kernels" else -1)):
                kind = "bfloat16" if dtype == "bfloat16" else "float32"
                handle = ShallowWeights(U, b, W, c, kind, activation="tanh", backend=backend, memory_budget=1 << 40)
                run = passes(handle, z, dy, way == "slabs, h kept")
                errors = {name: truth.error(got, expected[name]) for name, got in run().items()}
                row = {"k": k, "H": H, "C": C, "B": B, "dtype": dtype, "way": way, "errors": errors}
                yield row | {"ok": max(errors.values()) <= BOUND} | timed(run, 0.3)
