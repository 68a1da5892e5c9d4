"""Whether the kernels are right on this device: against float64 at the named shapes, bit for bit over many runs, and small calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from unittest.mock import patch

import cupy
import numpy as np

from gpu import truth
from pymimic import AdamW, Predictor, ShallowWeights, Student, ops
from pymimic.backends.cuda import by_cublas
from pymimic.bench.shapes import SHAPES
from pymimic.nets import predictor

# What is computed, its backend, activation and bound of the error. relu's gate flips where a product was rounded: only where the
# reference rounds in the same way, as it does to 16 bits, is it sharp.
PRECISIONS = {
    "bf16": ("cuda-bf16", "relu", 2e-3),
    "fp16": ("cuda-fp16", "relu", 1e-3),
    "tf32": ("cuda-tf32", "tanh", 4e-3),
    "float32": ("cuda", "tanh", 3e-5),
}
BATCHES = (1, 129, 512, 2048)
RUNS = 50
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


def accuracy(shape: str) -> Iterator[dict[str, Any]]:
    """The error of the forward pass and of every gradient, for each precision and batch."""
    net = SHAPES[shape]
    for B in BATCHES:
        dy, z, U, b, W, c = random_problem(B, net.rank, net.H, net.C, seed=B)
        for precision, (backend, activation, bound) in PRECISIONS.items():
            trains = precision != "fp16"
            expected = truth.shallow(dy if trains else None, z, U, b, W, c, activation, precision)
            poison()
            got = {"y": ops.shallow_forward(z, U, b, W, c, activation=activation, backend=backend)}
            if trains:
                got |= ops.shallow_backward(dy, z, U, b, W, activation=activation, backend=backend)._asdict()
            errors = {name: truth.error(got[name], expected[name]) for name in got}
            yield {
                "shape": shape, "B": B, "precision": precision, "errors": errors, "bound": bound, "ok": max(errors.values()) <= bound
            }  # fmt: skip
            del expected, got


def layers() -> Iterator[dict[str, Any]]:
    """The same of the ops around cuBLAS, of dropout and of the losses, by the reference backend in float64 on the host."""
    rng = np.random.default_rng(0)

    def compare(op: str, function: Callable[..., Any], arrays: list[Any], bound: float, **how: Any) -> dict[str, Any]:
        wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
        expected = function(*wide, backend="reference", **how)
        poison()
        got = function(*map(cupy.asarray, arrays), **how)
        pairs = zip(got, expected) if isinstance(got, tuple) else ((got, expected),)
        worst = max(truth.error(a, np.asarray(e)) for a, e in pairs if a is not None)
        return {"op": op, "sizes": [list(a.shape) for a in arrays], "error": worst, "bound": bound, "ok": worst <= bound}

    for B, D, H in ((512, 784, 2048), (1, 1845, 250), (130, 33, 1001)):
        normal = [rng.standard_normal(size).astype(np.float32) for size in ((B, D), (H, D), (H,), (B, H))]
        x, weight, bias, dout = normal[0], normal[1] / np.float32(D**0.5), normal[2], normal[3]
        how: dict[str, Any] = {"activation": "tanh", "dropout": 0.5, "seed": 7}
        yield compare("linear_dropout", ops.linear_dropout, [x, weight, bias], 3e-5, **how)
        out = ops.linear_dropout(x, weight, bias, **how)
        yield compare("linear_dropout_backward", ops.linear_dropout_backward, [dout, x, weight, out], 3e-5, **how)
        yield compare("dropout", ops.dropout, [x], 1e-6, p=0.25, seed=3)
        y, t = x, rng.standard_normal(x.shape).astype(np.float32)
        yield compare("mimic_loss", ops.mimic_loss, [y, t], 1e-5)
        yield compare("distillation_loss", partial(ops.distillation_loss, temperature=2.0), [y, t], 1e-5)
        yield compare("cross_entropy", ops.cross_entropy, [y, rng.integers(0, D, B)], 1e-5)


def bits(shape: str, B: int, dtype: str) -> Iterator[dict[str, Any]]:
    """Whether `RUNS` runs of the forward pass, the gradients and an AdamW step, dropout included, give the same bits."""
    net = SHAPES[shape]
    dy, z, U, b, W, c = random_problem(B, net.rank, net.H, net.C)
    how: dict[str, Any] = {"dropout": 0.5, "seed": 11, "offset": 3}

    def run() -> dict[str, Any]:
        handle, optimizer = ShallowWeights(U, b, W, c, dtype), AdamW(1e-3)
        results = {"y": handle.forward(z, **how), **handle.backward(dy, z, **how)._asdict()}
        results["step's dz"] = handle.step(dy, z, optimizer, **how)
        return results | {f"step's {name}": array for name, array in handle.arrays().items()}

    first, differing = run(), set()
    finite = all(bool(cupy.isfinite(array).all()) for array in first.values())
    for number in range(RUNS - 1):
        if number % 10 == 0:
            poison()
        differing |= {name for name, array in run().items() if not bool((array.view(np.uint32) == first[name].view(np.uint32)).all())}
    row = {"shape": shape, "B": B, "dtype": dtype, "runs": RUNS, "differing": sorted(differing), "finite": finite}
    yield row | {"ok": finite and not differing}


def shallow_calls(dy: Any, z: Any, *weights: Any) -> Iterator[dict[str, Any]]:
    """The shallow ops, and two steps of a handle."""
    U, b, W, _ = weights
    for backend in ("cuda-bf16", "cuda-fp16", "cuda-tf32", "cuda"):
        how: dict[str, Any] = {"dropout": 0.5, "seed": 1, "backend": backend}
        ops.shallow_forward(z, *weights, **how)
        if backend != "cuda-fp16":
            ops.shallow_backward(dy, z, U, b, W, **how)
        yield {"op": "shallow", "backend": backend, "B": len(z)}
    for dtype in ("bfloat16", "float32"):
        handle, optimizer = ShallowWeights(*weights, dtype), AdamW(1e-3)
        for _ in range(2):
            handle.step(dy, z, optimizer, dropout=0.5, seed=1)
        yield {"op": "step", "dtype": dtype, "B": len(z)}


def small_calls() -> Iterator[dict[str, Any]]:
    """Every kernel once or twice at small, odd sizes: for compute-sanitizer, so each array is an allocation of its own."""
    cupy.cuda.set_allocator(None)
    for B, k, H, C in ((5, 20, 70, 11), (37, 64, 200, 10), (130, 300, 65, 183)):
        dy, z, U, b, W, c = random_problem(B, k, H, C)
        with patch.object(by_cublas, "LONG", dict.fromkeys(by_cublas.LONG, 1 << 30)):
            yield from shallow_calls(dy, z, U, b, W, c)
        with patch.object(by_cublas, "LONG", dict.fromkeys(by_cublas.LONG, -1)):  # not by kernels alone
            yield from shallow_calls(dy, z, U, b, W, c)
            for backend in ("cuda-bf16", "cuda"):
                saved = ops.shallow_forward(z, U, b, W, c, activation="tanh", save=True, backend=backend)[1]
                ops.shallow_backward(dy, z, U, b, W, activation="tanh", saved=saved, backend=backend)
                yield {"op": "h kept", "backend": backend, "B": B}
        out = ops.linear_dropout(z, U, b, dropout=0.5, seed=1)
        ops.linear_dropout_backward(out, z, U, out, bias=b, dropout=0.5, seed=1)
        ops.dropout(z, 0.5, seed=1)
        ops.mimic_loss(dy, dy * 2)
        ops.distillation_loss(dy, dy * 2, 2.0)
        ops.cross_entropy(dy, cupy.arange(B) % C)
        yield {"op": "layers and losses", "B": B}
    from gpu.kernels import serving_call

    for weights in ("bf16", "int8"):
        serving_call(weights, 3, 20, 200, 11).call()
        yield {"op": "serve", "weights": weights}
    for rank in (None, 20):
        student, x = Student(37, 200, 11, rank=rank).to("cuda"), cupy.zeros((130, 37), np.float32)
        student.predict(x)
        for dtype in predictor.DTYPES:
            Predictor(student, dtype).predict(x[:9])
        yield {"op": "predict", "rank": rank}
    cupy.cuda.runtime.deviceSynchronize()
    cupy.cuda.set_allocator(cupy.get_default_memory_pool().malloc)
