"""How an op will run: a pure function of the shape, so that the same shape always gives the same bits."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Integral
from typing import Literal, cast

FEW_ROWS = 8  # up to so many, reading the weights takes the time, and other ways are faster
PANEL = 32  # rows that one tile of h holds; also the units of one Philox tile
_H = Literal["recompute", "keep", "keep-bf16"]
_KEPT = ("auto", "recompute", "keep", "keep-bf16")
_ITEMSIZE = {"float32": 4, "float64": 8, "bfloat16": 4}  # bfloat16 weights are packed in two forms while a slab is in use
_SLAB_BYTES = 512 << 10  # U and W of one slab: half of a common 1 MiB L2
_TILE_BYTES = 4 << 20  # h and da of one slab and row block, double-buffered
_MAX_SLAB = 512
_MAX_ROW_BLOCK = 1024
_MOST_PLANNED = 1 << 20  # hidden units of a slab and rows of a block, in any plan
_LONG = 512  # k above which bfloat16 products take longer than keeping h, measured with AMX


@dataclass(frozen=True)
class Plan:
    """The strategy of `shallow_forward` and `shallow_backward` for one shape.

    `slab` hidden units form one partial sum of y and dz: it fixes the bits of the result and does not
    depend on B. `row_block` rows form one partial sum of the weights' gradients. `workspace_bytes` is what all threads share; each
    takes up to slab x 32 bytes more of its own, with bfloat16 slab x 352, and where there are tiles every thread after the second another
    slab x (4 row_block + 10 (k + C)). Backend "cpu-bf16x3" takes up to 3.5 times of what is said for float32, and
    at most `row_block` rows at once; with tiles, where k is above 640, smaller slabs grow to 192 units, as far as 3 MiB of weights go.
    """

    B: int
    D: int
    k: int
    H: int
    C: int
    dtype: str
    h: _H
    slab: int
    row_block: int
    saved_bytes: int
    workspace_bytes: int

    def __post_init__(self) -> None:
        for name in ("B", "D", "k", "H", "C", "slab", "row_block", "saved_bytes", "workspace_bytes"):
            _demand_size(name, getattr(self, name))
        _demand_name("dtype", self.dtype, tuple(_ITEMSIZE))
        _demand_name("h", self.h, _KEPT[1:])
        for name in ("slab", "row_block"):
            value = getattr(self, name)
            if not PANEL <= value <= _MOST_PLANNED or value % PANEL:
                raise ValueError(f"{name}: expected a multiple of {PANEL} of at most 2^20, got {value}")

    @property
    def rounds_h(self) -> bool:
        """Whether a saved h is bfloat16."""
        return self.h == "keep-bf16" or self.dtype == "bfloat16"

    def __str__(self) -> str:
        kind = {"recompute": "recompute h", "keep": "keep h", "keep-bf16": "keep h in bfloat16"}[self.h]
        saving = kind if self.h == "recompute" else f"{kind} ({self.saved_bytes / 2**20:.1f} MiB)"
        return (
            f"B={self.B} D={self.D} k={self.k} H={self.H} C={self.C} {self.dtype}: {saving}, slabs of {self.slab} units, "
            f"blocks of {self.row_block} rows, workspace {self.workspace_bytes / 2**20:.1f} MiB"
        )


def plan(B: int, D: int, k: int, H: int, C: int, dtype: str = "float32", memory_budget: int = 256 << 20, *, h: str = "auto") -> Plan:
    """Say how the shallow ops run on B rows, k bottleneck units, H hidden units and C outputs.

    Parameters
    ----------
    B : rows, at least 0, as all sizes
    D : inputs
    k : bottleneck units; D without a bottleneck
    H : hidden units
    C : outputs
    dtype : "float32", "float64" or "bfloat16"
    memory_budget : bytes that h may take between the forward and the backward pass; a larger h is made again
    h : "auto", "recompute", "keep" or "keep-bf16". "auto" keeps h, in `dtype`, where it fits the budget; with dtype "bfloat16" only where k
        is above 512, because making it again takes less time below. "keep-bf16" beside float32 takes half the memory and puts errors of up
        to 4e-3 into dW; it is never chosen unless asked for

    Raises
    ------
    ValueError
        A negative size or budget, an unknown dtype or h, or "keep-bf16" without float32.
    """
    for name, value in (("B", B), ("D", D), ("k", k), ("H", H), ("C", C), ("memory_budget", memory_budget)):
        _demand_size(name, value)
    _demand_name("dtype", dtype, tuple(_ITEMSIZE))
    _demand_name("h", h, _KEPT)
    if h == "keep-bf16" and dtype != "float32":
        raise ValueError(f"h: expected 'keep-bf16' with dtype 'float32' only, got {dtype!r}")
    itemsize = _ITEMSIZE[dtype]
    slab_bytes = _SLAB_BYTES << (dtype == "bfloat16")
    slab = _multiple(slab_bytes // max(1, (k + C) * itemsize), PANEL, _MAX_SLAB)
    row_block = _multiple(min(_TILE_BYTES // (4 * slab * itemsize), _MAX_ROW_BLOCK), PANEL, _MAX_ROW_BLOCK)
    blocks = max(1, -(-B // row_block))
    row_block = PANEL * max(1, -(-B // (blocks * PANEL)))  # equal blocks
    rows = PANEL * -(-B // PANEL)
    saved = rows * H * (2 if h == "keep-bf16" or dtype == "bfloat16" else itemsize)
    chosen = h if h != "auto" else "keep" if saved <= memory_budget and (dtype != "bfloat16" or k > _LONG) else "recompute"
    k32, C32 = (PANEL * -(-size // PANEL) for size in (k, C))
    if dtype == "bfloat16":  # z and dy in two forms, four parts of dz; for two threads each: h and da; weights in three forms, gradients
        workspace = rows * (4 * (k32 + C32) + 16 * k32) + 8 * slab * row_block + 20 * slab * (k32 + C32)
    else:
        workspace = (rows * (2 * k + k32 + C + C32) + 4 * slab * row_block + slab * (k + C)) * itemsize
    return Plan(B, D, k, H, C, dtype, cast(_H, chosen), slab, row_block, saved, workspace)


def _demand_size(name: str, value: object) -> None:
    if isinstance(value, bool) or not isinstance(value, Integral):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if int(value) < 0:
        raise ValueError(f"{name}: expected a size of at least 0, got {value}")


def _demand_name(name: str, value: object, names: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in names:
        raise ValueError(f"{name}: expected one of {', '.join(names)}, got {value!r}")


def _multiple(value: int, unit: int, most: int) -> int:
    """`value` rounded down to a multiple of `unit`, between `unit` and `most`."""
    return max(unit, min(value // unit * unit, most))
