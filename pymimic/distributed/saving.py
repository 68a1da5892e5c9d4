"""Files that all processes of a group write together: each its units, and the first one what belongs to all, once they are there."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any

from ..backends.interface import Array
from ..files import write_safetensors
from ..targets import Path
from ..unit_files import KIND, is_of_units, remove_shards, shard_path
from .group import Group
from .units import Units


def write_arrays(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any], group: Group, units: Units,
    demand: Callable[[], None] | None = None,
) -> None:  # fmt: skip
    """Write arrays and metadata to `path` and to a file for each process beside it; `pymimic.unit_files.read_arrays` reads them.

    The file at `path` is the last to be written: until it is there, what was there before is whole. A process alone writes `path` only.

    Parameters
    ----------
    path : in a folder that all processes share
    arrays : those of units have this process's units, the others are the same on all ranks
    metadata : the first process's counts
    demand : of the file at `path`, by the first process, see `write_safetensors`

    Raises
    ------
    OSError
        A file cannot be written, or not all files are in the first process's folder.
    GroupError
        Another process failed, or is gone.
    """
    if group.size == 1:
        write_safetensors(path, arrays, metadata, demand)
        remove_shards(path)
        return
    token = group.told(secrets.token_hex(4))[0]
    own = {name: array for name, array in arrays.items() if is_of_units(name)}
    here, written = shard_path(path, token, group.rank), False
    try:
        with group.together():
            write_safetensors(here, own, {"kind": KIND, "token": token, "units": list(units)})
        ranges = group.told(list(units))
        written = True  # from here on the file that names this one may be there, whatever this process sees
    finally:
        if not written:
            with suppress(OSError):
                os.unlink(here)
    with group.together():
        if group.rank == 0:
            try:
                _finish(path, {name: array for name, array in arrays.items() if name not in own}, metadata, token, ranges, demand)
            except Exception:  # the file that names the others was not written
                with suppress(OSError):
                    os.unlink(here)
                raise


def remove(path: Path, group: Group) -> None:
    """Remove a file and the files of units beside it, by the first process."""
    with group.together():
        if group.rank == 0:
            with suppress(FileNotFoundError):
                os.unlink(path)
            remove_shards(path)


def _finish(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any], token: str, ranges: list[list[int]],
    demand: Callable[[], None] | None,
) -> None:  # fmt: skip
    """Write the file that names the others, and remove those of earlier writings."""
    new = [shard_path(path, token, rank) for rank in range(len(ranges))]
    for name in new:
        if not os.path.exists(name):
            raise FileNotFoundError(f"path: expected {name!r}, which another process wrote, in a folder that all processes share")
    write_safetensors(path, arrays, {**metadata, "shards": {"token": token, "units": ranges}}, demand)
    remove_shards(path, new)
