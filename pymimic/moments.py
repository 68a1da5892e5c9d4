"""Means, standard deviations and covariances of rows that come block by block, in float64."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from .backends.interface import Array


def moments(blocks: Iterable[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation of each column, both float64; a constant column has deviation 1, so that dividing by it is safe.

    Blocks are merged by the pairwise rule of Chan, Golub & LeVeque (1979), which does not cancel when the mean is large.
    """
    count = 0
    mean = square = np.zeros(0)
    for block in blocks:
        if len(block) == 0:
            continue
        here = block.mean(axis=0, dtype=np.float64)
        spread = np.square(block - here).sum(axis=0)
        if count == 0:
            count, mean, square = len(block), here, spread
            continue
        total = count + len(block)
        delta = here - mean
        mean = mean + delta * (len(block) / total)
        square = square + spread + np.square(delta) * (count * len(block) / total)
        count = total
    if count == 0:
        raise ValueError("blocks: expected at least one row, got none")
    deviation = np.sqrt(square / count)
    constant = deviation <= 1e-7 * np.abs(mean)  # below float32's grain
    return mean, np.where(constant | (deviation == 0), 1.0, deviation)


def covariance(blocks: Iterable[Array], columns: int) -> Array:
    """sum x x^T / rows, (columns, columns) float64, of blocks whose columns have mean 0."""
    total = np.zeros((columns, columns))
    count = 0
    for block in blocks:
        wide = block.astype(np.float64)
        total += wide.T @ wide
        count += len(block)
    return total / max(1, count)
