"""From the work of blocks and the plan: how long a call takes if its tightest unit never waits, and what holds it back."""

from __future__ import annotations

import math
from typing import NamedTuple

from gpu_model.counts import Blocks
from gpu_model.launches import OF_UNITS, Plan, Shape, padded
from gpu_model.units import CLOCK, HBM_BYTES, L2_BYTES, L2_SIZE, MULTIPROCESSORS, RATE, cycles

ARITHMETIC = ("issue", "ALU", "FMA", "special", "load/store")  # what warps do themselves, between products


def needed_operations(op: str, B: int, shape: Shape) -> int:
    """Of the matrix products that the kernel is for, z U^T made again included, as benchmarks/gpu/kernels.py counts them."""
    k, H, C = shape
    return 2 * B * H * {"forward": k + C, "rows": 2 * k + C, "units": 2 * (k + C), "step": 2 * (k + C)}[op]


def memory_bytes(op: str, B: int, shape: Shape, plan: Plan) -> int:
    """What crosses HBM's bus at least: operands once, results once, parts of sums where L2 has no room for them."""
    k, H, C = shape
    rows, units = 2 * B * padded(k), H * (2 * padded(k) + 2 * padded(C) + 4)
    kept = 2 * plan.workspace if plan.workspace > L2_SIZE else 0
    if op == "forward":
        return rows + units + 4 * B * C + kept
    rows += 2 * B * padded(C)
    if op == "rows":
        return rows + units + 4 * B * k + kept
    return rows + units + result_bytes(op, shape)


def result_bytes(op: str, shape: Shape) -> int:
    """Of gradients; of AdamW: weights and two slots, read and written, and the operands written."""
    k, H, C = shape
    if op == "units":
        return H * 4 * (k + 1 + C)
    return H * (6 * 4 * (k + 1 + C) + 2 * (padded(k) + padded(C)))


class Call(NamedTuple):
    """One call of a kernel. Cycles are of a multiprocessor, seconds at the clock of busy tensor cores."""

    op: str
    B: int
    shape: Shape
    plan: Plan
    blocks: int
    work: Blocks

    @property
    def slabs(self) -> int:
        """Of the longest block."""
        if self.op in OF_UNITS:
            return math.ceil(self.B / self.plan.row_block)
        return math.ceil(math.ceil(self.shape.H / self.plan.slab) / self.plan.splits)

    @property
    def waves(self) -> int:
        """How many blocks a multiprocessor takes, one after the other: a block needs all of its shared memory."""
        return math.ceil(self.blocks / MULTIPROCESSORS)

    @property
    def needed(self) -> int:
        """Operations."""
        return needed_operations(self.op, self.B, self.shape)

    def total(self, key: str) -> float:
        """Of all blocks, each as long as the longest."""
        return self.blocks * (self.work.rest.get(key, 0) + self.slabs * self.work.slab.get(key, 0))

    @property
    def slab_cycles(self) -> dict[str, float]:
        """By unit."""
        return cycles(self.work.slab)

    @property
    def rest_cycles(self) -> dict[str, float]:
        """By unit: beginning and end of a block."""
        return cycles(self.work.rest)

    def block_cycles(self, overlap: bool) -> float:
        """With `overlap` the tightest unit's; else products, and what warps do between them, one after the other."""
        slab, rest = self.slab_cycles, max(self.rest_cycles.values())
        if overlap:
            return self.slabs * max(slab.values()) + rest
        one = max(max(slab.values()), slab["tensor"] + max(slab[unit] for unit in ARITHMETIC))
        return self.slabs * one + max(rest, self.end_bytes / HBM_BYTES * MULTIPROCESSORS * CLOCK)

    @property
    def end_bytes(self) -> float:
        """What a block moves between HBM and its multiprocessor at its end. Blocks that begin together end together."""
        return result_bytes(self.op, self.shape) / self.blocks if self.op in OF_UNITS else 0.0

    @property
    def sum_seconds(self) -> float:
        """Of the kernel that adds the parts."""
        if self.plan.workspace == 0:
            return 0.0
        moved = self.plan.workspace * (1 + 1 / self.plan.splits)
        return moved / (HBM_BYTES if self.plan.workspace > L2_SIZE else L2_BYTES * MULTIPROCESSORS * CLOCK)

    def seconds(self, overlap: bool) -> float:
        """Of the call."""
        blocks = self.waves * self.block_cycles(overlap) / CLOCK
        return max(blocks, memory_bytes(self.op, self.B, self.shape, self.plan) / HBM_BYTES) + self.sum_seconds

    def rate(self, overlap: bool) -> float:
        """Needed operations a second, as a part of what the device reaches in products."""
        return self.needed / self.seconds(overlap) / RATE

    @property
    def factors(self) -> dict[str, float]:
        """The rate as a product. What keeps each below 1 is in its name."""
        slab = self.slab_cycles
        loop, block = self.slabs * max(slab.values()), self.block_cycles(True)
        blocks = self.waves * block / CLOCK
        executed = 2 * self.total("multiply-adds")
        return {
            "padding, products made twice": self.needed / executed,
            "waves": self.blocks / (self.waves * MULTIPROCESSORS),
            self.unit: slab["tensor"] / max(slab.values()),
            "begin and end of blocks": loop / block,
            "HBM, sum of parts": blocks / self.seconds(True),
        }

    @property
    def unit(self) -> str:
        """The tightest one in a slab; tensor cores where others are as busy."""
        slab = self.slab_cycles
        return max(slab, key=lambda unit: (slab[unit], unit == "tensor"))

    @property
    def limit(self) -> str:
        """The factor that costs most."""
        factors = self.factors
        worst = min(factors, key=lambda name: factors[name])
        return worst if factors[worst] < 0.98 else "tensor"
