"""Whether the kernels are right on this device: against float64 at the named shapes, and bit for bit over many runs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import cupy
import numpy as np

from gpu import truth
from gpu.problems import poison, random_problem
from gpu.watch import about_to
from pymimic import AdamW, ShallowWeights, ops
from pymimic.bench.shapes import SHAPES

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


def accuracy(shape: str) -> Iterator[dict[str, Any]]:
    """The error of the forward pass and of every gradient, for each precision and batch."""
    net = SHAPES[shape]
    for B in BATCHES:
        dy, z, U, b, W, c = random_problem(B, net.rank, net.H, net.C, seed=B)
        for precision, (backend, activation, bound) in PRECISIONS.items():
            trains = precision != "fp16"
            expected = truth.shallow(dy if trains else None, z, U, b, W, c, activation, precision)
            poison()
            how: dict[str, Any] = {"activation": activation, "backend": backend}
            got = {}
            if about_to(f"{precision} forward"):
                got["y"] = ops.shallow_forward(z, U, b, W, c, **how)
            for kernel, needs in (("rows", "z"), ("units", "UbWc")):
                if trains and about_to(f"{precision} {kernel}"):
                    grads = ops.shallow_backward(dy, z, U, b, W, needs=tuple(needs), **how)
                    got |= {name: getattr(grads, name) for name in needs}
            if not got:
                continue
            errors = {name: truth.error(got[name], expected[name]) for name in got}
            yield {
                "shape": shape, "B": B, "precision": precision, "errors": errors, "bound": bound, "ok": max(errors.values()) <= bound
            }  # fmt: skip
            del expected, got


def layers() -> Iterator[dict[str, Any]]:
    """The same of the ops around cuBLAS, of dropout and of the losses, by the reference backend in float64 on the host."""
    rng = np.random.default_rng(0)

    def compare(op: str, function: Callable[..., Any], arrays: list[Any], bound: float, **how: Any) -> Iterator[dict[str, Any]]:
        if not about_to(op):
            return
        wide = [a.astype(np.float64) if a.dtype == np.float32 else a for a in arrays]
        expected = function(*wide, backend="reference", **how)
        poison()
        got = function(*map(cupy.asarray, arrays), **how)
        pairs = zip(got, expected) if isinstance(got, tuple) else ((got, expected),)
        worst = max(truth.error(a, np.asarray(e)) for a, e in pairs if a is not None)
        yield {"op": op, "sizes": [list(a.shape) for a in arrays], "error": worst, "bound": bound, "ok": worst <= bound}

    for B, D, H in ((512, 784, 2048), (1, 1845, 250), (130, 33, 1001)):
        normal = [rng.standard_normal(size).astype(np.float32) for size in ((B, D), (H, D), (H,), (B, H))]
        x, weight, bias, dout = normal[0], normal[1] / np.float32(D**0.5), normal[2], normal[3]
        how: dict[str, Any] = {"activation": "tanh", "dropout": 0.5, "seed": 7}
        yield from compare("linear_dropout", ops.linear_dropout, [x, weight, bias], 3e-5, **how)
        out = ops.linear_dropout(x, weight, bias, **how)
        yield from compare("linear_dropout_backward", ops.linear_dropout_backward, [dout, x, weight, out], 3e-5, **how)
        yield from compare("dropout", ops.dropout, [x], 1e-6, p=0.25, seed=3)
        y, t = x, rng.standard_normal(x.shape).astype(np.float32)
        yield from compare("mimic_loss", ops.mimic_loss, [y, t], 1e-5)
        yield from compare("distillation_loss", partial(ops.distillation_loss, temperature=2.0), [y, t], 1e-5)
        yield from compare("cross_entropy", ops.cross_entropy, [y, rng.integers(0, D, B)], 1e-5)


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

    precision = {"bfloat16": "bf16", "float32": "float32"}[dtype]
    kinds = [f"{precision} {kernel}" for kernel in ("step", "forward", "rows", "units")]
    if not about_to(*kinds):
        return
    first, differing = run(), set()
    finite = all(bool(cupy.isfinite(array).all()) for array in first.values())
    for number in range(RUNS - 1):
        about_to(*kinds)
        if number % 10 == 0:
            poison()
        differing |= {name for name, array in run().items() if not bool((array.view(np.uint32) == first[name].view(np.uint32)).all())}
    row = {"shape": shape, "B": B, "dtype": dtype, "runs": RUNS, "differing": sorted(differing), "finite": finite}
    yield row | {"ok": finite and not differing}
