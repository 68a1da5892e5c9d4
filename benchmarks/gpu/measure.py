"""Times as the device counts them: warmed up, the second-level cache flushed before each call, the median of many."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import cupy

FLUSH_BYTES = 512 << 20  # several times the cache; long enough to write for the next call to be enqueued meanwhile
LEAST, MOST = 5, 60  # calls

_flush: list[Any] = []


def prepare() -> None:
    """Take the buffer for the flushes, before anyone counts memory."""
    if not _flush:
        _flush.append(cupy.empty(FLUSH_BYTES, cupy.uint8))


def timed(call: Callable[[], Any], seconds: float = 0.5) -> dict[str, Any]:
    """Median and quartiles of one call's seconds on the default stream, and the host's to enqueue it; over some `seconds` of calls."""
    prepare()
    for _ in range(2):
        call()
    cupy.cuda.runtime.deviceSynchronize()
    first = _events(call, 1)[0][0]
    calls = max(LEAST, min(MOST, int(seconds / max(first, 1e-6))))
    times, host = _events(call, calls)
    low, median, high = statistics.quantiles(times, n=4)
    return {"seconds": median, "low": low, "high": high, "calls": calls, "host_seconds": statistics.median(host)}


def _events(call: Callable[[], Any], calls: int) -> tuple[list[float], list[float]]:
    events, host = [], []
    for number in range(calls):
        start, stop = cupy.cuda.Event(), cupy.cuda.Event()
        _flush[0].fill(number % 251)
        start.record()
        begun = time.perf_counter()
        call()
        host.append(time.perf_counter() - begun)
        stop.record()
        events.append((start, stop))
    cupy.cuda.runtime.deviceSynchronize()
    return [cupy.cuda.get_elapsed_time(start, stop) / 1e3 for start, stop in events], host


def used_bytes() -> int:
    """What all of this device's processes hold of its memory."""
    free, total = cupy.cuda.runtime.memGetInfo()
    return int(total - free)
