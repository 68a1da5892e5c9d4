"""Seconds of a forward pass and of a fused step against B, k, H, C and threads: measured over a grid, and fitted.

    python benchmarks/cost_model.py --json docs/cost-model.json

The model has four terms, each with a meaning, and no other: multiply-adds that one thread executes, values of h that it handles outside
products (bias, activation, packing), bytes of weights that all threads together stream from memory, and meetings of the threads.
docs/scaling.md draws from it what more cores would do.
"""

import argparse
import itertools
import json
import math
import time
from pathlib import Path

import numpy as np

import pymimic
from pymimic import SGD, ShallowWeights, plan
from pymimic.bench import machine

TERMS = ("seconds per multiply-add", "seconds per value of h", "seconds per byte of weights", "seconds per meeting")
GRID = [
    (B, k, H, C)
    for B, (k, C) in itertools.product((64, 256, 1024), ((16, 4), (64, 10), (64, 128), (250, 10), (250, 183), (600, 64)))
    for H in (4096, 32768)
    if B * H * (k + C) < 6e9
]


def features(what: str, B: int, k: int, H: int, C: int, threads: int) -> list[float]:
    """What the four seconds are multiplied by. Rows come in panels of 32, which threads share out."""
    how = plan(B, k, k, H, C)
    panels = math.ceil(B / 32)
    used = min(threads, panels if what == "forward" else min(panels, how.row_block // 32))
    rows = 32 * math.ceil(panels / used)  # of the busiest thread
    products = rows * H * (k + C) if what == "forward" else rows * H * (3 * k + 2 * C)
    meetings = math.ceil(H / how.slab) * math.ceil(B / how.row_block) if what == "step" and used > 1 else 1
    passes = 1 if what == "forward" else 3  # a step reads weights, and reads and writes their masters
    return [products, rows * H * (1 if what == "forward" else 2), 4 * H * (k + C) * passes, meetings]


def measure(what: str, B: int, k: int, H: int, C: int, threads: int) -> float:
    """The median of at least seven runs."""
    pymimic.set_num_threads(threads)
    rng = np.random.default_rng(0)
    z, U, b, W, c, dy = (rng.standard_normal(s, dtype=np.float32) for s in ((B, k), (H, k), (H,), (H, C), (C,), (B, C)))
    wide, optimizer = ShallowWeights(U, b, W, c), SGD(1e-9)
    run = (lambda: wide.forward(z)) if what == "forward" else (lambda: wide.step(dy, z, optimizer))
    run()
    times = []
    while len(times) < 7 or (sum(times) < 0.3 and len(times) < 100):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def fit(rows: list[list[float]], seconds: list[float]) -> np.ndarray:
    """Least squares of the relative error, with terms that would be negative left out."""
    A, t = np.array(rows), np.array(seconds)
    scaled, kept = A / t[:, None], list(range(A.shape[1]))
    while True:
        found = np.linalg.lstsq(scaled[:, kept], np.ones(len(t)), rcond=None)[0]
        if (found >= 0).all():
            break
        kept.pop(int(found.argmin()))
    result = np.zeros(A.shape[1])
    result[kept] = found
    return result


def as_text(result: dict) -> str:
    """JSON with a line for each sample."""
    samples = ",\n".join(json.dumps(sample) for sample in result["samples"])
    return json.dumps(result | {"samples": []}, indent=1).replace('"samples": []', f'"samples": [\n{samples}\n]') + "\n"


def main() -> None:
    """Measure, fit, print, keep."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    result = {"format": 1, "machine": machine.describe(), "terms": TERMS, "fits": {}, "samples": []}
    cores = pymimic.get_num_threads()
    for what in ("forward", "step"):
        cases = [(what, *shape, threads) for shape in GRID for threads in sorted({1, cores})]
        seconds = [measure(*case) for case in cases]
        rows = [features(*case) for case in cases]
        terms = fit(rows, seconds)
        model = np.array(rows) @ terms
        off = np.abs(model / np.array(seconds) - 1)
        result["fits"][what] = {"terms": terms.tolist(), "off_median": float(np.median(off)), "off_worst": float(off.max())}
        result["samples"] += [{"case": case, "seconds": t, "model": float(m)} for case, t, m in zip(cases, seconds, model)]
        print(f"{what}: " + ", ".join(f"{value:.3g} {term}" for term, value in zip(TERMS, terms)))
        print(f"  {2e-9 / terms[0]:.0f} GFLOP/s a thread; off by {np.median(off):.0%} in the median, {off.max():.0%} at worst")
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(as_text(result))


if __name__ == "__main__":
    main()
