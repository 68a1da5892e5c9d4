"""Means, standard deviations and covariances of rows that come block by block, in float64."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from ..backends.interface import Array

_BLOCK = 1024  # rows at once

TINY = float(np.finfo(np.float32).tiny)
"""The least deviation that float32 holds in full, and whose inverse it holds."""


def moments(blocks: Iterable[Array]) -> tuple[Array, Array]:
    """Mean and standard deviation of each column, both float64; a constant column has deviation 1, so that dividing by it is safe.

    A deviation counts as none where it is below the grain of float32 at the mean, or below `TINY`: float32 could not hold its inverse.

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
    return mean, np.where(deviation <= np.maximum(1e-7 * np.abs(mean), TINY), 1.0, deviation)


def covariance(blocks: Iterable[Array], columns: int) -> Array:
    """sum x x^T / rows, (columns, columns) float64, of blocks whose columns have mean 0."""
    total = np.zeros((columns, columns))
    count = 0
    for block in blocks:
        wide = block.astype(np.float64)
        total += wide.T @ wide
        count += len(block)
    return total / max(1, count)


def mean_and_spread(x: Array, ridge: float) -> tuple[Array, Array]:
    """Mean (columns,) and covariance (columns, columns) of the rows x, float64; `ridge` times its mean diagonal is added to the diagonal.

    It can be inverted then: of rows that don't vary at all it is the identity.
    """
    mean, columns = x.mean(axis=0, dtype=np.float64), x.shape[1]
    spread = covariance((x[start : start + _BLOCK] - mean for start in range(0, len(x), _BLOCK)), columns)
    more = ridge * np.trace(spread) / columns
    return mean, spread + (more or 1.0) * np.eye(columns)


def whitened_components(blocks: Iterable[Array], columns: int, count: int, epsilon: float) -> Array:
    """The `count` first principal components (count, columns) float64, each over sqrt(eigenvalue + epsilon).

    Each has its largest entry positive. Blocks have columns of mean 0.
    """
    values, vectors = np.linalg.eigh(covariance(blocks, columns))  # ascending
    values, components = values[::-1][:count], vectors[:, ::-1][:, :count].T
    largest = np.take_along_axis(components, np.abs(components).argmax(axis=1)[:, None], axis=1)
    return np.asarray(components * np.sign(largest) / np.sqrt(np.maximum(values, 0) + epsilon)[:, None])


def standardisation(blocks: Iterable[Array], columns: int, how: str) -> tuple[Array, Array]:
    """mean and 1 / deviation (columns,) float32, of "each" column by itself or of "all" alike; ValueError where x - mean would overflow."""
    if how not in ("each", "all"):
        raise ValueError(f"standardise: expected 'each', 'all' or None, got {how!r}")
    least, most = np.full(columns, np.inf, np.float32), np.full(columns, -np.inf, np.float32)

    def watched() -> Iterator[Array]:
        for x in blocks:
            np.minimum(least, x.min(axis=0), out=least, casting="same_kind")
            np.maximum(most, x.max(axis=0), out=most, casting="same_kind")
            yield x if how == "each" else x.reshape(-1, 1)

    mean, deviation = moments(watched())
    centre, scale = np.full(columns, mean, np.float32), np.full(columns, 1 / deviation, np.float32)
    with np.errstate(over="ignore"):
        overflows = np.isinf(least - centre) | np.isinf(most - centre)
    if overflows.any():
        column = int(overflows.argmax())
        raise ValueError(
            f"data: expected inputs that float32 still holds when their mean is subtracted, got [{least[column]:g}, {most[column]:g}] "
            f"in column {column}, of mean {centre[column]:g}: scale them first"
        )
    return centre, scale
