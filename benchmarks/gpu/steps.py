"""A contestant of peers/ alone in its process: its results against float64, its times, and the memory that it holds."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from typing import Any

import cupy

from gpu import truth
from gpu.measure import prepare, timed, used_bytes
from gpu.watch import about_to
from pymimic.bench import worker
from pymimic.bench.shapes import SHAPES, arrays
from pymimic.bench.verify import LEARNING_RATE, WEIGHT_DECAY


def free() -> None:
    """Give back what no one needs any more."""
    gc.collect()
    if compiler := sys.modules.get("torch._dynamo"):
        compiler.reset()
    if (torch := sys.modules.get("torch")) and torch.cuda.is_available():
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
    cupy.get_default_memory_pool().free_all_blocks()


BFLOAT16 = ("pymimic_cuda_bf16", "pymimic_cuda_graph_bf16")  # of ours
KERNELS = {"forward": ("forward",), "step": ("forward", "rows", "units"), "adamw": ("forward", "rows", "step")}  # of ours


def race(shape: str, peer: str, batches: list[int], whats: list[str], patience: float = 30.0) -> Iterator[dict[str, Any]]:
    """A row for each batch and kind of work. A figure with a wrong result is marked, not left out: machines are rare.

    The first call, which may compile, must come back within `patience` seconds.
    """
    contestant = worker.load(peer)
    prepare()
    for B in batches:
        a = arrays(SHAPES[shape]._replace(B=B))
        expected = truth.net(a)
        for what in whats:
            kinds = [f"{peer} {what}", *(f"bf16 {kernel}" for kernel in KERNELS[what] if peer in BFLOAT16)]
            if not about_to(*kinds, within=patience):
                continue
            free()
            before = used_bytes()
            if what == "adamw":
                run = contestant.adamw({name: array.copy() for name, array in a.items()}, LEARNING_RATE, WEIGHT_DECAY)
            else:
                run = getattr(contestant, what)(a)
            result = run()
            got = result() if callable(result) else result
            errors = _errors(what, got, a, expected)
            del result, got
            cupy.get_default_memory_pool().free_all_blocks()
            about_to(*kinds)
            found = timed(run, 1.0)
            yield {
                "shape": shape, "B": B, "peer": peer, "title": contestant.TITLE, "what": what, "errors": errors,
                "ok": max(errors.values()) <= max(1e-3, getattr(contestant, "TOLERANCE", 0.0)), **found,
                "peak_bytes": contestant.peak_bytes(), "held_bytes": used_bytes() - before, "parameters": SHAPES[shape].parameters,
            }  # fmt: skip
            del run


def _errors(what: str, got: Any, a: dict[str, Any], expected: dict[str, Any]) -> dict[str, float]:
    if what == "forward":
        return {"y": truth.error(got, expected["y"])}
    if what == "adamw":
        return {name: truth.update_error(got[name], a[name], expected[name]) for name in a if name in got and name not in "xt"}
    return {name: truth.error(got[name], expected[name]) for name in expected if name != "y"}
