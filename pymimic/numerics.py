"""Functions of arrays that more than one floor needs: random words, log(softmax), rows without an answer."""

from __future__ import annotations

import sys
import warnings

import numpy as np

from .devices import Array, is_device

_LIBRARY = __name__.split(".")[0]


def philox4x32(counter: Array, key: tuple[int, int], rounds: int = 7) -> Array:
    """Philox4x32 of counters (..., 4) uint32 under a 64-bit key (Salmon et al. 2011, section 4)."""
    c0, c1, c2, c3 = (counter[..., i].astype(np.uint64) for i in range(4))
    k0, k1 = key
    low = np.uint64(0xFFFFFFFF)
    for _ in range(rounds):
        p0, p1 = c0 * np.uint64(0xD2511F53), c2 * np.uint64(0xCD9E8D57)
        c0, c1, c2, c3 = (
            (p1 >> np.uint64(32)) ^ c1 ^ np.uint64(k0),
            p1 & low,
            (p0 >> np.uint64(32)) ^ c3 ^ np.uint64(k1),
            p0 & low,
        )
        k0, k1 = (k0 + 0x9E3779B9) & 0xFFFFFFFF, (k1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def log_softmax(y: Array) -> Array:
    """log(softmax(y)) along the last axis, without overflow."""
    if y.size == 0:
        return y.copy()
    shifted: Array = y - y.max(axis=-1, keepdims=True)
    return np.asarray(shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True)))


def less_row_means(logits: Array) -> Array:
    """Logits (B, C) less their mean over each row, in their own dtype."""
    return np.asarray(logits - logits.mean(axis=1, keepdims=True))


def warn(message: str) -> None:
    """Warn where the library was called."""
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and frame.f_globals.get("__name__", "").split(".")[0] == _LIBRARY:
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)


class BadRows:
    """Rows x that are not finite, or whose logits y are not: how many, and the first."""

    def __init__(self) -> None:
        self.count, self.first = 0, ""

    def look(self, x: Array, y: Array, first_row: int = 0) -> None:
        """Count them among the rows of host arrays, which begin at `first_row`."""
        rows = np.flatnonzero(~(np.isfinite(x).all(axis=1) & np.isfinite(y).all(axis=1)))
        if len(rows) and not self.count:
            row, given = int(rows[0]), x[rows[0]]
            bad = given[~np.isfinite(given)]
            what = f"{bad[0]}" if len(bad) else f"values up to {np.abs(given).max():.3g}"
            self.first = f"{what} in row {first_row + row}"
        self.count += len(rows)

    def warn(self, name: str) -> None:
        """Say it of the argument called `name`."""
        if self.count:
            others = f" and {self.count - 1} more rows" if self.count > 1 else ""
            warn(f"{name}: expected finite values, with finite logits, got {self.first}{others}: their logits are of no use")


def warn_of_bad_rows(x: Array, y: Array) -> None:
    """Warn of rows of an argument x whose logits y are not finite; on a device nobody waits to see."""
    if not (is_device(x) or is_device(y)) and not np.isfinite(y).all():
        bad = BadRows()
        bad.look(x, y)
        bad.warn("x")
