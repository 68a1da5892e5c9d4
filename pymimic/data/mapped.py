"""Arrays that are memory-mapped from a file: what a file is, whether it is still as it was, how to map it again in another process."""

from __future__ import annotations

import codecs
import math
import os
import zipfile
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from ..backends.interface import Array
from ..errors import FileFormatError
from ..foreign import demand_plain
from ..formats import begins_with, demand_replaceable
from ..targets import Path, expanded


@dataclass(frozen=True)
class MappedFile:
    """What is mapped, and the file as it was then."""

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    size: int
    modified: int
    number: int  # of the file in its file system: a file that takes its place has another number, while the old one stays mapped

    def demand(self) -> None:
        """Demand that nobody has written to the file: its rows may be others, and reading a map beyond a file's end kills the process.

        A file that is gone, or that another has replaced, stays mapped as it was.
        """
        try:
            now = os.stat(self.path)
        except OSError:
            return
        if now.st_ino != self.number:
            return
        if now.st_size != self.size:
            raise ValueError(f"{self.path}: expected {self.size} bytes, as when it was opened, got {now.st_size}")
        if now.st_mtime_ns != self.modified:
            raise ValueError(f"{self.path}: expected a file that nobody writes to, got one that was written to since it was opened")

    def open(self) -> Array:
        """The array, mapped again; ValueError where the file is another than it was."""
        now = os.stat(self.path)
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise ValueError(f"{self.path}: expected the file as it was when the set was pickled, got one written since")
        return np.asarray(np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, self.shape))


def map_npy(name: str, path: Path) -> Array:
    """The array in a .npy file, memory-mapped for reading; `name` is what errors call the path.

    Raises
    ------
    FileFormatError
        It is none, or not a whole one, or holds Python objects; the message says what it is.
    OSError
        It cannot be read.
    """
    where = expanded(path, name)
    try:
        demand_plain(where)
        array = load_mapped(where)
    except OSError as error:
        raise OSError(error.errno, f"{name}: {error.strerror or error}", where) from error
    except Exception:  # a damaged header can raise almost anything
        array = None
    if not isinstance(array, np.ndarray):
        raise FileFormatError(f"{name}: expected a .npy file of numbers, as numpy.save writes it, got {kind_of(where)}: {where!r}")
    return array


def load_mapped(path: Path) -> Any:
    """What `numpy.load` makes of the file, memory-mapped; ValueError for values without bytes, at some shapes of which NumPy crashes."""
    with open(path, "rb") as file:
        starts = file.read(len(np.lib.format.MAGIC_PREFIX)) == np.lib.format.MAGIC_PREFIX
        file.seek(0)
        if starts and _header(file)[1].itemsize == 0:
            raise ValueError("values without bytes")
    return np.load(path, mmap_mode="r", allow_pickle=False)


def _header(file: BinaryIO) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and dtype of a .npy file; almost any exception where it is damaged."""
    version = np.lib.format.read_magic(file)
    header = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = header(file)
    return shape, dtype


def demand_npy_or_none(name: str, path: Path) -> None:
    """As `demand_replaceable`, of a .npy file."""
    demand_replaceable(name, path, "a .npy file", begins_with(np.lib.format.MAGIC_PREFIX))


def kind_of(path: Path) -> str:
    """In words, what a file is that cannot be mapped as a .npy file."""
    with open(path, "rb") as file:
        start = file.read(256)
        if start.startswith(np.lib.format.MAGIC_PREFIX):
            file.seek(0)
            return _flaw(file)
    if not start:
        return "an empty file"
    if zipfile.is_zipfile(path):
        return "an archive, as numpy.savez writes it (save each array in a file of its own)"
    if start[0] == 0x80:
        return "a pickle"
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(start)
    except UnicodeDecodeError:
        text = "\0"
    if text.translate(dict.fromkeys(map(ord, "\t\r\n"))).isprintable():
        return "a text file (numpy.loadtxt reads numbers from one, and numpy.save writes them)"
    return "a file of another kind"


def _flaw(file: BinaryIO) -> str:
    """What is the matter with a file that begins as .npy files do."""
    try:
        shape, dtype = _header(file)
    except Exception:  # it can raise almost anything
        return "one with a damaged header"
    if dtype.hasobject:
        return "an array of Python objects (make numbers of them, such as by .astype(np.float32))"
    if dtype.itemsize == 0:  # any shape fits into a file of any size
        return f"an array of {dtype}, which takes no bytes"
    have, whole = os.fstat(file.fileno()).st_size, file.tell() + dtype.itemsize * math.prod(shape)
    return f"a truncated one, of {have} bytes instead of {whole}" if have < whole else "one that cannot be mapped"


def mapped_file(array: Array) -> MappedFile | None:
    """The file that a C-contiguous array is a read-only map of, if it is one."""
    root = array
    while isinstance(root.base, np.ndarray):
        root = root.base
    if not isinstance(root, np.memmap) or root.mode != "r" or not root.filename or not array.flags.c_contiguous or array.size == 0:
        return None
    offset = root.offset + array.__array_interface__["data"][0] - root.__array_interface__["data"][0]
    path = os.path.abspath(os.fspath(root.filename))
    try:
        now = os.stat(path)
    except OSError:
        return None
    return MappedFile(path, offset, array.dtype.str, array.shape, now.st_size, now.st_mtime_ns, now.st_ino)


def packed(array: Array) -> Array | MappedFile:
    """What stands for the array in a pickle: itself, or what maps it again."""
    return mapped_file(array) or array


def unpacked(stored: Array | MappedFile) -> Array:
    """The array for which `packed` gave this."""
    return stored.open() if isinstance(stored, MappedFile) else stored
