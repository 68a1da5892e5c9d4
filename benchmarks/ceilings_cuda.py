"""What the GPU at hand can do at most: `python benchmarks/ceilings_cuda.py`, with --json for programs, --again for fewer tries.

float32, bfloat16: GFLOP/s of cuBLAS on random square matrices; float32 by true float32, bfloat16 by its tensor cores (float64: not
measured). read: GB/s of summing an array of so many bytes. copy: GB/s read and written by copying. Device events; each is the best of
several tries.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any

import cupy
import numpy as np

from pymimic.backends.cuda import cublas

READ_BYTES = (1 << 20, 4 << 20, 16 << 20, 64 << 20, 256 << 20, 1 << 30)


def seconds_of(work: Callable[[], Any], tries: int) -> float:
    """The least of `tries` times, after one that is not counted."""
    start, stop = cupy.cuda.Event(), cupy.cuda.Event()
    work()
    times = []
    for _ in range(tries):
        start.record()
        work()
        stop.record()
        stop.synchronize()
        times.append(cupy.cuda.get_elapsed_time(start, stop) / 1e3)
    return max(min(times), 1e-9)


def product_peak(backend: str, size: int, tries: int) -> float:
    """GFLOP/s of float32 matrices, multiplied as the backend of that name does."""
    rng = np.random.default_rng(0)
    a, b = (cupy.asarray(rng.standard_normal((size, size)).astype(np.float32)) for _ in range(2))
    out = cupy.empty((size, size), np.float32)
    return 2 * size**3 / seconds_of(lambda: cublas.multiply(a, b, out, cublas.COMPUTE_TYPES[backend]), tries) / 1e9


def measure(tries: int = 20, size: int = 8192, largest: int = 1 << 30) -> dict[str, Any]:
    """All of them by name, "read" by the array's bytes; no array is larger than `largest`."""
    read = {}
    for nbytes in (nbytes for nbytes in READ_BYTES if nbytes <= largest):
        x = cupy.ones(nbytes // 4, np.float32)
        read[str(nbytes)] = round(nbytes / seconds_of(x.sum, tries) / 1e9, 1)
    x, y = cupy.ones(largest // 4, np.float32), cupy.empty(largest // 4, np.float32)
    copy = 2 * largest / seconds_of(lambda: cupy.copyto(y, x), tries) / 1e9
    peaks = {dtype: round(product_peak(name, size, tries), 1) for dtype, name in (("float32", "cuda"), ("bfloat16", "cuda-bf16"))}
    return {**peaks, "float64": 0.0, "read": read, "copy": round(copy, 1)}


if __name__ == "__main__":
    found = measure(3, 256, 4 << 20) if "--fast" in sys.argv else measure(5) if "--again" in sys.argv else measure()
    if "--json" in sys.argv:
        print(json.dumps(found))
    else:
        for key, value in found.items():
            print(f"{key:<9}", value)
