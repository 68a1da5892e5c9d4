"""Whole training loops with this library inside and without it: milliseconds a step.

    python benchmarks/embedding.py [--shapes small,mnist-8k,timit-8k] [--rounds 5] [--json FILE]

Each contestant has a process of its own and the whole loop: rows drawn at random, forward, squared error of logits, backward, AdamW. They
run in turns. A figure is the median of all steps; of a `fit`, whose steps cannot be told apart, its seconds by their number. `Trainer` and
`MimicRegressor` have no torch in their process. scikit-learn's own net has no bottleneck: it runs where the shape has none.
Needs `pip install ".[torch,sklearn]"`.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
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
CONTESTANTS = ("torch", "MimicNet", "MimicNet, fused", "Trainer", "MimicRegressor", "MLPRegressor")
STEPS, FIRST, SECONDS = 200, 5, 6.0  # timed at most; not timed; a process ends after so many
BATCHES, EPOCHS = 4, 25  # that the rows of a set make; of a `fit`


def rows(shape: Shape) -> tuple[Any, Any]:
    """Inputs and logits."""
    rng, count = np.random.default_rng(0), BATCHES * shape.B
    return rng.standard_normal((count, shape.D), np.float32), rng.standard_normal((count, shape.C), np.float32)


def fit(name: str, shape: Shape) -> Iterator[float]:
    """Seconds of a step of each `fit`, without torch in the process."""
    x, logits = rows(shape)
    net: Any
    if name == "Trainer":
        student, data = pm.Student(shape.D, shape.H, shape.C, shape.k), pm.TransferSet(x, logits)
        net = pm.Trainer(student, pm.AdamW(1e-3), epochs=EPOCHS, batch_size=shape.B, progress=False)
        given: tuple[Any, ...] = (data,)
    else:
        given, how = (x, logits), {"batch_size": shape.B, "random_state": 0}
        if name == "MimicRegressor":
            from pymimic.sklearn import MimicRegressor

            net = MimicRegressor(hidden=shape.H, rank=shape.k, epochs=EPOCHS, validation_fraction=0, **how)
        else:
            from sklearn.neural_network import MLPRegressor

            net = MLPRegressor(hidden_layer_sizes=(shape.H,), max_iter=EPOCHS, n_iter_no_change=EPOCHS, **how)
    while True:
        began = time.perf_counter()
        net.fit(*given)
        yield (time.perf_counter() - began) / (EPOCHS * BATCHES)


def steps(name: str, shape: Shape) -> Iterator[float]:
    """Seconds of each step of a loop of torch."""
    import torch
    from torch import nn

    import pymimic.torch as pt

    torch.manual_seed(0)
    x, logits = map(torch.from_numpy, rows(shape))
    net: Any = pt.MimicNet(shape.D, shape.H, shape.C, rank=shape.k)
    if name == "torch":
        net = net.to_sequential()
    fused = name == "MimicNet, fused"
    optimizer = net.fused_optimizer("adamw", lr=1e-3) if fused else torch.optim.AdamW(net.parameters(), lr=1e-3)
    loss = nn.MSELoss()
    while True:
        began = time.perf_counter()
        drawn = torch.randint(len(x), (shape.B,))
        optimizer.zero_grad()
        loss(net(x[drawn]), logits[drawn]).backward()
        optimizer.step()
        yield time.perf_counter() - began


def timed(name: str, shape: Shape) -> list[float]:
    """Seconds of a step, several times."""
    within_torch = name in CONTESTANTS[:3]
    times, seconds, began = (steps if within_torch else fit)(name, shape), list[float](), time.perf_counter()
    for _ in range(FIRST * within_torch):
        next(times)
    while not seconds or (len(seconds) < STEPS and time.perf_counter() - began < SECONDS):
        seconds.append(next(times))
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
    results: list[dict[str, Any]] = []
    machine = {"cpu": cpu_model(), "threads": get_num_threads()}
    for shape in given.shapes.split(","):
        runs = [name for name in CONTESTANTS if ALL[shape].k is None or name != "MLPRegressor"]
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(given.rounds):
            for name in runs:
                done = subprocess.run([sys.executable, __file__, "--one", name, shape], capture_output=True, text=True, check=True)
                seconds[name] += json.loads(done.stdout)
        medians = {name: 1e3 * statistics.median(found) for name, found in seconds.items()}
        results.append({"shape": ALL[shape]._asdict(), "milliseconds": medians})
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps({"machine": machine, "results": results}, indent=1) + "\n")
    told = [[result["milliseconds"].get(name) for name in CONTESTANTS] for result in results]
    lines = [[result["shape"]["name"], *("-" if ms is None else f"{ms:.2f}" for ms in found)] for result, found in zip(results, told)]
    print_table(Console(), ["shape", *CONTESTANTS], lines)


if __name__ == "__main__":
    main()
