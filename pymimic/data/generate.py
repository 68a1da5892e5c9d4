"""New cases from old ones, for a teacher to label: MUNGE and Gaussian noise, one copy of the set at a time."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np

from .. import _check
from ..backends.interface import Array

_CANDIDATES = 8  # neighbours asked of scikit-learn, to see ties
_CHUNK = 1 << 21  # distances held at once


def munge(x: Array, copies: int, p: float, s: float, seed: int, discrete: Sequence[int] = ()) -> Iterator[Array]:
    """Yield `copies` munged versions of x, each of shape (N, D): copies * N cases that lie near the manifold of x.

    Bucila, Caruana & Niculescu-Mizil 2006, algorithm 1. A copy visits every example e once, in the order of x, and pairs it with its
    nearest neighbour e' in x. With probability p an attribute a is exchanged between these two rows of the copy: e_a ~ N(e'_a, sd) and
    e'_a ~ N(e_a, sd) of the values as they were, with sd = |e_a - e'_a| / s. Discrete attributes swap. Nothing is clipped.

    The nearest neighbour is the one by Euclidean distance over continuous attributes, where a discrete attribute that differs adds 1 to the
    squared distance; of several equally near (to rounding) it is the first in x.

    One copy is in memory at a time, so a set larger than memory can be made: `TransferSet.create` takes the generator.

    Parameters
    ----------
    x : (N, D) float32 or float64 array, N at least 2; continuous attributes scaled to [0, 1], so that they weigh alike
    copies : how many (N, D) arrays to yield
    p : probability in [0, 1] that an attribute is exchanged
    s : local variance parameter, above 0: the larger, the closer to a plain exchange; inf is one
    seed : copy i draws from numpy.random.SeedSequence(seed, spawn_key=(i,))
    discrete : indices of the attributes that swap

    Yields
    ------
    (N, D) float32 arrays.

    Raises
    ------
    ValueError, TypeError
        On a bad argument, at the call; NaN or infinity in x names the row.
    """
    x = _cases(x, copies)
    if len(x) < 2:
        raise ValueError(f"x: expected at least 2 rows, as each is paired with another, got {len(x)}")
    if not 0 <= p <= 1:
        raise ValueError(f"p: expected a probability in [0, 1], got {p}")
    if not s > 0:
        raise ValueError(f"s: expected a number above 0, got {s}")
    swaps = sorted({_check.integer("discrete", index, 0, x.shape[1]) for index in discrete})
    streams = _streams(seed)
    neighbour = _nearest(_features(x, swaps))
    rounds = _rounds(neighbour)
    return (_munged(x, neighbour, rounds, p, s, swaps, streams(i)) for i in range(copies))


def gaussian_noise(x: Array, copies: int, sigma: float | Array, seed: int) -> Iterator[Array]:
    """Yield `copies` versions of x, each of shape (N, D), with independent normal noise added.

    Parameters
    ----------
    x : (N, D) float32 or float64 array
    copies : how many (N, D) arrays to yield
    sigma : standard deviation in units of x, at least 0; a number, or a (D,) array with one for each attribute
    seed : copy i draws from numpy.random.SeedSequence(seed, spawn_key=(i,))

    Yields
    ------
    (N, D) float32 arrays.

    Raises
    ------
    ValueError, TypeError
        On a bad argument, at the call; NaN or infinity in x names the row.
    """
    x = _cases(x, copies)
    deviation = np.asarray(sigma, np.float32)
    if deviation.shape not in ((), x.shape[1:]) or not (np.isfinite(deviation) & (deviation >= 0)).all():
        raise ValueError(f"sigma: expected finite deviations of at least 0, one or (D,) = {x.shape[1:]}, got {sigma}")
    streams = _streams(seed)
    return (x + deviation * streams(i).standard_normal(x.shape, dtype=np.float32) for i in range(copies))


def _cases(x: object, copies: int) -> Array:
    """`x` as finite float32 (N, D)."""
    array = _check.Dims().array("x", x, "N", "D").astype(np.float32)
    _check.finite("x", array)
    _check.integer("copies", copies, 0, 1 << 63)
    return array


def _streams(seed: int) -> Callable[[int], np.random.Generator]:
    """The generator of each copy."""
    _check.integer("seed", seed, 0, 1 << 64)
    return lambda copy: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(copy,)))


def _munged(
    x: Array, neighbour: Array, rounds: list[Array], p: float, s: float, swaps: list[int], rng: np.random.Generator
) -> Array:  # fmt: skip
    """One copy. Pairs that share no row are drawn together: the result is that of visiting one example after the other."""
    copy = x.copy()
    for rows in rounds:
        others = neighbour[rows]
        e, other = copy[rows], copy[others]
        exchanged = rng.random(e.shape, dtype=np.float32) < p
        noise = rng.standard_normal((2, *e.shape), dtype=np.float32)
        noise *= np.abs(e - other) / np.float32(s)
        noise[..., swaps] = 0
        copy[rows] = np.where(exchanged, other + noise[0], e)
        copy[others] = np.where(exchanged, e + noise[1], other)
    return copy


def _rounds(neighbour: Array) -> list[Array]:
    """The pairs (i, neighbour[i]) in rounds that touch no row twice; pairs that share a row keep their order."""
    free = [0] * len(neighbour)  # the first round in which a row is free
    round_of = np.empty(len(neighbour), np.int64)
    for i, j in enumerate(neighbour.tolist()):
        round_of[i] = now = max(free[i], free[j])
        free[i] = free[j] = now + 1
    order = np.argsort(round_of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(round_of))[:-1])


def _features(x: Array, swaps: list[int]) -> Array:
    """float64 columns in which Euclidean distance is the one of `munge`: a discrete attribute becomes one-hot / sqrt(2)."""
    columns = [np.delete(x, swaps, axis=1).astype(np.float64)]
    for index in swaps:
        values, code = np.unique(x[:, index], return_inverse=True)
        columns.append(np.eye(len(values))[code.reshape(-1)] * math.sqrt(0.5))
    return np.hstack(columns)


def _nearest(features: Array) -> Array:
    """The row nearest to each row, other than itself; of several within `slack`, which is rounding alone, the first."""
    squares = np.einsum("ij,ij->i", features, features)
    slack = 4 * (features.shape[1] + 8) * np.finfo(np.float64).eps * float(squares.max())
    try:
        neighbors = importlib.import_module("sklearn.neighbors")
    except ImportError:
        return _brute_force(features, squares, np.arange(len(features)), slack)
    asked = min(_CANDIDATES, len(features) - 1)
    distance, index = neighbors.NearestNeighbors(n_neighbors=asked).fit(features).kneighbors()
    tied = distance**2 <= distance[:, :1] ** 2 + slack
    nearest: Array = np.where(tied, index, len(features)).min(axis=1)
    unseen = np.flatnonzero(tied[:, -1])  # there may be more ties than were asked for
    nearest[unseen] = _brute_force(features, squares, unseen, slack)
    return nearest


def _brute_force(features: Array, squares: Array, rows: Array, slack: float) -> Array:
    """`_nearest` for some rows, from all distances, some rows at a time."""
    nearest = np.empty(len(rows), np.int64)
    step = max(1, _CHUNK // len(features))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        distance = squares - 2 * (features[chunk] @ features.T)  # squared, less |row|^2
        distance[np.arange(len(chunk)), chunk] = np.inf
        nearest[start : start + step] = np.argmax(distance <= distance.min(axis=1, keepdims=True) + slack, axis=1)
    return nearest
