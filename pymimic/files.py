"""Arrays plus JSON in one safetensors file, written so that a crash, a full disk or ctrl-C leaves the old file whole."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from .backends.interface import Array
from .errors import FileFormatError

FORMAT = 1
Path = str | os.PathLike[str]
_KEY = "pymimic"
_KINDS = {"f": "F", "i": "I", "u": "U"}  # NumPy's letter for a dtype -> safetensors' one


def write_safetensors(path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any]) -> None:
    """Write arrays and metadata to `path` atomically: the old file or the new one is there, never half of one.

    The data goes to `.NAME.part` beside `path`, is synced to disk, and then takes its place. One writer a path.

    Parameters
    ----------
    path : the file; its folder must exist
    arrays : arrays by name, of float, int or unsigned dtypes; no second copy is made of C-contiguous ones
    metadata : what JSON can hold; "format" is added to it, and the whole stored under the one key "pymimic"

    Raises
    ------
    OSError
        The file cannot be written (a full disk, no such folder, not a plain file); it names `path`, and what was there before is untouched.
    """
    with replacing(path) as file:
        _write(file, arrays, {_KEY: json.dumps({"format": FORMAT, **metadata})})


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` once it is whole and on disk; if it does not come to that, nothing is left of it.

    An OSError on the way names `path`.
    """
    target = os.path.realpath(path)
    if os.path.lexists(target) and not os.path.isfile(target):
        raise OSError(errno.EINVAL, "expected a plain file or none, got something else", os.fspath(path))
    folder, name = os.path.split(target)
    part = os.path.join(folder, f".{name}.part")
    try:
        try:
            with open(part, "wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, target)
        except BaseException:
            with suppress(OSError):
                os.unlink(part)
            raise
        _sync_folder(folder)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from error


def read_safetensors(path: Path, kind: str | None = None) -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays by name, and the metadata, of a file that `write_safetensors` wrote.

    Parameters
    ----------
    path : the file
    kind : what metadata["kind"] must be, for instance "student"; None takes any

    Raises
    ------
    FileFormatError
        The file is truncated, not a safetensors file, not one of pymimic's, of a later format, or of another kind.
    OSError
        The file cannot be read.
    """
    where = f"path: {os.fspath(path)!r}"
    with open(path, "rb"):  # an OSError of Python's own names the file
        pass
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {})[_KEY])
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a handle, not a mapping)
    except SafetensorError as error:
        raise FileFormatError(f"{where}: expected a whole safetensors file, got a truncated or foreign one ({error})") from error
    except (KeyError, ValueError, TypeError) as error:
        raise FileFormatError(f"{where}: expected a file that pymimic wrote, got one without its metadata key {_KEY!r}") from error
    if not isinstance(metadata, dict) or metadata.get("format") != FORMAT:
        got = metadata.get("format") if isinstance(metadata, dict) else metadata
        raise FileFormatError(f"{where}: expected format {FORMAT}, got {got!r}")
    if kind is not None and metadata.get("kind") != kind:
        raise FileFormatError(f"{where}: expected a {kind}, got a {metadata.get('kind')!r} file")
    return arrays, metadata


def _write(file: BinaryIO, arrays: Mapping[str, Array], metadata: dict[str, str]) -> None:
    """The safetensors format, streamed: the library's own writer makes a temporary file of its own and never syncs it."""
    header: dict[str, Any] = {"__metadata__": metadata}
    ordered: list[Array] = []
    end = 0
    for name, array in sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0])):  # wide dtypes first: all are aligned
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"{name}: expected a float, int or unsigned dtype, got {array.dtype}")
        start, end = end, end + array.nbytes
        dtype = f"{_KINDS[array.dtype.kind]}{8 * array.dtype.itemsize}"
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
        ordered.append(array)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for array in ordered:
        file.write(np.asarray(array, array.dtype.newbyteorder("<"), order="C").data)


def _sync_folder(folder: str) -> None:
    """Make the new name last through a power cut, where folders can be opened."""
    if hasattr(os, "O_DIRECTORY"):
        descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
