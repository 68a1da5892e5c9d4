"""Ours and a rival's way of computing the same: checked against each other, then timed in interleaved rounds."""

import functools
import statistics
import time

import ceilings
import numpy as np

from pymimic.bench.suite import bounds

ROUNDS = 7
REST = 0.2  # seconds, in which a rival's threads, which wait by spinning, fall asleep: OpenBLAS' take a tenth of one
ROWS = []  # of the table that conftest.py prints at the end: (test, seconds, figures by name)


@functools.cache
def machine():
    """What the machine can do at most."""
    return ceilings.measure(tries=20)


def compare(benchmark, ours, numpy=None, *, operations=0.0, moved=0.0, tolerance=1e-4, **rivals):
    """Check `ours` against `numpy`, arrays or tuples of them, and time it beside that and other rivals.

    Relative error in Euclidean norm is at most `tolerance`. Nothing is asserted about time: the benchmark's extra information, and a
    table at the end, say GFLOP/s of `operations`, GB/s of `moved` bytes, the share of the machine's ceiling, and "x NAME", the time of
    each rival over ours.
    """
    if numpy is not None:
        for got, expected in zip(as_tuple(ours()), as_tuple(numpy()), strict=True):
            error = np.linalg.norm(got - expected) / max(np.linalg.norm(expected), 1e-30)
            assert error <= tolerance, f"relative error {error:.2g}"
        rivals["numpy"] = numpy
    if benchmark.enabled:
        times = {name: [] for name in ("ours", *rivals)}
        for _ in range(ROUNDS):  # interleaved, so that other load on the machine strikes all
            for name, call in {"ours": ours, **rivals}.items():
                times[name].append(seconds(call))
        medians = {name: statistics.median(samples) for name, samples in times.items()}
        info = benchmark.extra_info
        info["GFLOP/s"], info["GB/s"] = operations / medians["ours"] / 1e9, moved / medians["ours"] / 1e9
        info["of ceiling"] = max(bounds(machine(), "float32", operations, max(moved, 1.0))) / medians["ours"]
        info.update({f"x {name}": medians[name] / medians["ours"] for name in rivals})
        ROWS.append((benchmark.name, medians["ours"], dict(info)))
    benchmark(ours)


def seconds(call):
    """Of one call, after a rest and one that is not timed."""
    time.sleep(REST)
    call()
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def as_tuple(result):
    return result if isinstance(result, tuple) else (result,)
