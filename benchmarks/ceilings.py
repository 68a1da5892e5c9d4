"""What the machine at hand can do at most: `python benchmarks/ceilings.py`, with --json for programs, --again for fewer tries.

float32, float64, bfloat16: GFLOP/s of multiply-adds on every thread, values in registers, best instruction set (0: not offered).
read: GB/s of summing an array of so many bytes, on every thread. copy: GB/s read and written by copying 256 MiB.
Each is the best of several tries, as a ceiling that other load has lowered is none.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from pymimic import _core, get_num_threads

READ_BYTES = (1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30)
COPY_BYTES = 256 << 20


def best_rate(work: Callable[[], float], tries: int, seconds: float) -> float:
    """The highest of `tries` rates of `work`, which returns how much it did, each over at least `seconds`; in 1e9 a second."""
    best = 0.0
    for _ in range(tries):
        done, passed, start = 0.0, 0.0, time.perf_counter()
        while passed < seconds or not done:
            done += work()
            passed = time.perf_counter() - start
        best = max(best, done / passed / 1e9)
    return best


def fma_peak(dtype: str, tries: int, seconds: float) -> float:
    """GFLOP/s, the best of the instruction sets that run here."""
    before, peaks = _core.isa(), []
    for isa in _core.runnable_isas():
        _core.set_isa(isa)
        if _core.multiply_adds(dtype, 1):
            peaks.append(best_rate(lambda: _core.multiply_adds(dtype, 100_000), tries, seconds))
    _core.set_isa(before)
    return max(peaks, default=0.0)


def read_bandwidth(nbytes: int, tries: int, seconds: float) -> float:
    """GB/s."""
    x = np.ones(nbytes // 4, np.float32)

    def read() -> float:
        _core.sum_all(x)
        return x.nbytes

    return best_rate(read, tries, seconds)


def copy_bandwidth(nbytes: int, tries: int, seconds: float) -> float:
    """GB/s read plus written, by NumPy, a part on every thread."""
    threads = get_num_threads()
    source, target = np.ones(nbytes // 4, np.float32), np.ones(nbytes // 4, np.float32)
    parts = list(zip(np.array_split(target, threads), np.array_split(source, threads)))
    with ThreadPoolExecutor(threads) as pool:

        def copy() -> float:
            list(pool.map(lambda pair: np.copyto(*pair), parts))
            return 2.0 * nbytes

        return best_rate(copy, tries, seconds)


def measure(tries: int = 50, seconds: float = 0.01, largest: int = 1 << 30) -> dict[str, Any]:
    """All of them by name, "read" by the array's bytes; no array is larger than `largest`."""
    peaks = {dtype: round(fma_peak(dtype, tries, seconds), 1) for dtype in ("float32", "float64", "bfloat16")}
    read = {str(nbytes): round(read_bandwidth(nbytes, tries, seconds), 1) for nbytes in READ_BYTES if nbytes <= largest}
    return {**peaks, "read": read, "copy": round(copy_bandwidth(min(largest, COPY_BYTES), tries, seconds), 1)}


if __name__ == "__main__":
    found = measure(3, 0.001, 4 << 20) if "--fast" in sys.argv else measure(5) if "--again" in sys.argv else measure()
    if "--json" in sys.argv:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key:<9}", value)
