"""A training step: forward, loss and all gradients, from x to dV. Run with

    pytest benchmarks --benchmark-enable -m "slow or not slow"

Nothing is asserted about time; `x_numpy` in the output is NumPy's median over ours, measured interleaved.
"""

from __future__ import annotations

import statistics
import time

import numpy as np
import pytest
from peers.mimic_step import MimicStep
from peers.numpy_step import NumpyStep
from shapes import SHAPES, arrays

FAST = ("mnist-8k", "timit-8k")


@pytest.mark.parametrize("keep", [False, True], ids=["recompute", "keep"])
@pytest.mark.parametrize("name", [pytest.param(n, marks=() if n in FAST else pytest.mark.slow) for n in SHAPES])
def test_step(benchmark, name, keep):
    shape = SHAPES[name]
    values = arrays(shape)
    ours, numpy = MimicStep(values, keep), NumpyStep(values)
    for key, expected in numpy().items():
        got = ours()[key]
        error = np.abs(got - expected).max() / np.abs(expected).max()
        assert error <= 2e-2, key  # far above rounding: a gate may flip where the pre-activation is within rounding of 0
    if benchmark.enabled:
        rivals = []
        for _ in range(7):  # interleaved, so that other load on the machine strikes both
            rivals.append((_seconds(ours), _seconds(numpy)))
        ours_median, numpy_median = (statistics.median(column) for column in zip(*rivals))
        benchmark.extra_info["numpy_ms"] = numpy_median * 1e3
        benchmark.extra_info["x_numpy"] = numpy_median / ours_median
        benchmark.extra_info["gflops"] = shape.step_operations() / ours_median / 1e9
    benchmark(ours)


def _seconds(call) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
