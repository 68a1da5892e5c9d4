"""Files whose arrays of hidden units may lie in other files beside them, one for each of the processes that wrote them."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from . import _check
from .backends.interface import Array
from .differences import differences
from .errors import FileFormatError
from .files import read_metadata, read_safetensors
from .foreign import demand_plain
from .targets import Path, expanded, naming

KIND = "shard"
_OF_UNITS = frozenset("UbW")
_MOST = 1 << 31  # units


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
        token, ranges = shards["token"], [_demand_units(first, end) for first, end in shards["units"]]
        if not re.fullmatch("[0-9a-f]{8}", token) or [first for first, _ in ranges] != [0, *(end for _, end in ranges[:-1])]:
            raise ValueError(f"units {ranges}")
    except (KeyError, TypeError, ValueError) as error:
        raise FileFormatError(f"{where}: expected the files of its units, one after the other, got {shards!r}") from error
    first, end = (0, ranges[-1][1]) if units is None else units
    wanted = [(rank, own) for rank, own in enumerate(ranges) if own[1] > first and own[0] < end]
    room = sum(_size(path, token, rank, own, name) for rank, own in wanted)
    rows, whole = min(end, ranges[-1][1]) - first, dict[str, Array]()
    for rank, (begin, stop) in wanted:
        found = _shard(path, token, rank, (begin, stop), name)
        if not whole:
            if rows * sum(array[:1].nbytes for array in found.values()) > room:
                raise FileFormatError(f"{where}: expected files for {rows} units, got {room} bytes")
            whole = {key: np.empty((rows, *array.shape[1:]), array.dtype) for key, array in found.items()}
        have, want = _forms(found), _forms(whole)
        if have != want:
            other = "; ".join(f"{key}: expected {a}, got {b}" for key, a, b in differences("", want, have))
            raise FileFormatError(
                f"{where}: expected the same arrays of all its units, got others in {shard_path(path, token, rank)!r}: {other}"
            )
        for key, array in found.items():
            whole[key][max(begin - first, 0) : stop - first] = array[max(first - begin, 0) : end - begin]
    return arrays | whole, metadata


def _demand_units(first: object, end: object) -> tuple[int, int]:
    start = _check.integer("first", first, 0, _MOST)
    return start, _check.integer("end", end, start, _MOST)


def _forms(arrays: Mapping[str, Array]) -> dict[str, str]:
    """dtype and columns of each array."""
    return {name: f"{array.dtype} {array.shape[1:]}" for name, array in arrays.items()}


def _some(arrays: Mapping[str, Array], units: tuple[int, int] | None) -> dict[str, Array]:
    if units is None:
        return dict(arrays)
    return {name: array[units[0] : units[1]] if is_of_units(name) and array.ndim else array for name, array in arrays.items()}


def _size(path: Path, token: str, rank: int, units: tuple[int, int], name: str) -> int:
    """Bytes of the file with those units."""
    where = shard_path(path, token, rank)
    if not os.path.exists(where):
        raise FileFormatError(f"{name}: {expanded(path)!r}: expected its units {units[0]} to {units[1]} in {where!r}, which is missing")
    with naming(where, f"{name}: "):
        demand_plain(where)
        return os.path.getsize(where)


def _shard(path: Path, token: str, rank: int, units: tuple[int, int], name: str) -> dict[str, Array]:
    where = shard_path(path, token, rank)
    arrays, metadata = read_safetensors(where, KIND, name)
    rows = {len(array) if array.ndim else -1 for array in arrays.values()}
    if (metadata.get("token"), metadata.get("units"), rows) != (token, list(units), {units[1] - units[0]}):
        raise FileFormatError(f"{name}: {expanded(path)!r}: expected its units {units[0]} to {units[1]} in {where!r}, got others")
    return arrays


def shards_of(path: Path) -> list[str]:
    """The files of units that lie beside `path`, those of unfinished writings too."""
    folder, base = os.path.split(expanded(path))
    shape = re.compile(re.escape(base) + r"\.[0-9a-f]{8}-\d+")
    beside = (os.path.join(folder, name) for name in os.listdir(folder or ".") if shape.fullmatch(name))
    return [name for name in beside if _is_shard(name)]


def remove_shards(path: Path, but: Sequence[str] = ()) -> None:
    """Remove the files of units that earlier writings left beside `path`."""
    for name in shards_of(path):
        if name not in but:
            with suppress(OSError):
                os.unlink(name)


def _is_shard(path: str) -> bool:
    try:
        return bool(read_metadata(path, KIND))
    except (FileFormatError, OSError):
        return False
