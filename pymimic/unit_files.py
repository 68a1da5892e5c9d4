"""Files whose arrays of hidden units may lie in other files beside them, one for each of the processes that wrote them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from .backends.interface import Array
from .errors import FileFormatError
from .files import read_metadata, read_safetensors
from .targets import Path, expanded

KIND = "shard"
_OF_UNITS = frozenset("UbW")


def is_of_units(name: str) -> bool:
    """Whether the array of that name has a row for each hidden unit: "U", "weights.U", "optimizer.U.mean"."""
    return not _OF_UNITS.isdisjoint(name.split("."))


def shard_path(path: Path, token: str, rank: int) -> str:
    """Where the units of a process are; `token` tells one writing from the next."""
    return f"{expanded(path)}.{token}-{rank}"


def read_arrays(
    path: Path, kind: str, name: str = "path", units: tuple[int, int] | None = None
) -> tuple[dict[str, Array], dict[str, Any]]:  # fmt: skip
    """`pymimic.files.read_safetensors`, with the arrays of units put together from the files beside `path`.

    Parameters
    ----------
    units : the first unit that is wanted and the one after the last; None for all

    Raises
    ------
    FileFormatError
        As there; a file beside it is missing, or of another writing.
    """
    arrays, metadata = read_safetensors(path, kind, name)
    shards = metadata.pop("shards", None)
    if shards is None:
        return _some(arrays, units), metadata
    where = f"{name}: {expanded(path)!r}"
    try:
        token, ranges = str(shards["token"]), [(int(first), int(end)) for first, end in shards["units"]]
        if not re.fullmatch("[0-9a-f]{8}", token) or [first for first, _ in ranges] != [0, *(end for _, end in ranges[:-1])]:
            raise ValueError(f"units {ranges}")
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{where}: expected the files of its units, one after the other, got {shards!r}") from error
    first, end = (0, ranges[-1][1]) if units is None else units
    whole: dict[str, Array] = {}
    for rank, (begin, stop) in enumerate(ranges):
        if stop <= first or begin >= end:
            continue
        found = _shard(path, token, rank, (begin, stop), name)
        for key, array in found.items():
            rows = whole.setdefault(key, np.empty((min(end, ranges[-1][1]) - first, *array.shape[1:]), array.dtype))
            rows[max(begin - first, 0) : stop - first] = array[max(first - begin, 0) : end - begin]
    return arrays | whole, metadata


def _some(arrays: Mapping[str, Array], units: tuple[int, int] | None) -> dict[str, Array]:
    if units is None:
        return dict(arrays)
    return {name: array[units[0] : units[1]] if is_of_units(name) else array for name, array in arrays.items()}


def _shard(path: Path, token: str, rank: int, units: tuple[int, int], name: str) -> dict[str, Array]:
    where = shard_path(path, token, rank)
    if not os.path.exists(where):
        raise FileFormatError(f"{name}: {expanded(path)!r}: expected its units {units[0]} to {units[1]} in {where!r}, which is missing")
    arrays, metadata = read_safetensors(where, KIND, name)
    rows = {len(array) for array in arrays.values()}
    if (metadata.get("token"), metadata.get("units"), rows) != (token, list(units), {units[1] - units[0]}):
        raise FileFormatError(f"{name}: {expanded(path)!r}: expected its units {units[0]} to {units[1]} in {where!r}, got others")
    return arrays


def shards_of(path: Path) -> list[str]:
    """The files of units that lie beside `path`, those of unfinished writings too."""
    folder, base = os.path.split(expanded(path))
    shape = re.compile(re.escape(base) + r"\.[0-9a-f]{8}-\d+")
    beside = (os.path.join(folder, name) for name in os.listdir(folder or ".") if shape.fullmatch(name))
    return [name for name in beside if _is_shard(name)]


def _is_shard(path: str) -> bool:
    try:
        return bool(read_metadata(path, KIND))
    except (FileFormatError, OSError):
        return False
