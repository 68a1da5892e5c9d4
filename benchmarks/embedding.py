"""Whole training loops of torch, with its own layers and with pymimic's: milliseconds a step.

    python benchmarks/embedding.py [--shapes small,mnist-8k,timit-8k] [--rounds 5] [--json FILE]

Each contestant has a process of its own and the whole loop: rows drawn at random, forward, squared error of logits, backward, AdamW. They
run in turns; a figure is the median over all their steps. `alone` is the fused step without torch, its products with V by NumPy. Needs
`pip install "pymimic[torch]"`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console

import pymimic as pm
from pymimic.bench.machine import cpu_model
from pymimic.bench.shapes import SHAPES, Shape
from pymimic.tables import print_table
from pymimic.threads import get_num_threads

ALL = {"small": Shape("small", 64, 16, None, 256, 10), **SHAPES}
CONTESTANTS = ("torch", "MimicNet", "MimicNet, fused", "alone")
STEPS, FIRST, SECONDS = 200, 5, 6.0  # timed at most; not timed; a process ends after so many


def batches(shape: Shape) -> Iterator[tuple[Any, Any]]:
    """Rows and logits, each batch drawn from four times as many."""
    import torch

    torch.manual_seed(0)
    x, logits = torch.randn(4 * shape.B, shape.D), torch.randn(4 * shape.B, shape.C)
    while True:
        rows = torch.randint(len(x), (shape.B,))
        yield x[rows], logits[rows]


def alone(shape: Shape) -> Callable[[], None]:
    """A step without torch in the process, and without drawing rows."""
    rng, optimizer = np.random.default_rng(0), pm.AdamW(1e-3)
    x, logits = rng.standard_normal((shape.B, shape.D), np.float32), rng.standard_normal((shape.B, shape.C), np.float32)
    arrays = pm.Student(shape.D, shape.H, shape.C, shape.k).arrays()
    V, wide = arrays.pop("V", None), pm.ShallowWeights(**arrays)

    def step() -> None:
        z = x if V is None else x @ V.T
        _, dy = pm.ops.mimic_loss(wide.forward(z), logits)
        dz = wide.step(dy, z, optimizer)
        if V is not None:
            optimizer.update("V", V, dz.T @ x)

    return step


def loop(name: str, shape: Shape) -> Callable[[], None]:
    """A step of a contestant."""
    if name == "alone":
        return alone(shape)
    import torch
    from torch import nn

    import pymimic.torch as pt

    data = batches(shape)
    net: Any = pt.MimicNet(shape.D, shape.H, shape.C, rank=shape.k)
    if name == "torch":
        net = net.to_sequential()
    fused = name == "MimicNet, fused"
    optimizer = net.fused_optimizer("adamw", lr=1e-3) if fused else torch.optim.AdamW(net.parameters(), lr=1e-3)
    loss = nn.MSELoss()

    def torch_step() -> None:
        x, logits = next(data)
        optimizer.zero_grad()
        loss(net(x), logits).backward()
        optimizer.step()

    return torch_step


def timed(name: str, shape: Shape) -> list[float]:
    """Seconds of each step."""
    step, seconds, began = loop(name, shape), list[float](), time.perf_counter()
    for _ in range(FIRST):
        step()
    while not seconds or (len(seconds) < STEPS and time.perf_counter() - began < SECONDS):
        started = time.perf_counter()
        step()
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="small,mnist-8k,timit-8k", help=f"of {', '.join(ALL)}")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each contestant")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)  # a contestant's process
    given = parser.parse_args()
    if given.one:
        name, shape = given.one
        print(json.dumps(timed(name, ALL[shape])))
        return
    results = []
    for shape in given.shapes.split(","):
        seconds: dict[str, list[float]] = {name: [] for name in CONTESTANTS}
        for _ in range(given.rounds):
            for name in CONTESTANTS:
                done = subprocess.run([sys.executable, __file__, "--one", name, shape], capture_output=True, text=True, check=True)
                seconds[name] += json.loads(done.stdout)
        results.append({"shape": shape, "milliseconds": {name: 1e3 * statistics.median(found) for name, found in seconds.items()}})
    lines = [[result["shape"], *(f"{value:.2f}" for value in result["milliseconds"].values())] for result in results]
    print_table(Console(), ["shape", *CONTESTANTS], lines)
    if given.json:
        machine = {"cpu": cpu_model(), "threads": get_num_threads()}
        given.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
