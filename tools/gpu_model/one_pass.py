"""A backward pass in one kernel, whose blocks own units and make dz too: what it would need, beside the two kernels that there are.

It makes h and da once for all gradients. Its sums of dz are those of a block's units alone, so that each block adds them to those of the
others: in memory, where they are read and written for each slab. Blocks of a cluster add theirs in shared memory first, and
share copies of z and dy.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import NamedTuple

from gpu_model.launches import Shape, padded
from gpu_model.rates import Call
from gpu_model.units import CLOCK, L2_BYTES, MULTIPROCESSORS, SHARED_BYTES, TENSOR_MULTIPLY_ADDS

ROWS = UNITS = 64  # of a slab
CLUSTERS = (1, 2, 4)  # blocks
HALF, FLOAT = 2, 4  # bytes of a rounded element and of a sum


class Way(NamedTuple):
    """A backward pass: multiply-adds and bytes of 64 rows by 64 units, and what it writes beside that."""

    name: str
    multiply_adds: float
    shared: float
    l2: float
    dz_sums: float  # bytes of L2 for sums of dz, which are a part of `l2`

    @property
    def cycles(self) -> dict[str, float]:
        """Of a multiprocessor, by unit."""
        return {"tensor": self.multiply_adds / TENSOR_MULTIPLY_ADDS, "shared": self.shared / SHARED_BYTES, "L2": self.l2 / L2_BYTES}

    def seconds(self, B: int, H: int) -> float:
        """If the tightest unit never waits; without the begin and end of blocks."""
        return slabs(B, H) / MULTIPROCESSORS * max(self.cycles.values()) / CLOCK


def slabs(B: int, H: int) -> int:
    """Of a batch and a net."""
    return math.ceil(B / ROWS) * math.ceil(H / UNITS)


def ways(rows: Call, units: Call) -> Iterator[Way]:
    """Of the shape of both calls, from the kernels' counts where there are kernels."""
    pairs = [(call, ROWS * UNITS / (call.plan.row_block * call.plan.slab)) for call in (rows, units)]
    of = {key: sum(call.work.slab.get(key, 0) * part for call, part in pairs) for key in ("multiply-adds", "shared", "L2")}
    yield Way("two passes, as built", of["multiply-adds"], of["shared"], of["L2"], 0.0)
    yield from (one_pass(rows.shape, blocks) for blocks in CLUSTERS)


def one_pass(shape: Shape, blocks: int) -> Way:
    """With clusters of so many blocks."""
    k, both = padded(shape.k), padded(shape.k) + padded(shape.C)
    along, down = HALF * (ROWS + UNITS) * both, HALF * ROWS * both  # a and dh, from U, W, z, dy; dU and dW, from z and dy
    dz = HALF * UNITS * (ROWS + k) + HALF * ROWS * UNITS  # da and U; da is stored first, as rows are its columns elsewhere
    copies, traded, sums = HALF * ROWS * both, 2 * HALF * ROWS * UNITS, FLOAT * ROWS * k
    exchanged = 2 * sums * (blocks - 1) / blocks
    shared = along + down + dz + copies + traded + exchanged
    name = "one pass" if blocks == 1 else f"one pass, clusters of {blocks}"
    return Way(name, ROWS * UNITS * (3 * k + 2 * padded(shape.C)), shared, copies / blocks + 2 * sums / blocks, 2 * sums / blocks)
