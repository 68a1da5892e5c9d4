"""Arrays plus JSON in one safetensors file with a checksum, written so that a crash, a full disk or ctrl-C leaves the old file whole."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, BinaryIO

import numpy as np
from safetensors import SafetensorError, safe_open

from .backends.interface import Array
from .errors import FileFormatError
from .foreign import demand_plain, parsed
from .formats import demand_replaceable
from .targets import Path, expanded, naming, replacing

__all__ = ["FORMAT", "Path", "read_metadata", "read_safetensors", "write_safetensors"]

FORMAT = 2  # 1 had no checksum
_KEY = "pymimic"
_KINDS = {"f": "F", "i": "I", "u": "U"}  # NumPy's letter for a dtype -> safetensors' one
_LETTERS = {letter: kind for kind, letter in _KINDS.items()}
_LONGEST_HEADER = 100_000_000  # bytes that safetensors reads, in all versions
_BLOCK = 1 << 20  # bytes that are read back at once
_NO_DIGEST = b"0" * 64
_DIGEST = re.compile(rb'\\"sha256\\": \\"([0-9a-f]{64})\\"')  # as it stands in the header: JSON in JSON


def write_safetensors(
    path: Path, arrays: Mapping[str, Array], metadata: Mapping[str, Any], demand: Callable[[], None] | None = None
) -> None:  # fmt: skip
    """Write arrays and metadata to `path` atomically: the old file or the new one is there, never half of one.

    The data goes to a temporary file beside `path`, is synced to disk, read back and compared, and then takes its place.

    Parameters
    ----------
    path : the file; its folder must exist, and `~` is the home folder
    arrays : arrays by name, of float, int or unsigned dtypes; no second copy is made of C-contiguous ones
    metadata : what JSON can hold. "format" and "sha256" are added to it, and the whole is stored under the one key "pymimic". The
        checksum is of the whole file, with 64 zeros in the checksum's own place
    demand : is called when the new file is whole, just before it takes the place: what it raises leaves the old file there

    Raises
    ------
    OSError
        The file cannot be written (a full disk, no such folder, not a plain file), or comes back otherwise; it names `path`, and what was
        there before is untouched.
    ValueError
        Names and metadata take more than 100 MB, which safetensors would not read again.
    """
    ordered = sorted(arrays.items(), key=lambda item: (-item[1].dtype.itemsize, item[0]))  # wide dtypes first: all are aligned
    header = _header(ordered, {_KEY: json.dumps({"format": FORMAT, "sha256": _NO_DIGEST.decode(), **metadata})})
    if len(header) - 8 > _LONGEST_HEADER:
        raise ValueError(
            f"path: expected at most {_LONGEST_HEADER} bytes of names and metadata for {expanded(path)!r}, got {len(header) - 8}, "
            "which could not be loaded again"
        )
    digest = hashlib.sha256(header)
    for _, array in ordered:
        digest.update(raw_bytes(array))
    header = header.replace(_NO_DIGEST, digest.hexdigest().encode(), 1)

    def content() -> Iterator[bytes | memoryview]:
        yield header
        for _, array in ordered:
            yield raw_bytes(array)

    def check(part: str) -> None:
        _demand_readable(part, content())
        if demand is not None:
            demand()

    with replacing(path, check) as file:
        for piece in content():
            file.write(piece)


def read_safetensors(path: Path, kind: str | None = None, name: str = "path") -> tuple[dict[str, Array], dict[str, Any]]:
    """Arrays by name, and the metadata, of a file that `write_safetensors` wrote.

    Parameters
    ----------
    path : the file; `~` is the home folder
    kind : what metadata["kind"] must be, for instance "student"; None takes any
    name : of the argument that the path came by, which errors begin with

    Raises
    ------
    FileFormatError
        The file is truncated or damaged, not a safetensors file, not one of pymimic's, of a later format, or of another kind.
    OSError
        The file cannot be read.
    """
    where = f"{name}: {expanded(path, name)!r}"
    with _opened(path, name) as file:
        header, metadata = _open(file, where, kind)
        try:
            described = parsed(header[8:])
            entries = sorted(((name, entry) for name, entry in described.items() if name != "__metadata__"), key=_place)
            arrays = {name: _array(file, entry["dtype"], entry["shape"]) for name, entry in entries}
        except (KeyError, ValueError, TypeError, AttributeError) as error:
            raise FileFormatError(f"{where}: expected a whole file that pymimic wrote, got another ({error})") from error
        except MemoryError as error:
            raise OSError(errno.ENOMEM, f"{os.strerror(errno.ENOMEM)}: its arrays do not fit in memory") from error
    if metadata["format"] > 1:
        wanted = metadata.get("sha256")
        digest = hashlib.sha256(_DIGEST.sub(lambda found: found[0].replace(found[1], _NO_DIGEST), header, 1))
        for array in arrays.values():
            digest.update(raw_bytes(array))
        if digest.hexdigest() != wanted:
            raise FileFormatError(f"{where}: expected sha256 {wanted}, as the file says, got {digest.hexdigest()}: the file is damaged")
    return arrays, {key: value for key, value in metadata.items() if key != "sha256"}


def read_metadata(path: Path, kind: str | None = None) -> dict[str, Any]:
    """The metadata alone, for which no array is read and no checksum compared; otherwise like `read_safetensors`."""
    with _opened(path, "path") as file:
        return _open(file, f"path: {expanded(path)!r}", kind)[1]


def demand_kind_or_none(name: str, path: Path, kind: str) -> None:
    """As `demand_replaceable`, of a file that `write_safetensors` wrote with metadata["kind"]."""

    def is_one(where: str) -> bool:
        try:
            return bool(read_metadata(where, kind))
        except FileFormatError:
            return False

    demand_replaceable(name, path, f"a {kind}'s", is_one)


def _demand_readable(path: str, content: Iterator[bytes | memoryview]) -> None:
    """Demand a file that is on disk with that content, and that the library opens it."""
    with open(path, "rb") as file:
        if hasattr(os, "posix_fadvise"):  # let the system forget what it still has in memory
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        for piece in content:
            for start in range(0, len(piece), _BLOCK):
                wanted = bytes(piece[start : start + _BLOCK])
                if file.read(len(wanted)) != wanted:
                    raise OSError(errno.EIO, "expected the bytes that were written, got others when they were read back")
    _demand_safetensors(path)


def _header(arrays: list[tuple[str, Array]], metadata: dict[str, str]) -> bytes:
    """The beginning of a safetensors file. The library's own writer makes a temporary file of its own and never syncs it."""
    header: dict[str, Any] = {"__metadata__": metadata}
    end = 0
    for name, array in arrays:
        if array.dtype.kind not in _KINDS:
            raise TypeError(f"{name}: expected a float, int or unsigned dtype, got {array.dtype}")
        start, end = end, end + array.nbytes
        dtype = f"{_KINDS[array.dtype.kind]}{8 * array.dtype.itemsize}"
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text


@contextmanager
def _opened(path: Path, name: str) -> Iterator[BinaryIO]:
    """The file to be read; OSError names it, and begins with the argument's `name`."""
    with naming(expanded(path, name), f"{name}: "):
        demand_plain(expanded(path))
        with open(expanded(path), "rb") as file:
            yield file


def _open(file: BinaryIO, where: str, kind: str | None) -> tuple[bytes, dict[str, Any]]:
    """The header, which the library has found to fit the file, and the metadata in it; leaves `file` at the first array.

    The arrays are not taken from the library: it maps the file, and a process dies of a mapped file that another program makes shorter.
    """
    try:
        _demand_safetensors(file.name)
        size = file.read(8)
        header = size + file.read(int.from_bytes(size, "little"))
        metadata = parsed(parsed(header[8:])["__metadata__"][_KEY])
    except SafetensorError as error:
        raise FileFormatError(f"{where}: expected a whole safetensors file, got a truncated or foreign one ({error})") from error
    except (KeyError, ValueError, TypeError, OverflowError) as error:
        raise FileFormatError(f"{where}: expected a file that pymimic wrote, got one without its metadata key {_KEY!r}") from error
    if not isinstance(metadata, dict) or metadata.get("format") not in range(1, FORMAT + 1):
        got = metadata.get("format") if isinstance(metadata, dict) else metadata
        raise FileFormatError(f"{where}: expected format {FORMAT} or an earlier one, got {got!r}")
    if kind is not None and metadata.get("kind") != kind:
        raise FileFormatError(f"{where}: expected a {kind}, got a {metadata.get('kind')!r} file")
    return header, metadata


def _demand_safetensors(path: str) -> None:
    """Demand what the library opens. It opens and maps the file once more; where it cannot, its errors have no number and no name."""
    try:
        with safe_open(path, framework="numpy"):
            pass
    except MemoryError as error:
        raise OSError(errno.ENOMEM, f"{os.strerror(errno.ENOMEM)}: the safetensors library cannot map it") from error
    except OSError as error:
        code = error.errno or errno.EIO
        raise OSError(code, f"{os.strerror(code)}: the safetensors library cannot open it") from error


def _place(item: tuple[str, dict[str, Any]]) -> int:
    return int(item[1]["data_offsets"][0])


def _array(file: BinaryIO, dtype: str, shape: list[int]) -> Array:
    """The next array of the file."""
    array = np.empty(shape, f"<{_LETTERS[dtype[0]]}{int(dtype[1:]) // 8}")
    got = file.readinto(raw_bytes(array))  # type: ignore[attr-defined]
    if got != array.nbytes:
        raise ValueError(f"{array.nbytes} bytes expected, {got} there")
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def raw_bytes(array: Array) -> memoryview:
    """The array as files have it: little-endian, in C order; not copied where it is so already."""
    return np.asarray(array, array.dtype.newbyteorder("<"), order="C").reshape(-1).view(np.uint8).data
