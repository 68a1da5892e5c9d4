"""What is known of an experiment's runs, in a folder: a CSV with a line for each, and the trained nets."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from ..data.locks import Lock
from ..demo.measure import Size
from ..demo.students import Trained
from ..errors import FileFormatError
from ..files import read_metadata
from ..formats import demand_png_or_none, demand_replaceable
from ..nets.net import Net
from ..nets.student import Student
from ..targets import replacing
from ..training.convnet import ConvNet
from ..training.deepnet import DeepNet
from .table import COLUMNS, FIGURES, KEY, Line, cell, other_than, read, written
from .torch_net import TorchNet

_KINDS: dict[str, type[Net]] = {kind.file_kind: kind for kind in (Student, DeepNet, ConvNet, TorchNet)}


@contextmanager
def held(folder: Path, name: str) -> Iterator[None]:
    """Keep other processes from adding runs of that experiment; BlockingIOError where one may. Open its `Ledger` within, to add to it."""
    with closing(Lock(_nets(folder, name))) as lock:
        if lock.take() is False:
            wanted = f"out: expected a folder in which nobody else runs {name}, got one in use"
            raise BlockingIOError(errno.EAGAIN, wanted, os.fspath(folder))
        yield


class Ledger:
    """The runs of one experiment. Everything is written at once, so that an interrupted experiment goes on where it was.

    A run whose net is gone before the test rows were opened is forgotten, and made again.

    Parameters
    ----------
    folder : for `NAME.csv` and the nets; made if need be
    name : of the experiment
    more : columns of its own, of figures on test rows

    Raises
    ------
    ValueError
        A file of another kind stands where one is to be written; a line of the CSV is cut, or a cell is no number.
    """

    def __init__(self, folder: Path, name: str, more: Sequence[str] = ()) -> None:
        self.folder, self.name, self.columns = folder, name, (*COLUMNS, *more)
        self.path, self._nets, self._openings = folder / f"{name}.csv", _nets(folder, name), folder / f"{name}-test-rows-opened.txt"
        self.lines: list[Line] = []
        demand_replaceable("out", self.path, "a table of runs", lambda _: True)
        if self.path.exists():
            self.lines = [
                line
                for line in read(self.path, self.columns, tuple(_KINDS))
                if line["test_accuracy"] or not line["net"] or self.keeps(line)
            ]
        demand_replaceable("out", self._openings, "a note of when test rows were opened", _is_note)
        for picture in folder.glob(f"{name}-*.png"):
            demand_png_or_none("out", picture)
        for net in self._nets.glob("*.safetensors"):
            demand_replaceable("out", net, "a net", _is_net)

    def has(self, seed: int, part: str, name: str) -> bool:
        """Whether that run is done."""
        return any(tuple(line[column] for column in KEY) == (str(seed), part, name) for line in self.lines)

    def add(self, seed: int, part: str, name: str, value: float | None, figures: Mapping[str, Any], trained: Trained[Any] | None) -> None:
        """Note a run, and keep its net for the test rows."""
        line = dict.fromkeys(self.columns, "") | {"seed": str(seed), "part": part, "name": name, "value": cell(value)}
        line |= {column: cell(figures.get(column)) for column in FIGURES}
        if trained is not None:
            trained.net.save(self._net(line))
        self.lines.append(line)
        self._write()

    @property
    def openings(self) -> int:
        """How often test rows have been looked at."""
        return len(self._openings.read_text().splitlines()) if self._openings.exists() else 0

    def open_test_rows(self, measure: Callable[[Line, Net | None], Mapping[str, float]]) -> None:
        """Have `measure` give the figures on test rows of each run that has none yet.

        It is written down each time: figures of a second opening can have been chosen after a look at the first.
        """
        left = [line for line in self.lines if not line["test_accuracy"]]
        if not left:
            return
        before = self._openings.read_bytes() if self._openings.exists() else b""
        with replacing(self._openings) as file:
            file.write(before + f"{time.strftime('%Y-%m-%d %H:%M:%S')}: {len(left)} runs\n".encode())
        for line in left:
            line.update({column: cell(value) for column, value in measure(line, self.net(line)).items()})
            self._write()

    def keeps(self, line: Line) -> bool:
        """Whether the net of a run is there."""
        return self._net(line).exists()

    def net(self, line: Line) -> Net | None:
        """The net of a run; None for a teacher, which is not kept here. FileFormatError: it is another net than the CSV says."""
        if not line["net"]:
            return None
        path = self._net(line)
        kind = read_metadata(path)["kind"]
        if kind != line["net"]:
            raise FileFormatError(f"out: {str(path)!r}: expected a {line['net']}, as {self.path.name} says, got a {kind}")
        net = _KINDS[kind].load(path)
        size = Size.of(net)
        if other := other_than(line, {"parameters": size.parameters, "bytes": size.bytes}):
            column, got = other
            raise FileFormatError(f"out: {str(path)!r}: expected {line[column]} {column}, as {self.path.name} says, got {got}")
        return net

    def _net(self, line: Line) -> Path:
        return self._nets / ("-".join(line[column] for column in KEY).replace("/", "_").replace(" ", "_") + ".safetensors")

    def _write(self) -> None:
        with replacing(self.path) as file:
            file.write(written(self.lines, self.columns).encode())


def _nets(folder: Path, name: str) -> Path:
    """The folder of an experiment's nets, made if need be."""
    nets = folder / "nets" / name
    nets.mkdir(parents=True, exist_ok=True)
    return nets


def _is_note(path: str) -> bool:
    """Whether a file's lines are those that `open_test_rows` writes."""
    with open(path, "rb") as file:
        return all(re.fullmatch(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d: \d+ runs\r?\n", line) for line in file)


def _is_net(path: str) -> bool:
    try:
        return read_metadata(path)["kind"] in _KINDS
    except (FileFormatError, KeyError):
        return False
