"""Demands on arguments that are no arrays: numbers, flags, names, and sequences of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

_HOTTEST = 100  # temperature


def number(
    name: str, value: object, low: float = -math.inf, below: float = math.inf, *, above: float | None = None, most: float | None = None,
    float32: bool = False, what: str = "a number", or_none: bool = False,
) -> float:  # fmt: skip
    """Demand a finite number, Python's or NumPy's: in [low, below), or above `above`, or at most `most`, where those are given.

    With `float32` it must be so as a float32, for numbers that end as such.
    """
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError(f"{name}: expected a number, got {type(value).__name__}")
    try:
        with np.errstate(over="ignore"):
            stored = float(np.float32(value) if float32 else value)
    except OverflowError:  # an int beyond all floats
        stored = math.copysign(math.inf, value > 0 or -1)
    above_low = stored >= low if above is None else stored > above
    below_high = stored < below if most is None else stored <= most
    if not (math.isfinite(stored) and above_low and below_high):
        lowest = f"[{low:g}" if above is None else f"({above:g}"
        highest = f"{below:g})" if most is None else f"{most:g}]"
        where = f"in {lowest}, {highest}" if highest != "inf)" else f"of at least {low:g}" if above is None else f"above {above:g}"
        raise ValueError(f"{name}: expected {what} {where}{' as float32' * float32}{' or None' * or_none}, got {value}")
    return float(value)


def temperature(value: object) -> float:
    """Demand a temperature of distillation, of at most 100.

    The loss is T^2 times a divergence that float32 rounds. In batches of 64 rows and 2 to 1000 classes it is off by some 2e-8 T^2, whatever
    it is. At T = 100 that is a few per cent of the loss of logits within 0.1 of the teacher's, at T = 1000 several times that loss.
    """
    checked = number("temperature", value, above=0, float32=True)
    if checked > _HOTTEST:
        cure = "distillation tends to squared error of logits whose rows have mean 0: loss 'mimic' with pymimic.centred(teacher)"
        raise ValueError(
            f"temperature: expected a number in (0, {_HOTTEST}], as float32 rounds away the loss above, where {cure}; got {value}"
        )
    return checked


def one_of(value: object, names: Iterable[str]) -> bool:
    """Whether it is one of the names: an array, which NumPy would compare with each, is none."""
    return isinstance(value, str) and value in names


def sequence(name: str, value: object, of: str) -> list[Any]:
    """Demand what can be iterated over, and is no text; `of` says what it should hold."""
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: expected a sequence of {of}, got {type(value).__name__}")
    return list(value)


def flag(name: str, value: object) -> bool:
    """Demand True or False, Python's or NumPy's."""
    if not isinstance(value, (bool, np.bool_)):
        raise TypeError(f"{name}: expected True or False, got {type(value).__name__}")
    return bool(value)


def integer(name: str, value: object, low: int, high: int) -> int:
    """Demand an int in [low, high), Python's or NumPy's."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not low <= value < high:
        raise ValueError(f"{name}: expected an int in [{low}, {high}), got {value}")
    return int(value)


def integers(name: str, value: object, low: int, high: int) -> list[int]:
    """Demand a sequence of ints in [low, high)."""
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, (str, bytes)):
        raise TypeError(f"{name}: expected a sequence of ints, got {type(value).__name__}")
    return [integer(name, item, low, high) for item in value]


def needs(value: Iterable[str], known: Sequence[str]) -> frozenset[str]:
    """Demand a set of argument names."""
    names = [value] if isinstance(value, str) else sequence("needs", value, "names")
    other = [name for name in names if not one_of(name, known)]
    if other:
        raise ValueError(f"needs: expected names among {', '.join(known)}, got {', '.join(sorted(map(str, other)))}")
    return frozenset(names)
