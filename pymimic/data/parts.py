"""Some rows of a set, as a set: cases to train on and cases that are held out."""

from __future__ import annotations

import numpy as np

from .. import _check
from ..backends.interface import Array
from .cases import Cases, Targets


class Part:
    """Rows of `cases`, as `Cases` of their own; nothing is copied before it is asked for.

    Parameters
    ----------
    cases : the whole
    rows : (n,) int64, the numbers of the rows
    """

    def __init__(self, cases: Cases, rows: Array) -> None:
        self._cases, self._rows = cases, rows
        self.inputs, self.outputs = cases.inputs, cases.outputs

    def __len__(self) -> int:
        return len(self._rows)

    def batch(self, indices: Array) -> tuple[Array, Array | Targets, Array | None]:
        """Those rows of the part."""
        return self._cases.batch(self._rows[indices])


def held_out(cases: Cases, share: float, seed: int) -> tuple[Part, Part]:
    """The other rows, and a random share of them, at least one; both in order."""
    rows = np.random.default_rng(_check.integer("seed", seed, 0, 1 << 64)).permutation(len(cases))
    count = max(1, round(share * len(rows)))
    return Part(cases, np.sort(rows[count:])), Part(cases, np.sort(rows[:count]))
