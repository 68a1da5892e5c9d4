"""New cases from old ones, for a teacher to label: MUNGE, copy by copy or as a generator of cases, and copies with Gaussian noise."""

from __future__ import annotations

import importlib
import math
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check
from ..backends.interface import Array
from .fingerprint import digest
from .generators import Noise, demand_called, demand_rows, each_copy, still_finite, streams

_CANDIDATES = (9, 129)  # neighbours to ask scikit-learn for, with the row itself: a few, then more for rows where these do not decide
_FEW_ROWS = 256  # up to so many rows all distances are computed, as a search is slower
_CHUNK = 1 << 21  # distances held at once


def munge(
    x: Array, copies: int, p: float = 0.2, s: float = 5.0, seed: int = 0, discrete: Sequence[int] = ()
) -> Iterator[Array]:  # fmt: skip
    """Yield `copies` munged versions of x, each of shape (N, D): copies * N cases that lie near the manifold of x.

    Bucila, Caruana & Niculescu-Mizil 2006, algorithm 1. A copy visits every example e once, in the order of x, and pairs it with its
    nearest neighbour e' in x. With probability p an attribute a is exchanged between these two rows of the copy: e_a ~ N(e'_a, sd) and
    e'_a ~ N(e_a, sd) of the values as they were, with sd = |e_a - e'_a| / s. Discrete attributes swap. Nothing is clipped.

    The nearest neighbour is the one by Euclidean distance over continuous attributes, where a discrete attribute that differs adds 1 to the
    squared distance; of several equally near (to rounding) it is the first in x.

    One copy is in memory at a time, so a set larger than memory can be made: `TransferSet.create` takes what is returned, an iterator that
    cannot be pickled: call `munge` where the rows are wanted.

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
    x = demand_rows(x)
    copies = _check.integer("copies", copies, 0, 1 << 63)
    p, s = demand_p_s(p, s)
    swaps, neighbour = _pairs(x, discrete)
    stream, rounds = streams(seed), _rounds(neighbour)
    return (_munged(x, neighbour, rounds, p, s, swaps, stream(i)) for i in range(copies))


class Munge:
    """A generator of cases that munges rows of x: each new case is a row e drawn at random, exchanged with its nearest neighbour e' in x.

    With probability p an attribute of the case is drawn from N(e'_a, |e_a - e'_a| / s), else it is e_a; a discrete one is e'_a or e_a. So
    a case is exchanged once, where `munge` exchanges a row of a copy twice on average: as e, and as the neighbour of others. The
    batch only says how many cases are drawn.

    Parameters
    ----------
    x : (N, D) float32 or float64 array, N at least 2; its neighbours are looked for once, here
    p, s, discrete : see `munge`
    """

    def __init__(self, x: Array, p: float = 0.2, s: float = 5.0, discrete: Sequence[int] = ()) -> None:
        self._x, (self._p, self._s) = demand_rows(x), demand_p_s(p, s)
        self._swaps, self._neighbour = _pairs(self._x, discrete)

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """As many new cases as x (B, D) has rows."""
        x = demand_called(x, rng, self._x.shape[1])
        rows = rng.integers(len(self._x), size=len(x))
        e, other = self._x[rows], self._x[self._neighbour[rows]]
        exchanged = rng.random(e.shape, dtype=np.float32) < self._p
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused next
            (noise,) = _noise(e, other, self._s, self._swaps, rng, 1)
            return _still_finite(np.where(exchanged, other + noise, e), self._s)

    def __repr__(self) -> str:
        x = f"<{self._x.shape}, sha256 {(digest(self._x) or '')[:16]}>"
        return f"Munge({x}, p={self._p!r}, s={self._s!r}, discrete={self._swaps!r})"


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
    x = demand_rows(x)
    copies = _check.integer("copies", copies, 0, 1 << 63)
    noise = Noise(sigma)
    noise.deviation(x.shape[1])  # raises at the call, not at the first row
    return each_copy(noise, x, copies, seed)


def demand_p_s(p: float, s: float) -> tuple[float, float]:
    """Demand a probability, and a number above 0 or infinity, as float32, which is what it ends as."""
    p = _check.number("p", p, 0, most=1, what="a probability")
    if isinstance(s, (float, np.floating)) and np.isposinf(s):
        return p, math.inf
    return p, _check.number("s", s, above=0, float32=True)


def demand_discrete(discrete: Sequence[int], columns: int) -> list[int]:
    """Demand the numbers of attributes, of so many, that swap; they come sorted, each once."""
    given = _check.sequence("discrete", discrete, "attributes' numbers")
    return sorted({_check.integer("discrete", index, 0, columns) for index in given})


def _pairs(x: Array, discrete: Sequence[int]) -> tuple[list[int], Array]:
    """The attributes that swap, and the number of each row's neighbour."""
    if len(x) < 2:
        raise ValueError(f"x: expected at least 2 rows, as each is paired with another, got {len(x)}")
    swaps = demand_discrete(discrete, x.shape[1])
    return swaps, _nearest(_features(x, swaps))


def _munged(
    x: Array, neighbour: Array, rounds: list[Array], p: float, s: float, swaps: list[int], rng: np.random.Generator
) -> Array:  # fmt: skip
    """One copy. Pairs that share no row are drawn together: the result is that of visiting one example after the other."""
    copy = x.copy()
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused afterwards
        for rows in rounds:
            others = neighbour[rows]
            e, other = copy[rows], copy[others]
            exchanged = rng.random(e.shape, dtype=np.float32) < p
            noise = _noise(e, other, s, swaps, rng, 2)
            copy[rows] = np.where(exchanged, other + noise[0], e)
            copy[others] = np.where(exchanged, e + noise[1], other)
    return _still_finite(copy, s)


def _still_finite(new: Array, s: float) -> Array:
    return still_finite(new, f"s: expected a number so large that rows stay finite as float32, got {s:g}")


def _noise(e: Array, other: Array, s: float, swaps: list[int], rng: np.random.Generator, count: int) -> Array:
    """(count, n, D): of deviation |e - other| / s where attributes don't swap."""
    noise = rng.standard_normal((count, *e.shape), dtype=np.float32)
    noise *= np.abs(e - other) / np.float32(s)
    noise[..., swaps] = 0
    return noise


def _rounds(neighbour: Array) -> list[Array]:
    """The pairs (i, neighbour[i]) in rounds that touch no row twice; pairs that share a row keep their order."""
    free = [0] * len(neighbour)  # the first round in which a row is free
    round_of = np.empty(len(neighbour), np.int64)
    for i, j in enumerate(neighbour.tolist()):
        round_of[i] = now = max(free[i], free[j])
        free[i] = free[j] = now + 1
    order = np.argsort(round_of, kind="stable")
    return np.split(order, np.cumsum(np.bincount(round_of))[:-1])


class _Features(NamedTuple):
    """What distances are made of: squared, they are those of the amounts, and 1 more for each code that differs."""

    amounts: Array  # (N, A) float64, the continuous attributes about their mean
    codes: Array  # (N, m) int32, the discrete attributes

    def differing(self, rows: Array, others: Array) -> Array:
        """How many codes differ between rows and others, given by their numbers, in arrays that NumPy can broadcast."""
        count = np.zeros(np.broadcast_shapes(rows.shape, others.shape), np.int64)
        for code in self.codes.T:
            count += code[rows] != code[others]
        return count


def _features(x: Array, swaps: list[int]) -> _Features:
    """Without the discrete attributes in which no pair of rows differs, or every pair does."""
    amounts = np.delete(x, swaps, axis=1).astype(np.float64)
    amounts -= amounts.mean(axis=0).astype(np.float32)  # this leaves distances as they are, and rounding errors smaller
    codes = [np.unique(x[:, index], return_inverse=True)[1].reshape(-1) for index in swaps]
    kept = [code.astype(np.int32) for code in codes if 0 < code.max() < len(x) - 1]
    return _Features(amounts, np.stack(kept, axis=1) if kept else np.zeros((len(x), 0), np.int32))


def _nearest(features: _Features, slack: float | None = None) -> Array:
    """The row nearest to each row, other than itself; of several within `slack`, which is rounding alone, the first.

    A row's nearest either has the same codes, and is found among those rows, or differs in a code. Then it is among the nearest by amounts:
    a row further off than the last of these is further by 1 at least than the amounts say. Where that leaves doubts, all distances decide.
    """
    amounts, codes = features
    rows = len(amounts)
    squares = np.einsum("ij,ij->i", amounts, amounts)
    if slack is None:
        columns = amounts.shape[1] + codes.shape[1]
        slack = 4 * (columns + 8) * np.finfo(np.float64).eps * (float(squares.max()) + codes.shape[1])
    neighbors = _scikit_learn() if rows > _FEW_ROWS and amounts.shape[1] else None
    if neighbors is None:
        return _brute_force(features, squares, np.arange(rows), slack)
    nearest, distance = np.full(rows, rows), np.full(rows, np.inf)
    for alike in _alike(codes):
        others = alike[_nearest(_Features(amounts[alike], codes[alike, :0]), slack)]
        nearest[alike], distance[alike] = others, np.square(amounts[alike] - amounts[others]).sum(axis=1)
    further = 1 if codes.shape[1] else 0
    tree, doubtful = neighbors.NearestNeighbors().fit(amounts), np.arange(rows)
    for asked in _CANDIDATES:
        left = [doubtful[:0]]
        for start in range(0, len(doubtful), max(1, _CHUNK // asked)):
            chunk = doubtful[start : start + max(1, _CHUNK // asked)]
            found, index = tree.kneighbors(amounts[chunk], min(asked, rows))
            found **= 2
            total = np.where(index == chunk[:, None], np.inf, found + features.differing(chunk[:, None], index))
            least = np.minimum(distance[chunk], total.min(axis=1))
            first = np.where(total <= least[:, None] + slack, index, rows).min(axis=1)
            nearest[chunk] = np.minimum(first, np.where(distance[chunk] <= least + slack, nearest[chunk], rows))
            distance[chunk] = least
            left.append(chunk[found[:, -1] + further <= least + slack])
        doubtful = np.concatenate(left)
    nearest[doubtful] = _brute_force(features, squares, doubtful, slack)
    return nearest


def _scikit_learn() -> Any:
    """Its module for nearest neighbours, or None where it is not installed."""
    try:
        return importlib.import_module("sklearn.neighbors")
    except ImportError:
        return None


def _alike(codes: Array) -> Iterator[Array]:
    """The numbers of the rows that have the same codes, in order, of each combination that stands twice or more; none without codes."""
    if codes.shape[1]:
        group = np.unique(codes, axis=0, return_inverse=True)[1].reshape(-1)
        counts = np.bincount(group)
        groups = np.split(np.argsort(group, kind="stable"), np.cumsum(counts)[:-1])
        yield from (groups[i] for i in np.flatnonzero(counts > 1))


def _brute_force(features: _Features, squares: Array, rows: Array, slack: float) -> Array:
    """`_nearest` for some rows, from all distances, some rows at a time."""
    amounts = features.amounts
    nearest = np.empty(len(rows), np.int64)
    step = max(1, _CHUNK // len(amounts))
    everyone = np.arange(len(amounts))
    for start in range(0, len(rows), step):
        chunk = rows[start : start + step]
        distance = squares - 2 * (amounts[chunk] @ amounts.T)  # squared distance, without the row's own |row|^2
        if features.codes.shape[1]:
            distance += features.differing(chunk[:, None], everyone)
        distance[np.arange(len(chunk)), chunk] = np.inf
        nearest[start : start + step] = np.argmax(distance <= distance.min(axis=1, keepdims=True) + slack, axis=1)
    return nearest
