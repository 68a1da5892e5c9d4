"""Which hidden units are whose: ranges that begin where a tile of the dropout mask does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple

from .. import _check

TILE = 32  # units that a tile of the mask has
PARTS = 16  # that H is cut into where sums are to be the same for any number of processes


class Units(NamedTuple):
    """The hidden units from `first` up to, and without, `end`."""

    first: int
    end: int

    def __len__(self) -> int:
        return self.end - self.first


def dealt(hidden: int, ranks: int, shares: Sequence[float] | None = None, grain: int = TILE) -> list[Units]:
    """The units of each process: all H of them, in order, in multiples of `grain` but for the last.

    Parameters
    ----------
    hidden : H
    ranks : how many processes there are
    shares : of each process, in proportion to which units are dealt out; None for equal ones

    Raises
    ------
    ValueError
        There are fewer grains than processes, or a share is not above 0.
    """
    grains = -(-hidden // grain)
    if grains < ranks:
        raise ValueError(f"hidden: expected at least {grain * (ranks - 1) + 1} units, {grain} for each of {ranks} processes, got {hidden}")
    given = [1.0] * ranks
    if shares is not None:
        given = [_check.number("shares", share, above=0) for share in _check.sequence("shares", shares, "numbers")]
    if len(given) != ranks:
        raise ValueError(f"shares: expected one for each of {ranks} processes, got {len(given)}")
    given = [share / max(given) for share in given]  # whose sum is finite
    whole, ends, so_far = sum(given), [0], 0.0
    for rank, share in enumerate(given):
        so_far += share
        left = ranks - rank - 1  # each of them has a grain at least
        ends.append(min(max(round(grains * so_far / whole), ends[-1] + 1), grains - left))
    return [Units(grain * first, min(grain * end, hidden)) for first, end in pairwise(ends)]


def part_grain(hidden: int) -> int:
    """The units of each of at most PARTS parts, which depend on H alone."""
    return TILE * -(-hidden // (TILE * PARTS))


def parts(units: Units, hidden: int) -> list[Units]:
    """The parts that the units consist of; ValueError where they cut one."""
    grain = part_grain(hidden)
    if units.first % grain or (units.end % grain and units.end != hidden):
        raise ValueError(f"units: expected whole parts of {grain} units of {hidden}, got units {units.first} to {units.end}")
    return [Units(first, min(first + grain, units.end)) for first in range(units.first, units.end, grain)]
