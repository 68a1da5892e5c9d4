"""Training steps over several processes: seconds, bytes given to the others, and memory of each, beside what was predicted.

    torchrun --nproc-per-node 2 benchmarks/distributed.py [--shape B,D,k,H,C] [--steps 20] [--reproducible] [--json FILE]

Also without torchrun, in one process. The student is a `ShardedStudent`: no process has the units of all. A step is forward, squared error,
backward and AdamW's update, of V too. Predicted memory: five times the process's weights, and some of a batch.
Without Linux's /proc memory is not told.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from pymimic import AdamW, Trainer
from pymimic.bench.machine import cpu_model
from pymimic.bench.memory import peak_bytes
from pymimic.distributed import Group, ShardedStudent, joined
from pymimic.threads import get_num_threads


class Rows:
    """Batches of random rows, made as they are asked for."""

    def __init__(self, B: int, D: int, C: int, steps: int) -> None:
        self.inputs, self.outputs, self._rows = D, C, B * steps  # as `pymimic.Cases` has them
        rng = np.random.default_rng(0)
        self._x, self._t = rng.standard_normal((B, D), np.float32), rng.standard_normal((B, C), np.float32)

    def __len__(self) -> int:
        return self._rows

    def batch(self, indices: Any) -> tuple[Any, Any, None]:
        rows = np.asarray(indices) % len(self._x)
        return self._x[rows], self._t[rows], None


class Counted(AdamW):
    """Notes when each step begins."""

    def __init__(self, *given: Any, **named: Any) -> None:
        self.times: list[float] = []
        super().__init__(*given, **named)

    def advance(self) -> None:
        self.times.append(time.perf_counter())
        super().advance()


def predicted_bytes(B: int, D: int, k: int, units: int, C: int) -> int:
    """The student's weights, the working ones with two slots, a copy of these as they become the student's, and a batch."""
    own, shared = units * (k + 1 + C), k * D + C
    return 4 * (5 * (own + shared) + B * (2 * D + 4 * k + 4 * C))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="512,784,64,1000000,10", help="B,D,k,H,C")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--reproducible", action="store_true")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    B, D, k, H, C = map(int, given.shape.split(","))
    group: Group = joined()
    before = peak_bytes()
    sent, add, gather = [], group.sum, group.gather
    group.sum = lambda array: (sent.append(array.nbytes), add(array))[1]  # type: ignore[method-assign]
    group.gather = lambda array: (sent.append(array.nbytes), gather(array))[1]  # type: ignore[method-assign]
    student = ShardedStudent(D, H, C, k, group=group, reproducible=given.reproducible)
    optimizer = Counted(1e-4)
    warnings.filterwarnings("ignore", ".*: expected a loss below")  # so few steps teach nothing
    Trainer(student, optimizer, epochs=1, batch_size=B, progress=False).fit(Rows(B, D, C, 1))  # makes slots, and what is made once
    sent.clear()
    optimizer.times.clear()
    Trainer(student, optimizer, epochs=1, batch_size=B, progress=False).fit(Rows(B, D, C, given.steps))
    mine = {
        "units": len(student.units), "seconds": statistics.median(np.diff(optimizer.times)),
        "peak_bytes": peak_bytes(), "at_start_bytes": before,
        "predicted_bytes": before and before + predicted_bytes(B, D, k, len(student.units), C), "bytes_a_step": sum(sent) / given.steps,
    }  # fmt: skip
    everyone = group.told(mine)
    if group.rank == 0:
        machine = {"cpu": cpu_model(), "threads": get_num_threads()}
        result = {"shape": dict(zip("BDkHC", (B, D, k, H, C))), "reproducible": given.reproducible, "machine": machine, "ranks": everyone}
        print(json.dumps(result, indent=1))
        if given.json:
            given.json.parent.mkdir(parents=True, exist_ok=True)
            given.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
