"""What is known of an experiment's runs, in a folder: a CSV with a line for each, and the trained nets."""

from __future__ import annotations

import csv
import io
import math
import re
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..demo.measure import Size
from ..demo.students import Trained
from ..errors import FileFormatError
from ..files import read_metadata
from ..foreign import printable
from ..formats import demand_png_or_none, demand_replaceable
from ..nets.net import Net
from ..nets.student import Student
from ..targets import replacing
from ..training.convnet import ConvNet
from ..training.deepnet import DeepNet
from .torch_net import TorchNet

KEY = ("seed", "part", "name")  # which run it is
TEACHER = "teacher"  # the part and the name of each seed's teacher
_KINDS: dict[str, type[Net]] = {kind.file_kind: kind for kind in (Student, DeepNet, ConvNet, TorchNet)}
_FIGURES = ("rows", "net", "hidden", "rank", "parameters", "multiply_adds", "bytes", "cpu_seconds", "validation_accuracy")
_TESTED = ("test_accuracy", "test_error", "agreement")
_ALWAYS = ("seed", "rows", "bytes", "cpu_seconds", "validation_accuracy")  # that every run has
_COUNTS = ("seed", "rows", "hidden", "rank", "parameters", "multiply_adds", "bytes")
_SHARES = ("validation_accuracy", *_TESTED)
_CURE = "put the file back, or delete that line, and the run is made again"
COLUMNS = (*KEY, "value", *_FIGURES, *_TESTED)

Line = dict[str, str]


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
        self.path, self._nets, self._openings = folder / f"{name}.csv", folder / "nets" / name, folder / f"{name}-test-rows-opened.txt"
        self._nets.mkdir(parents=True, exist_ok=True)
        self.lines: list[Line] = []
        demand_replaceable("out", self.path, "a table of runs", lambda _: True)
        if self.path.exists():
            self.lines = [line for line in _read(self.path, self.columns) if line["test_accuracy"] or not line["net"] or self.keeps(line)]
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
        line = dict.fromkeys(self.columns, "") | {"seed": str(seed), "part": part, "name": name, "value": text_of(value)}
        line |= {column: text_of(figures.get(column)) for column in _FIGURES}
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
            line.update({column: text_of(value) for column, value in measure(line, self.net(line)).items()})
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
        for column, got in (("parameters", size.parameters), ("bytes", size.bytes)):
            if line[column] != text_of(got):
                raise FileFormatError(f"out: {str(path)!r}: expected {line[column]} {column}, as {self.path.name} says, got {text_of(got)}")
        return net

    def _net(self, line: Line) -> Path:
        return self._nets / ("-".join(line[column] for column in KEY).replace("/", "_").replace(" ", "_") + ".safetensors")

    def _write(self) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, self.columns)
        writer.writeheader()
        writer.writerows(self.lines)
        with replacing(self.path) as file:
            file.write(text.getvalue().encode())


def _read(path: Path, columns: Sequence[str]) -> list[Line]:
    """The lines of a CSV that `Ledger` wrote."""
    try:
        text = path.read_bytes().decode()
        reader = csv.DictReader(io.StringIO(text, newline=""))
        if tuple(reader.fieldnames or ()) != tuple(columns):
            raise ValueError
        lines = list(reader)
    except (ValueError, csv.Error):  # ValueError of bytes that are no text, too
        raise ValueError(f"out: expected the columns {', '.join(columns)} in {path}: choose another folder") from None
    if not text.endswith("\n"):
        raise ValueError(f"out: expected a whole last line in {path}, got a cut one: {_CURE}")
    for number, line in enumerate(lines, 1):
        if None in line or None in line.values():  # as the reader has too many values and missing ones
            raise ValueError(f"out: expected {len(columns)} values of run {number} in {path}, got fewer or more: {_CURE}")
        demanded = set(_ALWAYS) | (set(columns) - set(COLUMNS) | set(_TESTED) if line["test_accuracy"] else set())
        for column in columns:
            if wrong := _wrong(column, line, column in demanded):
                got = printable(line[column])
                raise ValueError(f"out: expected {wrong} as {column} of run {number} in {path}, got {got!r}: {_CURE}")
    keys = [tuple(line[column] for column in KEY) for line in lines]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"out: expected each run once in {path}, got {printable(', '.join(twice))} twice: {_CURE}")
    return lines


def _wrong(column: str, line: Line, demanded: bool) -> str:
    """What a cell should have been; "" where it is right."""
    text = line[column]
    if column == "net":
        is_teacher = line["part"] == line["name"] == TEACHER
        return "" if (text == "" if is_teacher else text in _KINDS) else "nothing" if is_teacher else f"one of {', '.join(_KINDS)}"
    if column in ("part", "name") or (text == "" and not demanded):
        return ""
    if column in _COUNTS:
        return "" if re.fullmatch(r"0|[1-9]\d{0,18}", text) else "a whole number"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if column in _SHARES:
        return "" if 0 <= value <= 1 else "a share in [0, 1]"
    return "" if math.isfinite(value) else "a number"


def _is_note(path: str) -> bool:
    """Whether a file's lines are those that `open_test_rows` writes."""
    with open(path, "rb") as file:
        return all(re.fullmatch(rb"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d: \d+ runs\r?\n", line) for line in file)


def _is_net(path: str) -> bool:
    try:
        return read_metadata(path)["kind"] in _KINDS
    except (FileFormatError, KeyError):
        return False


def text_of(value: Any) -> str:
    """A cell."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)
