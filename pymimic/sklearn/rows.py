"""Labelled rows on their way to the trainer: those alike merged, some held out, new ones made of the others."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..backends.interface import Array
from ..data.generate import munge
from ..nets.student import Student


class Rows(NamedTuple):
    """Rows of which no two are alike, in an order that follows from their values alone."""

    x: Array  # (n, D) float32
    y: Array  # (n,) codes of classes, or (n, C) float64 targets
    weights: Array  # (n,) float64, above 0

    def take(self, chosen: Array) -> Rows:
        """Those of a mask, or of numbers (m,)."""
        return Rows(self.x[chosen], self.y[chosen], self.weights[chosen])

    def relative_weights(self) -> Array | None:
        """(n,) float32 of mean 1; None where all are alike."""
        return None if np.ptp(self.weights) == 0 else (self.weights / self.weights.mean()).astype(np.float32)


def merged(x: Array, y: Array, weights: Array | None) -> tuple[Rows, Array]:
    """Rows that are alike in x and y as one, of their weights' sum; and for each given row the number of its merged one, (N,).

    So a row of weight 2 is exactly a row that stands twice, whatever the order. -0.0 is 0.0.

    Parameters
    ----------
    x : (N, D) float32, C-contiguous
    y : (N,) or (N, C)
    weights : (N,) above 0, or None for ones
    """
    x, y = x + np.float32(0), y + y.dtype.type(0)
    weights = np.ones(len(x)) if weights is None else weights
    alike = np.unique(x.view(f"V{x.itemsize * x.shape[1]}").reshape(-1), return_inverse=True)[1].reshape(-1)
    keys = np.stack([alike.astype(np.float64), *y.reshape(len(y), -1).T])
    order = np.lexsort(keys[::-1])
    new = np.r_[True, (np.diff(keys[:, order]) != 0).any(axis=0)]
    first, numbers = np.flatnonzero(new), np.empty(len(x), np.int64)
    numbers[order] = np.cumsum(new) - 1
    return Rows(x[order[first]], y[order[first]], np.add.reduceat(weights[order], first)), numbers


def held_out(strata: Array | None, rows: int, share: float, seed: int) -> Array:
    """A mask (rows,) of that share of the rows, rounded down, at random; of each stratum for itself, given (rows,) ints."""
    order = np.random.default_rng(seed).permutation(rows)
    mask = np.zeros(rows, bool)
    if strata is None:
        mask[order[: int(share * rows)]] = True
        return mask
    for stratum in np.unique(strata):
        here = order[strata[order] == stratum]
        mask[here[: int(share * len(here))]] = True
    return mask


def with_new_cases(x: Array, student: Student, copies: int, p: float, s: float, seed: int, discrete: list[int]) -> Array:
    """x (n, D) and `copies` munged copies of it, (n (1 + copies), D) float32. Neighbours are near by what the student sees."""
    if not copies:
        return x
    assert student.mean is not None
    assert student.scale is not None
    mean, scale = student.mean.copy(), student.scale.copy()
    mean[discrete], scale[discrete] = 0, 1  # these swap, and stay the values that they were
    everything = np.empty((len(x) * (1 + copies), x.shape[1]), np.float32)
    everything[: len(x)] = x
    for i, copy in enumerate(munge((x - mean) * scale, copies, p, s, seed, discrete), 1):
        copy /= scale
        copy += mean
        everything[i * len(x) : (i + 1) * len(x)] = copy
    return everything
