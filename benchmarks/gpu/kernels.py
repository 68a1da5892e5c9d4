"""Each kernel alone, by `pymimic._cuda` on arrays that are there already; and what this device can do at most."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.metadata import version
from importlib.util import find_spec
from typing import Any, NamedTuple

import ceilings_cuda
import cupy
import numpy as np

from gpu import truth
from gpu.measure import timed
from gpu.problems import random_problem
from gpu.watch import about_to
from pymimic import AdamW, _cuda
from pymimic.backends.cuda import cublas
from pymimic.backends.cuda.layers import parameter
from pymimic.bench import machine
from pymimic.bench.shapes import SHAPES, Shape

CODES = {"bf16": 0, "fp16": 1, "tf32": 2, "float32": 3}  # pymimic_precision
_SHAPES = SHAPES | {"k = C = 128": Shape("k = C = 128", 512, 128, None, 100_000, 128)}
CEILING_SIZE, CEILING_BYTES = 8192, 1 << 30  # of square matrices, and of what is copied
_NO_MASK = (256, 0, 0, 0, 0)
_RELU = 0


def ceilings() -> Iterator[dict[str, Any]]:
    """The machine, then rates in GFLOP/s and GB/s; of bfloat16 also with operands of 16 bits."""
    versions = {"cupy": cupy.__version__, "numpy": np.__version__, **{name: version(name) for name in ("torch",) if find_spec(name)}}
    driver, runtime = cupy.cuda.runtime.driverGetVersion(), cupy.cuda.runtime.runtimeGetVersion()
    yield {"machine": machine.describe("cuda") | {"versions": versions | {"driver": driver, "runtime": runtime}}}
    about_to("ceilings")
    yield {"ceilings": ceilings_cuda.measure(20, CEILING_SIZE, CEILING_BYTES)}
    about_to("ceilings")
    a = operand(random_problem(1, CEILING_SIZE, CEILING_SIZE, 1)[2], "bf16")
    out = cupy.empty((CEILING_SIZE, CEILING_SIZE), np.float32)
    product = timed(lambda: cublas.multiply(a, a, out, cublas.COMPUTE_TYPES["cuda-bf16"], transpose_b=True), 1.0)
    x, y = cupy.ones(CEILING_BYTES // 4, np.float32), cupy.empty(CEILING_BYTES // 4, np.float32)
    copy = timed(lambda: cupy.copyto(y, x), 1.0)
    yield {"gemm_bf16": 2 * CEILING_SIZE**3 / product["seconds"] / 1e9, "copy": 2 * CEILING_BYTES / copy["seconds"] / 1e9}


def operand(a: Any, precision: str) -> Any:
    """`a` as a padded operand."""
    groups = -(-a.shape[1] // 16)
    padded = cupy.empty((len(a), 16 * groups), np.uint16 if precision in ("bf16", "fp16") else np.float32)
    _cuda.pack(a, CODES["float32"], padded, CODES[precision], 0)
    return padded


def calls(B: int, k: int, H: int, C: int, precision: str) -> Iterator[tuple[str, Callable[[], Any], int, int]]:
    """Each kernel's name, a call of it, the operations of its matrix products, and the bytes of its workspace."""
    dy32, z32, U32, b, W32, c = random_problem(B, k, H, C)
    dy, z, U, W = (operand(a, precision) for a in (dy32, z32, U32, W32))
    code = CODES[precision]
    problem = ((code, _RELU, 0, k, C, _NO_MASK), z, U, b, W)

    def scratch(nbytes: int) -> Any:
        return cupy.empty(nbytes, np.uint8) if nbytes else None

    y, room = cupy.empty((B, C), np.float32), scratch(_cuda.shallow_forward_plan(code, B, k, H, C, 0).workspace)
    yield "forward", lambda: _cuda.shallow_forward(*problem, c, y, room, 0), 2 * B * H * (k + C), 0 if room is None else room.nbytes
    if precision == "fp16":
        return
    dz, more = cupy.empty((B, k), np.float32), scratch(_cuda.shallow_backward_rows_plan(code, B, k, H, C, 0).workspace)
    nbytes = 0 if more is None else more.nbytes
    yield "rows", lambda: _cuda.shallow_backward_rows(*problem, dy, dz, more, 0), 2 * B * H * (2 * k + C), nbytes
    dU, db, dW = (cupy.empty_like(a) for a in (U32, b, W32))
    yield "units", lambda: _cuda.shallow_backward_units(*problem, dy, dU, db, dW, 0), 4 * B * H * (k + C), 0
    optimizer = AdamW(1e-5, weight_decay=0.01)
    optimizer.advance()
    in_place = _cuda.shallow_backward_units_plan(code, B, k, H, C, True, True).in_place
    to_U, to_b, to_W = (
        parameter(
            value, optimizer.slots_for(name, value), working if in_place or working is None else working.copy(), optimizer.rule(value)
        )
        for name, value, working in (("U", U32, U), ("b", b if in_place else b.copy(), None), ("W", W32, W))
    )
    yield "step", lambda: _cuda.shallow_backward_step(*problem, dy, to_U, to_b, to_W, 0), 4 * B * H * (k + C), 0


def shallow(shape: str, batches: dict[str, list[int]]) -> Iterator[dict[str, Any]]:
    """The shallow kernels, each precision at its batches."""
    net = _SHAPES[shape]
    for precision, sizes in batches.items():
        for B in sizes:
            for kernel, call, operations, workspace in calls(B, net.rank, net.H, net.C, precision):
                if not about_to(f"{precision} {kernel}"):
                    continue
                found = timed(call)
                row = {"shape": shape, "B": B, "precision": precision, "kernel": kernel, "workspace_bytes": workspace}
                yield row | found | {"operations": operations, "gflops": operations / found["seconds"] / 1e9}


def once(shape: str, B: int, tool: str) -> None:
    """The three kernels of a step in bf16, for a tool to look at."""
    net = _SHAPES[shape]
    for kernel, call, _, _ in calls(B, net.rank, net.H, net.C, "bf16"):
        if kernel != "step" and about_to(f"{tool}, bf16 {kernel}", f"bf16 {kernel}"):
            call()
            cupy.cuda.runtime.deviceSynchronize()


class Serving(NamedTuple):
    """A call of the serving kernel, where it writes to, the bytes of its weights, and z, U, b, W, c as it takes them."""

    call: Callable[[], Any]
    y: Any
    nbytes: int
    arrays: tuple[Any, ...]


def serving_call(weights: str, B: int, k: int, H: int, C: int) -> Serving:
    """Random weights of that type."""
    _, z, U32, b, W32, c = random_problem(B, k, H, C)
    scales: tuple[Any, Any] = (None, None)
    if weights == "int8":
        U, W = (cupy.zeros((H, -(-n // 16) * 16), np.int8) for n in (k, C))
        scales = (cupy.full(H, 1e-2 / k**0.5, np.float32), cupy.full(H, 1e-2 / H**0.5, np.float32))
        for padded, n in ((U, k), (W, C)):
            padded[:, :n] = cupy.random.randint(-127, 128, (H, n)).astype(np.int8)
        U32, W32 = U[:, :k] * scales[0][:, None], W[:, :C] * scales[1][:, None]
    else:
        U, W = operand(U32, "bf16"), operand(W32, "bf16")
        U32, W32 = truth.rounded(U32, "bf16"), truth.rounded(W32, "bf16")
    matrices = (None, (U, scales[0]), (W, scales[1]))
    net = _cuda.Predictor("int8" if weights == "int8" else "bfloat16", _RELU, k, k, H, C, *matrices, b, c, None, None)
    room, y = cupy.empty(max(1, net.plan(B).workspace), np.uint8), cupy.full((B, C), np.nan, np.float32)

    def call() -> None:
        net.predict(z, y, room, 0)

    return Serving(call, y, U.nbytes + W.nbytes, (z, U32, b, W32, c))


def serving(shapes: list[str]) -> Iterator[dict[str, Any]]:
    """Few rows: the error, and GB/s of weights."""
    for shape in shapes:
        net = SHAPES[shape]
        for weights in ("bf16", "int8"):
            for B in (1, 8):
                if not about_to(f"serve {weights}"):
                    continue
                served = serving_call(weights, B, net.rank, net.H, net.C)
                served.call()
                error = truth.error(served.y, truth.shallow(None, *served.arrays)["y"])
                found = timed(served.call, 0.2)
                row = {"shape": shape, "B": B, "weights": weights, "bytes": served.nbytes, "error": error, "ok": error <= 1e-4}
                yield row | found | {"gbps": served.nbytes / found["seconds"] / 1e9}
