"""Numbers on their way from float64 to float32, or into fewer bytes: a column whose values fall together is pointed out."""

from __future__ import annotations

import numpy as np

from ..backends.interface import Array
from ..numerics import warn

_ROWS = 8192  # rows to look at: among so many, ordinary values hardly ever round to the same float32
_COLUMNS = 64  # at a time
_NOISE = 2.0**-44  # of the largest value: smaller differences are float64's own rounding
_OFF = 1 / 8  # of a column's deviation: fewer than 8 values are left of even ones
_VARIED = (8, 1 / 50)  # rows, and share of them, that have another value than the middle one
_NAMED = 5  # columns in one message


def warn_of_merged_values(name: str, rows: Array) -> bool:
    """Warn of the columns of which `merged_values` has something to say; whether there are any."""
    message = merged_values(name, rows)
    if message:
        warn(message)
    return bool(message)


def merged_values(name: str, rows: Array) -> str:
    """In words, the columns of (N, D) float64 rows that keep less than half of their distinct values as float32; nothing without any.

    Up to 8192 evenly spaced rows are looked at.
    """
    if rows.dtype != np.float64 or rows.ndim != 2 or len(rows) < 3:
        return ""
    sample = rows[:: -(-len(rows) // _ROWS)]
    merged = []
    for first in range(0, sample.shape[1], _COLUMNS):
        columns = np.ascontiguousarray(sample[:, first : first + _COLUMNS].T)
        with np.errstate(all="ignore"):  # other checks find what is not finite
            grain = np.maximum(np.abs(columns).max(axis=1, keepdims=True) * _NOISE, np.finfo(np.float64).smallest_subnormal)
            before, after = _distinct(np.rint(columns / grain)), _distinct(columns.astype(np.float32))
        merged += [(int(first + i), int(before[i]), int(after[i])) for i in np.flatnonzero(2 * after < before)]
    if not merged:
        return ""
    found = _named([f"in column {column}, {before} distinct values become {after}" for column, before, after in merged])
    return (
        f"{name}: expected values that float32 can tell apart, got others: {found}. Subtract an offset, such as the column's mean, "
        "and scale while they are float64"
    )


def lost_values(name: str, rows: Array, stored: Array, dtype: str, cure: str) -> str:
    """In words, the columns of (N, D) rows whose stored values are off by more than 1/8 of their deviation; nothing without any.

    Up to 8192 evenly spaced rows are looked at. Columns that are the same in all but a few rows, as at an image's edge, don't count.
    """
    if len(rows) < _VARIED[0]:
        return ""
    step = -(-len(rows) // _ROWS)
    lost = []
    for first in range(0, rows.shape[1], _COLUMNS):
        before, after = (part[::step, first : first + _COLUMNS].astype(np.float64) for part in (rows, stored))
        off, deviation = np.sqrt(np.square(after - before).mean(axis=0)), before.std(axis=0)
        noise = 64 * np.finfo(rows.dtype).eps * np.abs(before).max(axis=0)
        for column in np.flatnonzero((off > _OFF * deviation) & (deviation > noise)):
            varied = int((before[:, column] != np.median(before[:, column])).sum())
            if varied >= max(_VARIED[0], _VARIED[1] * len(before)):
                lost.append((int(first + column), deviation[column], off[column]))
    if not lost:
        return ""
    found = _named(
        [f"in column {column}, values of deviation {deviation:.3g} come back off by {off:.3g}" for column, deviation, off in lost]
    )
    return f"{name}: expected values that {dtype} can tell apart, got others: {found}. {cure}"


def merged_logits(logits: Array) -> str:
    """In words, the columns of a teacher's wider logits (N, C) of which float32 keeps too little; nothing without any."""
    if logits.dtype.itemsize <= 4:
        return ""
    cure = "Subtract an offset while they are float64, for instance by centred(teacher)"
    with np.errstate(all="ignore"):  # other checks find what is not finite
        return lost_values("logits", logits, logits.astype(np.float32), "float32", cure)


def _named(columns: list[str]) -> str:
    """The first of them, and how many more there are."""
    return "; ".join(columns[:_NAMED]) + (f"; and in {len(columns) - _NAMED} more" if len(columns) > _NAMED else "")


def _distinct(values: Array) -> Array:
    """How many different values each row has."""
    ordered = np.sort(values, axis=1)
    return np.asarray(1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1))
