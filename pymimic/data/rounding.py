"""Inputs on their way from float64 to float32: a column whose values fall together is pointed out."""

from __future__ import annotations

import numpy as np

from ..backends.interface import Array
from ..numerics import warn

_ROWS = 8192  # rows to look at: among so many, ordinary values hardly ever round to the same float32
_COLUMNS = 64  # at a time
_NOISE = 2.0**-44  # of the largest value: smaller differences are float64's own rounding
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
    found = "; ".join(f"in column {column}, {before} distinct values become {after}" for column, before, after in merged[:_NAMED])
    more = f"; and in {len(merged) - _NAMED} more" if len(merged) > _NAMED else ""
    return (
        f"{name}: expected values that float32 can tell apart, got others: {found}{more}. Subtract an offset, such as the column's mean, "
        "and scale while they are float64"
    )


def _distinct(values: Array) -> Array:
    """How many different values each row has."""
    ordered = np.sort(values, axis=1)
    return np.asarray(1 + (ordered[:, 1:] != ordered[:, :-1]).sum(axis=1))
