"""The CSV of an experiment: its columns, how cells are written, and what is wrong in one that something else has changed."""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..foreign import printable

KEY = ("seed", "part", "name")  # which run it is
TEACHER = "teacher"  # the part and the name of each seed's teacher
FIGURES = ("rows", "net", "hidden", "rank", "parameters", "multiply_adds", "bytes", "made_by", "cpu_seconds", "validation_accuracy")
_TESTED = ("test_accuracy", "test_error", "agreement")
COLUMNS = (*KEY, "value", *FIGURES, *_TESTED)
_ALWAYS = ("seed", "rows", "bytes", "made_by", "cpu_seconds", "validation_accuracy")  # that every run has
_COUNTS = ("seed", "rows", "hidden", "rank", "parameters", "multiply_adds", "bytes")
_SHARES = ("validation_accuracy", *_TESTED)
_EARLIER = "an earlier version, on an unknown machine"  # which noted neither
_CURE = "put the file back, or delete that line, and the run is made again"

Line = dict[str, str]


def cell(value: Any) -> str:
    """How it is written."""
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


def other_than(line: Line, values: Mapping[str, Any]) -> tuple[str, str] | None:
    """The first column in which the line has not this value, and the value as a cell; None where it has all of them."""
    return next(((column, cell(value)) for column, value in values.items() if line[column] != cell(value)), None)


def written(lines: Sequence[Line], columns: Sequence[str]) -> str:
    """The text of the file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(lines)
    return text.getvalue()


def read(path: Path, columns: Sequence[str], kinds: Sequence[str]) -> list[Line]:
    """The lines of a CSV that `written` made, with nets of these kinds; ValueError names the run and the column where it did not."""
    try:
        text = path.read_bytes().decode()
        reader = csv.DictReader(io.StringIO(text, newline=""))
        lines = list(reader)
        if tuple(reader.fieldnames or ()) == tuple(column for column in columns if column != "made_by"):
            lines = [line | {"made_by": _EARLIER} for line in lines]
        elif tuple(reader.fieldnames or ()) != tuple(columns):
            raise ValueError
    except (ValueError, csv.Error):  # ValueError of bytes that are no text, too
        raise ValueError(f"out: expected the columns {', '.join(columns)} in {path}: choose another folder") from None
    if not text.endswith("\n"):
        raise ValueError(f"out: expected a whole last line in {path}, got a cut one: {_CURE}")
    for number, line in enumerate(lines, 1):
        if None in line or None in line.values():  # as the reader has too many values and missing ones
            raise ValueError(f"out: expected {len(columns)} values of run {number} in {path}, got fewer or more: {_CURE}")
        demanded = set(_ALWAYS) | (set(columns) - set(COLUMNS) | set(_TESTED) if line["test_accuracy"] else set())
        for column in columns:
            if wrong := _wrong(column, line, column in demanded, kinds):
                got = printable(line[column])
                raise ValueError(f"out: expected {wrong} as {column} of run {number} in {path}, got {got!r}: {_CURE}")
    keys = [tuple(line[column] for column in KEY) for line in lines]
    if len(set(keys)) < len(keys):
        twice = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"out: expected each run once in {path}, got {printable(', '.join(twice))} twice: {_CURE}")
    return lines


def _wrong(column: str, line: Line, demanded: bool, kinds: Sequence[str]) -> str:
    """What a cell should have been; "" where it is right."""
    text = line[column]
    if column == "net":
        is_teacher = line["part"] == line["name"] == TEACHER
        return "" if (text == "" if is_teacher else text in kinds) else "nothing" if is_teacher else f"one of {', '.join(kinds)}"
    if column in ("part", "name") or (text == "" and not demanded):
        return ""
    if column == "made_by":
        return "" if text else "the version and the machine"
    if column in _COUNTS:
        return "" if re.fullmatch(r"0|[1-9]\d{0,18}", text) else "a whole number"
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if column in _SHARES:
        return "" if 0 <= value <= 1 else "a share in [0, 1]"
    return "" if math.isfinite(value) else "a number"
