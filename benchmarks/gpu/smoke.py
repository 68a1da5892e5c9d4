"""Every kernel once or twice at small, odd sizes, against the reference backend in float64 on the host.

The first task of a session, and what compute-sanitizer looks at. CuPy compiles nothing for it: that would take longer than the calls.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import Any, NamedTuple
from unittest.mock import patch

import cupy
import numpy as np

from gpu.watch import about_to
from pymimic import AdamW, Predictor, ShallowWeights, Student, _cuda, ops
from pymimic.backends.cuda import by_cublas
from pymimic.nets.predictor import DTYPES

SIZES = (130, 70, 200, 11)  # B, k, H, C
KNOWN = ((64, 10), (128, 128), (250, 183))  # k and C for which relu has kernels of its own: kernels/shallow/columns.cuh
KNOWN_ROWS, KNOWN_UNITS = (130, 4200)  # of so many units the sm_90a kernel makes the gradients
KNOWN_BOUND = 0.1  # relu's gate opens or closes where a product was rounded
SANITIZED = ((5, 20, 70, 11), (37, 64, 200, 10), (130, 300, 65, 183))
BOUNDS = {"bf16": 2e-2, "fp16": 2e-3, "tf32": 2e-3, "float32": 2e-5}
BACKENDS = {"bf16": "cuda-bf16", "fp16": "cuda-fp16", "tf32": "cuda-tf32", "float32": "cuda"}
ATTRIBUTES = ("ptxVersion", "binaryVersion", "numRegs")
MASKED: dict[str, Any] = {"dropout": 0.5, "seed": 7, "offset": 3}
HOW: dict[str, Any] = {"activation": "tanh", **MASKED}

Arrays = dict[str, Any]


class Call(NamedTuple):
    """What `run` gives must be `expected`, but for a relative error of `bound` in each array."""

    kind: str
    run: Callable[[], Arrays]
    expected: Arrays
    bound: float


def smoke() -> Iterator[dict[str, Any]]:
    """The driver, then each call with its errors and what the compiler made of the kernels that ran first in it."""
    runtime = cupy.cuda.runtime
    yield {"device": _cuda.devices()[0], "driver": runtime.driverGetVersion(), "runtime": runtime.runtimeGetVersion()}
    seen: set[str] = set()
    for call in chain(every_call(*SIZES), known_columns(KNOWN_ROWS, KNOWN_UNITS)):
        if about_to(call.kind):
            _cuda.recent_kernels()
            got = {name: cupy.asnumpy(array) for name, array in call.run().items()}
            errors = {name: error(got[name], call.expected[name]) for name in got}
            new = {name: found for name, *found in _cuda.recent_kernels() if name not in seen}
            seen |= new.keys()
            yield {
                "call": call.kind, "errors": errors, "bound": call.bound, "ok": max(errors.values()) <= call.bound,
                "kernels": [{"name": short(name), **dict(zip(ATTRIBUTES, found))} for name, found in new.items()],
            }  # fmt: skip


def small_calls(tool: str) -> Iterator[str]:
    """The same calls in other sizes, each array an allocation of its own. One that hangs under the tool is not one that hangs."""
    cupy.cuda.set_allocator(None)
    for sizes in SANITIZED:
        for call in every_call(*sizes):
            if about_to(f"{tool}, {call.kind}", call.kind):
                call.run()
                cupy.cuda.runtime.deviceSynchronize()
                yield f"{call.kind} {sizes}"


def short(name: str) -> str:
    """A kernel's name without namespaces and arguments."""
    return re.sub(r"\([^<>]*\)$", "", re.sub(r"\(anonymous namespace\)::|mimic::|^void ", "", name))


def error(got: Any, expected: Any) -> float:
    """|got - expected| / |expected|, Euclidean norms; 1e30 where a value is not finite, as JSON has no infinity."""
    off, norm = float(np.linalg.norm(got - expected)), float(np.linalg.norm(expected))
    return off / (norm or 1.0) if np.isfinite(off) else 1e30


def every_call(B: int, k: int, H: int, C: int) -> Iterator[Call]:
    """The shallow ops in each precision, by kernels alone and around cuBLAS; steps; layers and losses; prediction."""
    there, wide = problem(B, k, H, C)
    yield from shallow(there, wide)
    yield from steps(there, wide)
    yield from layers(there, wide)
    yield from predictions(B, k, H, C)


def problem(B: int, k: int, H: int, C: int) -> tuple[list[Any], list[Any]]:
    """dy, z, U, b, W, c on the device, and in float64 on the host."""
    rng = np.random.default_rng(B)
    scales = (((B, C), 1), ((B, k), 1), ((H, k), k**-0.5), ((H,), 0.1), ((H, C), H**-0.5), ((C,), 1))
    host = [rng.standard_normal(shape).astype(np.float32) * np.float32(scale) for shape, scale in scales]
    return [cupy.asarray(array) for array in host], [array.astype(np.float64) for array in host]


def known_columns(B: int, H: int) -> Iterator[Call]:
    """The kernels of relu for columns that the compiler knows."""
    for k, C in KNOWN:
        there, wide = problem(B, k, H, C)
        grads = ops.shallow_backward(*wide[:5], backend="reference")._asdict()
        expected = {"y": ops.shallow_forward(*wide[1:], backend="reference"), **grads}

        def gradients(needs: str, arrays: list[Any] = there) -> Arrays:
            found = ops.shallow_backward(*arrays[:5], needs=tuple(needs), backend="cuda-bf16")._asdict()
            return {name: found[name] for name in needs}

        def forward(arrays: list[Any] = there) -> Arrays:
            return {"y": ops.shallow_forward(*arrays[1:], backend="cuda-bf16")}

        for kernel, run in (("forward", forward), ("rows", partial(gradients, "z")), ("units", partial(gradients, "UbW"))):
            yield Call(f"bf16 {kernel}, k = {k}, C = {C}", run, expected, KNOWN_BOUND)


def shallow(there: list[Any], wide: list[Any]) -> Iterator[Call]:
    dy, z, U, b, W, c = there
    y = ops.shallow_forward(*wide[1:], **HOW, backend="reference")
    expected = {"y": y, **ops.shallow_backward(*wide[:5], **HOW, backend="reference")._asdict()}

    def backward(needs: str, backend: str, saved: Any = None) -> Arrays:
        grads = ops.shallow_backward(dy, z, U, b, W, **HOW, saved=saved, needs=tuple(needs), backend=backend)
        return {name: grad for name, grad in grads._asdict().items() if grad is not None}

    @patch.object(by_cublas, "LONG", dict.fromkeys(by_cublas.LONG, 1 << 30))
    def by_kernels(needs: str, backend: str) -> Arrays:
        return backward(needs, backend) if needs else {"y": ops.shallow_forward(z, U, b, W, c, **HOW, backend=backend)}

    @patch.object(by_cublas, "LONG", dict.fromkeys(by_cublas.LONG, -1))
    def around_cublas(backend: str) -> Arrays:
        y, saved = ops.shallow_forward(z, U, b, W, c, **HOW, save=True, backend=backend)
        return {"y": y, **backward("zU", backend), **backward("bWc", backend, saved)}

    for precision, backend in BACKENDS.items():
        calls = {"forward": partial(by_kernels, "", backend)}
        if precision != "fp16":
            calls |= {"rows": partial(by_kernels, "z", backend), "units": partial(by_kernels, "UbW", backend)}
            calls |= {"slabs": partial(around_cublas, backend)}
        yield from (Call(f"{precision} {kind}", call, expected, BOUNDS[precision]) for kind, call in calls.items())


def steps(there: list[Any], wide: list[Any]) -> Iterator[Call]:
    """What AdamW's first step changes, with an epsilon that makes it a smooth function of the gradient."""
    dy, z, *weights = there
    grads = ops.shallow_backward(*wide[:5], **HOW, backend="reference")._asdict()
    before = dict(zip("UbWc", wide[2:]))

    def optimizer() -> AdamW:
        return AdamW(0.1, epsilon=1.0, weight_decay=0.01)

    on_host, expected = optimizer(), {"z": grads["z"]}
    on_host.advance()
    for name, array in before.items():
        after = array.copy()
        on_host.update(name, after, grads[name], "reference")
        expected[name] = after - array

    def step(dtype: str) -> Arrays:
        handle = ShallowWeights(*weights, dtype, activation="tanh")
        dz = handle.step(dy, z, optimizer(), **MASKED)
        changes = {name: cupy.asnumpy(array) - before[name] for name, array in handle.arrays().items()}
        return {"z": dz, **changes}

    yield Call("bf16 step", lambda: step("bfloat16"), expected, BOUNDS["bf16"])
    yield Call("float32 step", lambda: step("float32"), expected, 2e-4)  # of weights that are larger than what is added to them


def layers(there: list[Any], wide: list[Any]) -> Iterator[Call]:
    """Around cuBLAS, dropout, and the losses."""
    bound = BOUNDS["float32"]
    t, labels = 2 * wide[0], np.arange(len(wide[0])) % wide[0].shape[1]

    def results(dy: Any, z: Any, U: Any, b: Any, t: Any, labels: Any, **how: Any) -> Iterator[tuple[str, Callable[[], Arrays]]]:
        out = ops.linear_dropout(z, U, b, **HOW, **how)
        yield "linear_dropout", lambda: {"out": ops.linear_dropout(z, U, b, **HOW, **how)}
        yield "linear_dropout_backward", lambda: ops.linear_dropout_backward(out, z, U, out, **HOW, **how)._asdict()
        yield "dropout", lambda: {"out": ops.dropout(z, 0.5, seed=1, **how)}
        yield "mimic_loss", lambda: dict(zip(("loss", "dy"), ops.mimic_loss(dy, t, **how)))
        yield "distillation_loss", lambda: dict(zip(("loss", "dy"), ops.distillation_loss(dy, t, 2.0, **how)))
        yield "cross_entropy", lambda: dict(zip(("loss", "dy"), ops.cross_entropy(dy, labels, **how)))

    on_host = {kind: run() for kind, run in results(*wide[:4], t, labels, backend="reference")}
    for kind, run in results(*there[:4], cupy.asarray(t.astype(np.float32)), cupy.asarray(labels)):
        yield Call(kind, run, on_host[kind], bound)


def predictions(B: int, D: int, H: int, C: int) -> Iterator[Call]:
    """Of many rows, and of few with weights of each type."""

    def few(student: Student, dtype: str) -> Arrays:
        return {"y": Predictor(student, dtype).predict(there[:9])}

    x = np.random.default_rng(0).standard_normal((B, D)).astype(np.float32)
    there = cupy.asarray(x)
    for rank in (None, 20):
        on_host, on_device = Student(D, H, C, rank=rank), Student(D, H, C, rank=rank).to("cuda")
        y = on_host.predict(x)
        yield Call("predict", lambda student=on_device: {"y": student.predict(there)}, {"y": y}, BOUNDS["float32"])
        for dtype, bound in zip(DTYPES, (BOUNDS["float32"], 2e-2, 5e-2)):
            yield Call(f"serve {dtype}", partial(few, on_device, dtype), {"y": y[:9]}, bound)
