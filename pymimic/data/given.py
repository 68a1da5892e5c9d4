"""The rows that are given to be labelled, as shards keep them: checked, and packed."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from itertools import chain, zip_longest
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..numerics import warn
from .cases import demand_values
from .rounding import warn_of_merged_values
from .shards import arrays_of, rechunk
from .storage import Storage


class Given:
    """Shards of inputs, and of weights where there are any.

    Parameters
    ----------
    inputs : (N, D) array, or an iterable of (n, D) arrays
    weights : (N,) array, or an iterable of (n,) arrays, or None
    rows : of a shard
    storage : how files keep them
    columns : names that the columns of DataFrames must have, in that order; None for any
    """

    def __init__(
        self, inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None, rows: int, storage: Storage,
        columns: list[str] | None,
    ) -> None:  # fmt: skip
        self._inputs: Any = _check.whole_array("inputs", inputs, axes=2, columns=columns)
        self._weights: Any = _check.whole_array("weights", weights, axes=1)
        self.rows, self._storage, self._columns = rows, storage, columns
        self.weighted = self._weights is not None
        self.apart = isinstance(self._inputs, np.ndarray) and isinstance(self._weights, np.ndarray | None)
        """Whether a shard can be read without those before it."""
        self._said = set[str]()  # what was warned of
        self._shards = self._packed(self._inputs, self._weights, 0)

    @property
    def total(self) -> int | None:
        """Rows, where they are known."""
        return len(self._inputs) if isinstance(self._inputs, np.ndarray) else None

    def demand(self, part: tuple[int, int] | None) -> None:
        """Demand of arrays, before the teacher is asked, what is demanded of their rows as they come.

        That is all rows, or those of the shards that a worker begins with.
        """
        inputs = self._inputs
        for name, given, axes in (("inputs", inputs, ("n", "D")), ("weights", self._weights, ("n",))):
            if not isinstance(given, np.ndarray):
                continue
            array = _check.host_array(name, given)
            _check.float_dtype(name, array)
            _check.Dims().shape(name, array.shape, axes)
            if isinstance(inputs, np.ndarray) and len(array) != len(inputs):
                raise ValueError(f"weights: expected one for each row of inputs, got {len(array)} for {len(inputs)}")
            first, count = part or (0, 1)
            size = self.rows if part else max(1, len(array))
            starts = range(first * size, len(array), count * size)
            for start in starts:
                demand_values(name, array[start : start + size], start)
            step = max(1, (4 << 20) // max(1, math.prod(array.shape[1:])))
            for start in starts:
                for row in range(start, min(start + size, len(array)), step):
                    self._storage.pack(name, array[row : min(row + step, start + size)].astype(np.float32), row)

    def first(self) -> list[Array]:
        """The first shard; iterating gives it again."""
        first = next(self._shards, None) if self.total != 0 else None
        if first is None:
            raise ValueError("inputs: expected at least one row, got none")
        self._shards = self._packed(self._inputs, self._weights, 0) if self.apart else chain([first], self._shards)
        if self.apart:
            self._said.add("merged")  # all rows were looked at
        return first

    def __iter__(self) -> Iterator[list[Array]]:
        """[inputs] or [inputs, weights] of each shard, as they are stored; once."""
        return self._shards

    def visits(self, part: tuple[int, int], before: set[int]) -> Iterator[tuple[int, list[Array] | None]]:
        """Each shard's number, with its arrays where they come by themselves; otherwise `read` gives them.

        Shards that can be read apart come in the order of a worker: those `before` all others, its own, those of others.
        """
        if not isinstance(self._inputs, np.ndarray) or not self.apart:
            yield from enumerate(self)
            return
        first, count = part
        shards = range(-(-len(self._inputs) // self.rows))
        yield from ((shard, None) for shard in sorted(shards, key=lambda shard: (shard not in before, (shard - first) % count)))

    def read(self, shard: int) -> list[Array]:
        """A shard that can be read apart."""
        first_row = shard * self.rows
        rows = slice(first_row, first_row + self.rows)
        return next(self._packed(self._inputs[rows], None if self._weights is None else self._weights[rows], first_row))

    def _packed(self, inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None, first_row: int) -> Iterator[list[Array]]:
        """The shards of rows that begin at `first_row`, checked, as they are stored."""
        streams = [rechunk("inputs", self._watched(inputs), self.rows, "n", "D")]
        if weights is not None:
            streams.append(rechunk("weights", weights, self.rows, "n"))
        for arrays in zip_longest(*streams, fillvalue=np.empty(0, np.float32)):
            if len(arrays[0]) != len(arrays[-1]):
                raise ValueError(
                    f"weights: expected one for each row of inputs, got {len(arrays[-1])} for {len(arrays[0])} from row {first_row}"
                )
            for name, array in zip(("inputs", "weights"), arrays):
                demand_values(name, array, first_row)
            packed = self._storage.pack("inputs", arrays[0], first_row)
            if "losses" not in self._said and (message := self._storage.losses("inputs", arrays[0], packed)):
                self._said.add("losses")
                warn(message)
            yield [packed, *arrays[1:]]
            first_row += len(arrays[0])

    def _watched(self, inputs: Array | Iterable[Array]) -> Iterator[Array]:
        """The same arrays; the first with values that fall together as float32 is pointed out."""
        for part in arrays_of("inputs", inputs):
            array = _check.data_array("inputs", part, columns=self._columns)
            if "merged" not in self._said and warn_of_merged_values("inputs", array):
                self._said.add("merged")
            yield array


def plain(name: str, value: Any) -> Any:
    """`value` as it comes back from JSON, numbers and arrays of NumPy as Python's; TypeError where JSON cannot hold it."""

    def python(item: Any) -> Any:
        if isinstance(item, (np.generic, np.ndarray)):
            return item.tolist()
        raise TypeError(f"{name}: expected what JSON can hold, got a {type(item).__name__} in it")

    try:
        return json.loads(json.dumps(value, default=python))
    except (TypeError, ValueError, RecursionError) as error:
        message = str(error)
        raise TypeError(message if message.startswith(f"{name}: ") else f"{name}: expected what JSON can hold, got {error}") from None
