"""How the processes add up what their hidden units give."""

from __future__ import annotations

import numpy as np

from ..backends.interface import Array
from .group import Group
from .units import Units, parts


class Sums:
    """Adds arrays up over the group; all of its processes get the same bits.

    Parameters
    ----------
    group : the processes
    units : this one's
    hidden : H
    reproducible : one array for each of this process's parts of H, in the order of all parts: the same bits for any number of processes.
        Otherwise one array for each process, in the order that the engine takes

    Attributes
    ----------
    parts : of H, that this process gives arrays of
    """

    def __init__(self, group: Group, units: Units, hidden: int, reproducible: bool) -> None:
        self._group, self._reproducible = group, reproducible
        with group.together():
            self.parts = parts(units, hidden) if reproducible else [units]
        self._counts = group.told(len(self.parts))

    def __call__(self, arrays: list[Array], out: Array | None = None) -> Array:
        """The sum of the arrays, of which there is one for each part; in `out` if that is given."""
        if not self._reproducible:
            total = self._group.sum(arrays[0])
            if out is None or out is total:
                return total
            out[...] = total
            return out
        mine = np.zeros((max(self._counts), *arrays[0].shape), arrays[0].dtype)
        np.stack(arrays, out=mine[: len(arrays)])
        total = np.empty_like(arrays[0]) if out is None else out
        total[...] = 0
        for theirs, count in zip(self._group.gather(mine), self._counts):
            for part in theirs[:count]:
                total += part
        return total
