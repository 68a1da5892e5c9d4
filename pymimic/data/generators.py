"""Generators of new cases for a batch: noise, blends and masks; and what draws from a generator, whole copies or fresh cases as one trains.

A generator of cases is any function (x, rng) -> x', (B, D) float32 to finite (B, D) float32, that takes all that is random from rng, a
`numpy.random.Generator`. The rows that the library gives it are copies, which it may change. Those of the library are also compared when a
run is resumed: their repr says how they are set.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..callables import demand_arguments, describe
from ..numerics import warn
from .cases import Targets
from .feed import Augment
from .rounding import warn_of_merged_values
from .teacher import Teacher, demand_teacher, labelled

Generate = Callable[[Array, np.random.Generator], Array]
"""A generator of cases: (x, rng) -> x'."""

_SLAB = 1 << 22  # values that `copies` gives a generator at once


@dataclass(frozen=True)
class Noise:
    """A generator of cases that adds independent normal noise.

    Parameters
    ----------
    sigma : standard deviation in units of x, at least 0; a number, or a (D,) array with one for each attribute
    """

    sigma: float | Array | tuple[float, ...]

    def __post_init__(self) -> None:
        try:
            given = np.asarray(_check.host_array("sigma", self.sigma) if isinstance(self.sigma, np.ndarray) else self.sigma)
        except ValueError:  # sequences of several lengths
            given = np.array(np.nan)
        array = given.astype(np.float64) if given.dtype.kind in "fiu" else np.array(np.nan)
        with np.errstate(over="ignore"):  # values that become infinite are refused here
            finite = bool(np.isfinite(array.astype(np.float32)).all())
        if array.ndim > 1 or not (finite and (array >= 0).all()):
            raise ValueError(f"sigma: expected finite deviations of at least 0, one or (D,), got {self.sigma}")
        object.__setattr__(self, "sigma", tuple(array.tolist()) if array.ndim else float(array))  # to be compared and shown whole

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """x (B, D) with noise; ValueError where float32 does not hold it."""
        x = demand_called(x, rng)
        with np.errstate(over="ignore"):  # values that are not finite are refused next
            new = np.asarray(x + self.deviation(x.shape[1]) * rng.standard_normal(x.shape, dtype=np.float32))
        return still_finite(new, f"sigma: expected deviations so small that rows stay finite as float32, got {np.max(self.sigma):g}")

    def deviation(self, columns: int) -> Array:
        """sigma for rows of so many columns."""
        deviation = np.asarray(self.sigma, np.float32)
        if deviation.shape not in ((), (columns,)):
            raise ValueError(f"sigma: expected finite deviations of at least 0, one or (D,) = {(columns,)}, got {len(deviation)}")
        return deviation


@dataclass(frozen=True)
class Mixup:
    """A generator of cases that blends two rows (Zhang et al. 2018): a x + (1 - a) x', a ~ Beta(alpha, alpha), x' another of the batch.

    Parameters
    ----------
    alpha : above 0; 1 makes all blends alike likely, less makes most of them close to one of the two
    """

    alpha: float = 1.0

    def __post_init__(self) -> None:
        keep(self, "alpha", _check.number("alpha", self.alpha, above=0))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """A blend for each row of x (B, D); ValueError where float32 does not hold two rows' difference."""
        x = demand_called(x, rng)
        other = x[rng.permutation(len(x))]
        part = rng.beta(self.alpha, self.alpha, (len(x), 1)).astype(np.float32)
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused next
            new = np.asarray(other + part * (x - other))
        return differences_held(new, x)


@dataclass(frozen=True)
class Masks:
    """A generator of cases that blanks stripes of a grid of time and features, as a spectrogram is (SpecAugment, Park et al. 2019).

    Parameters
    ----------
    time, features : the grid's size; D = time * features, the features of a time step side by side
    steps : the longest stripe of time steps; each is of 0 to so many, anywhere, alike likely
    bands : the same for features
    count : stripes of each kind
    value : what is put in a stripe's place: the mean, which is 0 in standardised inputs
    """

    time: int
    features: int
    steps: int
    bands: int
    count: int = 1
    value: float = 0.0

    def __post_init__(self) -> None:
        for name in ("time", "features", "count"):
            keep(self, name, _check.integer(name, getattr(self, name), 1, 1 << 31))
        keep(self, "steps", _check.integer("steps", self.steps, 0, self.time + 1))
        keep(self, "bands", _check.integer("bands", self.bands, 0, self.features + 1))
        keep(self, "value", _check.number("value", self.value, float32=True))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """x (B, time * features) with stripes blanked."""
        x = demand_called(x, rng, self.time * self.features)
        grid = x.reshape(-1, self.time, self.features)
        blank = (
            self._stripes(len(x), self.time, self.steps, rng)[:, :, None] | self._stripes(len(x), self.features, self.bands, rng)[:, None]
        )
        return np.where(blank, np.float32(self.value), grid).reshape(x.shape)

    def _stripes(self, rows: int, length: int, longest: int, rng: np.random.Generator) -> Array:
        """(rows, length) bool: where there is a stripe."""
        width = rng.integers(0, longest + 1, (self.count, rows, 1))
        start = rng.integers(0, length - width + 1)
        at = np.arange(length)
        return np.asarray(((at >= start) & (at < start + width)).any(axis=0))


def copies(generator: Generate, x: Array, count: int, seed: int = 0) -> Iterator[Array]:
    """Yield `count` new versions of x, each of shape (N, D), by a generator of cases: what `TransferSet.create` and `from_teacher` take.

    Parameters
    ----------
    generator : `Noise`, `Deform` or another, or a function (x, rng) -> x' of yours
    x : (N, D) float32 or float64 array; the generator gets some of its rows at a time, in order
    count : how many (N, D) arrays to yield
    seed : copy i draws from numpy.random.SeedSequence(seed, spawn_key=(i,))

    Yields
    ------
    (N, D) float32 arrays.

    Raises
    ------
    ValueError, TypeError
        On a bad argument, at the call; NaN or infinity in x names the row, and so does what the generator makes of it.
    """
    _demand_generator(generator)
    x = demand_rows(x)
    count = _check.integer("count", count, 0, 1 << 63)
    return each_copy(generator, x, count, seed)


def each_copy(generator: Generate, x: Array, count: int, seed: int) -> Iterator[Array]:
    """`copies` of rows that are what they are to be."""
    stream, rows = streams(seed), max(1, _SLAB // max(1, x.shape[1]))

    def copy(rng: np.random.Generator) -> Array:
        new = np.empty_like(x)
        for start in range(0, len(x), rows):
            new[start : start + rows] = generated(generator, x[start : start + rows], rng, start)
        return new

    return (copy(stream(i)) for i in range(count))


def fresh_cases(generator: Generate, teacher: Teacher | None = None) -> Augment:
    """For `Trainer(augment=)`: every batch is replaced by new cases of a generator of cases, which the teacher labels as one trains.

    No case comes twice, and nothing is stored. The `rng` that the generator gets is the step's own, so runs repeat, and
    resume bit for bit. A checkpoint keeps how the generator is set and the teacher's description, and `fit(resume=)` compares them.

    Parameters
    ----------
    generator : `Deform`, `Munge` or another, or a function (x, rng) -> x' of yours
    teacher : gives the logits of the new cases, in place of those of the data; labels, where the data have them, stay. None keeps all
        targets: for generators whose new row b is of the same class as row b was

    A teacher is asked at every step, and labelling may take longer than the step: see `copies` for cases that are labelled once.
    """
    _demand_generator(generator)
    if teacher is not None:
        demand_teacher("teacher", teacher, "logits", "describe")
    return _FreshCases(generator, teacher)


class _FreshCases:
    """What `fresh_cases` returns."""

    def __init__(self, generator: Generate, teacher: Teacher | None) -> None:
        self._generator, self._teacher, self._found = generator, teacher, list[str]()

    def __call__(self, x: Array, targets: Any, rng: np.random.Generator) -> tuple[Array, Any]:
        new = generated(self._generator, demand_called(x, rng), rng)
        if self._teacher is None:
            return new, targets
        known = len(self._found)
        logits = labelled(self._teacher, new, self._found)
        for message in self._found[known:]:  # at one step, not at each
            warn(message)
        return new, Targets(logits, targets.labels) if isinstance(targets, Targets) else logits

    def __repr__(self) -> str:
        teacher = "None" if self._teacher is None else json.dumps(self._teacher.describe(), sort_keys=True, default=repr)
        return f"fresh_cases({describe(self._generator)}, {teacher})"


def generated(generator: Generate, x: Array, rng: np.random.Generator, first_row: int = 0) -> Array:
    """What the generator makes of a copy of x, demanded to be finite, float32 and of x's shape."""
    with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused next
        array = _check.host_array("generator", generator(x.copy(), rng))
    if array.dtype != np.float32 or array.shape != x.shape:
        name = describe(generator)
        raise ValueError(f"generator: expected float32 rows of shape {x.shape} from {name}, got {array.dtype} of shape {array.shape}")
    _check.finite("generator", array, first_row)
    return array


def keep(generator: object, name: str, value: float) -> None:
    """Put a checked number in the place of NumPy's, whose sums may overflow, in a generator that is frozen."""
    if isinstance(getattr(generator, name), np.generic):
        object.__setattr__(generator, name, value)


def demand_called(x: object, rng: object, columns: int | None = None) -> Array:
    """Demand what a generator is called with; x (B, D) as finite float32, with D = columns if that is given."""
    array = _check.host_array("x", x)
    _check.float_dtype("x", array)
    known: dict[str, int] = {} if columns is None else {"D": columns}
    _check.Dims(None, **known).shape("x", array.shape, ("B", "D"))
    if not isinstance(rng, np.random.Generator):
        raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}: pass numpy.random.default_rng(seed)")
    with np.errstate(over="ignore"):  # values that become infinite are refused next
        narrow = np.asarray(array, np.float32)
    _check.finite("x", narrow)
    return narrow


def still_finite(new: Array, what: str) -> Array:
    """Demand rows (B, D) that did not overflow; `what` is the message without the row."""
    if not (finite := np.isfinite(new).all(axis=1)).all():
        raise ValueError(f"{what}, and inf or nan in row {finite.argmin()} of what was to be returned")
    return new


def differences_held(new: Array, x: Array) -> Array:
    """Demand that rows (B, D) did not overflow, which were made of differences of values of x."""
    if np.isfinite(new).all():
        return new
    return still_finite(new, f"x: expected values whose differences float32 holds, got [{x.min():g}, {x.max():g}]")


def demand_rows(x: object, columns: list[str] | None = None) -> Array:
    """`x` as finite float32 (N, D); a DataFrame must have columns of these names, if there are any, in that order."""
    wide = _check.Dims().array("x", _check.data_array("x", x, columns=columns), "N", "D")
    with np.errstate(over="ignore"):  # values that become infinite are refused next
        array = wide.astype(np.float32)
    _check.finite("x", array)
    warn_of_merged_values("x", wide)
    return array


def streams(seed: int) -> Callable[[int], np.random.Generator]:
    """The stream of each copy."""
    seed = _check.integer("seed", seed, 0, 1 << 64)
    return lambda copy: np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(copy,)))


def _demand_generator(generator: object) -> None:
    wanted = "generator: expected a function (x, rng) -> x', such as pymimic.Noise(0.1)"
    if isinstance(generator, type):
        raise TypeError(f"{wanted}, got the class {generator.__name__}: make one, {generator.__name__}(...)")
    if not callable(generator):
        raise TypeError(f"{wanted}, got {type(generator).__name__}")
    if inspect.isfunction(generator) and generator.__module__.startswith(f"{__package__}."):  # `munge`, whose second argument is no rng
        name = generator.__name__
        raise TypeError(f"{wanted}, got {name}, which is none: call it in place of this, or pass pymimic.Munge(x) or Noise(sigma)")
    demand_arguments("generator", generator, "x", "rng")
