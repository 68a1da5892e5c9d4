"""How fast each process is, as a share of the units."""

from __future__ import annotations

import statistics
import time

import numpy as np

from ..optimizer import SGD
from ..weights import ShallowWeights
from .group import Group

_UNITS, _STEPS = 4096, 5


def measured_shares(group: Group, rank: int, outputs: int, batch_size: int = 512) -> list[float]:
    """The share of the units that each process should have, the same list on all: by the steps a second that it makes now.

    Parameters
    ----------
    rank, outputs : k, or D without a bottleneck, and C
    batch_size : rows of a step
    """
    U, b, W, c = (np.ones(shape, np.float32) for shape in ((_UNITS, rank), (_UNITS,), (_UNITS, outputs), (outputs,)))
    wide = ShallowWeights(U, b, W, c)
    z, dy, seconds = np.ones((batch_size, rank), np.float32), np.zeros((batch_size, outputs), np.float32), list[float]()
    optimizer = SGD(0.0)
    group.told(None)  # all at the same time, as processes may share cores
    for _ in range(_STEPS):
        began = time.perf_counter()
        wide.forward(z)
        wide.step(dy, z, optimizer)
        seconds.append(time.perf_counter() - began)
    speeds = [1 / theirs for theirs in group.told(statistics.median(seconds))]
    return [speed / sum(speeds) for speed in speeds]
