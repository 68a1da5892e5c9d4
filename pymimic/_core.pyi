from collections.abc import Sequence
from typing import TypedDict

from .backends.interface import Array

_Mask = tuple[int, int, int, int, int]
_Update = tuple[str, float, float, float, bool, float, float, float, float, float]
_Parameter = tuple[Array, Sequence[Array], _Update]

def compiled_isas() -> list[str]: ...
def runnable_isas() -> list[str]: ...
def isa() -> str: ...
def set_isa(name: str) -> None: ...
def has_tiles() -> bool: ...
def num_threads() -> int: ...
def set_num_threads(n: int) -> None: ...
def run_on_openmp(path: str) -> None: ...

FEW_ROWS: int

class _Plan(TypedDict):
    by: str  # "vectors", "pairs", "tiles" or "tiles_x3"
    few_rows: bool
    slab: int
    row_block: int
    parts: int
    k_run: int  # 0: k in one piece

class _Run(TypedDict):
    by: str
    few_rows: bool
    slabs: int
    row_blocks: int
    parts: int
    k_runs: int

def shallow_plan(
    B: int, k: int, H: int, C: int, slab: int, row_block: int, float32: bool, terms: int, backward: bool, dz: bool,
    saves_h: bool, dropout: bool,
) -> _Plan: ...  # fmt: skip
def last_shallow_run() -> _Run: ...
def shallow_forward(
    z: Array, U: Array, b: Array, W: Array, c: Array, activation: int, mask: _Mask, slab: int, row_block: int, terms: int,
    y: Array, saved: Array | None,
) -> None: ...  # fmt: skip
def shallow_backward(
    dy: Array, z: Array, U: Array, b: Array, W: Array, activation: int, mask: _Mask, slab: int, row_block: int, terms: int,
    saved: Array | None, dz: Array | None, dU: Array | None, db: Array | None, dW: Array | None, dc: Array | None,
) -> None: ...  # fmt: skip
def shallow_step(
    dy: Array, z: Array, U: _Parameter, b: _Parameter, W: _Parameter, c: _Parameter, activation: int, mask: _Mask, slab: int,
    row_block: int, terms: int, saved: Array | None, dz: Array | None, dc: Array,
) -> None: ...  # fmt: skip
def linear(x: Array, weight: Array, bias: Array | None, activation: int, mask: _Mask, terms: int, out: Array) -> None: ...
def linear_backward(
    dout: Array, x: Array, weight: Array, bias: Array | None, result: Array, activation: int, mask: _Mask, terms: int,
    da: Array | None, dx: Array | None, dweight: Array | None, dbias: Array | None,
) -> None: ...  # fmt: skip
def dropout(x: Array, result: Array, mask: _Mask) -> None: ...
def update(param: Array, grad: Array, slots: Sequence[Array], rule: _Update) -> None: ...
def multiply_adds(dtype: str, steps: int) -> float: ...
def sum_all(x: Array) -> float: ...

class Predictor:
    def __init__(
        self, storage: str, D: int, k: int, H: int, C: int, slab: int, activation: int, V: Sequence[Array] | None, U: Sequence[Array],
        W: Sequence[Array], b: Array, c: Array, mean: Array | None, scale: Array | None,
    ) -> None: ...  # fmt: skip
    def predict(self, x: Array) -> Array: ...
