"""A student of which each process has some of the hidden units."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .. import _check
from ..backends import choose
from ..backends.interface import Array
from ..errors import FileFormatError
from ..files import Path, read_metadata
from ..nets.student import Student
from ..targets import expanded
from ..unit_files import read_arrays
from ..weights import ShallowWeights
from .group import Group
from .saving import write_arrays
from .sums import Sums
from .units import PARTS, TILE, Units, dealt, part_grain
from .weights import ShardedWeights


class ShardedStudent(Student):
    """A `pymimic.Student` whose U, b and W are this process's units alone; V, c and the standardisation are on all of them.

    It begins with the weights that a `Student` of the same seed has. `predict`, `score`, `save` and a `Trainer` on it are for all
    processes of the group together, with the same arguments. `hidden`, `parameter_count` and `multiply_adds` are those of the whole net,
    `arrays`, `set_arrays` and `nbytes` of this process's part.

    Parameters
    ----------
    inputs, hidden, outputs, rank, activation, dropout, seed : as of `Student`; `hidden` is H of the whole
    group : `pymimic.distributed.ProcessGroup`, or `Group` for this process alone
    shares : of each process, in proportion to which units are dealt out; None for equal ones
    reproducible : add up parts of H in a fixed order, for the same bits on any number of processes; see `ShardedWeights`

    Attributes
    ----------
    units : the range of units that is this process's
    """

    def __init__(
        self, inputs: int, hidden: int, outputs: int, rank: int | None = None, activation: str = "relu", dropout: float = 0.0,
        seed: int = 0, *, group: Group, shares: Sequence[float] | None = None, reproducible: bool = False,
    ) -> None:  # fmt: skip
        with group.together():
            self._configure(inputs, hidden, outputs, rank, activation, dropout, seed)
            self._take_part(group, shares, reproducible)
            self._draw(*self.units)
        self._meet()

    def _meet(self) -> None:
        """Demand that all have the same net, and that their units are all of its units."""
        of_all = {name: self._arrays[name] for name in self._arrays if name in "Vc"}
        self.group.agree(student=self.configuration(), units=self._ranges, reproducible=self.reproducible, **of_all)
        self.group.rows.agree(**{name: self._arrays[name] for name in "UbW" if self.group.rows.size > 1})
        self._sum = Sums(self.group, self.units, self.hidden, self.reproducible)

    def _take_part(self, group: Group, shares: Sequence[float] | None, reproducible: bool) -> None:
        self.group, self.reproducible = group, _check.flag("reproducible", reproducible)
        if reproducible and group.size > PARTS:
            raise ValueError(f"reproducible: expected at most {PARTS} processes, as H is cut into so many parts, got {group.size}")
        self._ranges = dealt(self.hidden, group.size, shares, part_grain(self.hidden) if reproducible else TILE)
        self.units: Units = self._ranges[group.rank]

    @classmethod
    def of(cls, student: Student, group: Group, *, shares: Sequence[float] | None = None, reproducible: bool = False) -> ShardedStudent:
        """This process's part of a student that all have, with copies of its weights."""
        part = cls.__new__(cls)
        with group.together():
            part._configure(**student.configuration())
            part._take_part(group, shares, reproducible)
            part.set_standardisation(student.mean, student.scale)
            part._arrays = {name: array.copy() for name, array in _cut(student.weights(), part.units).items()}
            part.fresh = student.fresh
        part._meet()
        return part

    @classmethod
    def load(
        cls, path: Path, *, group: Group | None = None, shares: Sequence[float] | None = None, reproducible: bool = False
    ) -> ShardedStudent:  # fmt: skip
        """This process's part of a student that was saved by one process, or by any number of them.

        Raises
        ------
        FileFormatError, OSError
            As `Student.load`, on the process that finds it; GroupError on the others.
        """
        part, group = cls.__new__(cls), group or Group()
        with group.together():
            part.hidden = _hidden_of(path, read_metadata(path, cls.file_kind))
            part._take_part(group, shares, reproducible)
            part._fill(path, *read_arrays(path, cls.file_kind, units=part.units))
        part._meet()
        return part

    def whole(self) -> Student:
        """The student with all units, on every process: it has to fit there."""
        student = Student.__new__(Student)
        student._configure(**self.configuration())
        student.set_standardisation(self.mean, self.scale)
        arrays, most = dict(self._arrays), max(map(len, self._ranges))
        for name in ("U", "b", "W"):
            padded = np.zeros((most, *self._arrays[name].shape[1:]), np.float32)
            padded[: len(self.units)] = self._arrays[name]
            arrays[name] = np.concatenate([rows[: len(units)] for rows, units in zip(self.group.gather(padded), self._ranges)])
        student._arrays = arrays
        student.fresh = self.fresh
        return student

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of each array of this process by name."""
        return {name: (len(self.units), *shape[1:]) if name in "UbW" else shape for name, shape in super().shapes.items()}

    @property
    def parameter_count(self) -> int:
        """Numbers in the weights of the whole net."""
        return self._whole().parameter_count

    @property
    def multiply_adds(self) -> int:
        """Multiplications, each with its addition, that one row's prediction takes in all processes together."""
        return self._whole().multiply_adds

    def _whole(self) -> Student:
        """The sizes of the whole net, without its weights."""
        student = Student.__new__(Student)
        student._configure(**self.configuration())
        return student

    def handle(self, **how: Any) -> ShallowWeights:
        """The wide layer as a `Trainer` moves it."""
        wide: dict[str, Any] = {name: array for name, array in self._arrays.items() if name != "V"}
        return ShardedWeights(**wide, activation=self.activation, group=self.group, reproducible=self.reproducible, **how)

    def predict(self, x: Array, backend: str | None = None) -> Array:
        """Logits y (B, C) float32 of x (B, D), the same rows on all processes, as `Student.predict`."""
        with self.group.together():
            x = _check.float_rows("x", x, self.inputs)
        self.group.agree(rows=len(x))
        y, start, zeros = np.empty((len(x), self.outputs), np.float32), 0, np.zeros(self.outputs, np.float32)
        chosen, arrays = choose(backend, self._arrays["c"]), self._arrays
        parts = [
            arrays | _cut(arrays, Units(part.first - self.units.first, part.end - self.units.first)) | {"c": zeros}
            for part in self._sum.parts
        ]
        nets = [chosen.prediction(part, self.activation) for part in parts]
        for slab in self._slabs(x, nets[0].row_bytes):
            rows = self.standardise(slab)
            y[start : start + len(slab)] = self._sum([net.predict(rows, None) for net in nets]) + arrays["c"]
            start += len(slab)
        return y

    def save(self, path: Path) -> None:
        """Write the net, by all processes: `path`, and a file of units for each of them beside it.

        Raises
        ------
        OSError, ValueError
            As `Student.save`, on the process that finds it; GroupError on the others.
        """
        with self.group.together():
            self._demand_finite()
        super().save(path)

    def write_file(
        self, path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any], demand: Callable[[], None] | None = None
    ) -> None:  # fmt: skip
        error: Exception | None = None
        if self.group.rows.rank == 0:
            try:
                write_arrays(path, arrays, metadata, self.group.without_rows, self.units, demand)
            except Exception as raised:
                error = raised
        with self.group.everyone.together():
            if error is not None:
                raise error

    def read_file(self, path: Path, kind: str, name: str = "path") -> tuple[dict[str, Array], dict[str, Any]]:
        found: tuple[dict[str, Array], dict[str, Any]] = ({}, {})
        with self.group.together():
            found = read_arrays(path, kind, name, self.units)
        return found


def _hidden_of(path: Path, metadata: Mapping[str, Any]) -> int:
    """H, as a file's metadata has it."""
    try:
        return _check.integer("hidden", metadata["configuration"]["hidden"], 1, 1 << 31)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise FileFormatError(f"path: {expanded(path)!r}: expected a student's configuration, got: {error}") from error


def _cut(arrays: Mapping[str, Array], units: Units) -> dict[str, Array]:
    return {name: array[units.first : units.end] if name in "UbW" else array for name, array in arrays.items()}
