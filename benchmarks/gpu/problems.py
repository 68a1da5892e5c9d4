"""What is computed on a device in checks and timings: random arrays, and memory in which anything unwritten shows."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

POISON_VALUES = 256 << 20


def random_problem(B: int, k: int, H: int, C: int, seed: int = 0) -> list[Any]:
    """dy, z, U, b, W and c in float32 on the device, pre-activations of order one."""
    rng = cupy.random.RandomState(seed)
    scales = (((B, C), 1), ((B, k), 1), ((H, k), k**-0.5), ((H,), 0.1), ((H, C), H**-0.5), ((C,), 1))
    return [rng.standard_normal(shape, np.float32) * np.float32(scale) for shape, scale in scales]


def poison() -> None:
    """What the pool gives out next is full of NaN: memory that nobody writes shows."""
    pool = cupy.get_default_memory_pool()
    pool.free_all_blocks()
    cupy.full(POISON_VALUES, np.nan, np.float32)
