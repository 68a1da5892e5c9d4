"""Tiny shapes for tests of `pymimic bench`, and waiting for what another process does."""

import time

from pymimic.bench.shapes import Shape

TINY = Shape("tiny", 9, 7, 3, 40, 2)
DENSE = Shape("dense", 9, 7, None, 40, 2)


def comes_true(condition, seconds=20):
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.02)
    return condition()
