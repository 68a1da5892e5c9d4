"""Arrays that are memory-mapped from a file: which file, whether it is still as it was, and how to map it again in another process."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np

from ..backends.interface import Array


@dataclass(frozen=True)
class MappedFile:
    """What is mapped, and the file as it was then."""

    path: str
    offset: int
    dtype: str
    shape: tuple[int, ...]
    size: int
    modified: int
    number: int  # of the file in its file system: one that took its place has another, and the old one stays mapped

    def demand(self, unwritten: bool = False) -> None:
        """Demand that the file has not become shorter, as reading on would then kill the process, or has not been written to at all.

        A file that is gone, or that another has replaced, stays mapped as it was.
        """
        try:
            now = os.stat(self.path)
        except OSError:
            return
        if now.st_ino != self.number:
            return
        if now.st_size < self.size or (unwritten and now.st_size != self.size):
            raise ValueError(f"{self.path}: expected {self.size} bytes, as when it was opened, got {now.st_size}")
        if unwritten and now.st_mtime_ns != self.modified:
            raise ValueError(f"{self.path}: expected a file that nobody writes to, got one that was written to since it was opened")

    def open(self) -> Array:
        """The array, mapped again; ValueError where the file is another than it was."""
        now = os.stat(self.path)
        if (now.st_size, now.st_mtime_ns) != (self.size, self.modified):
            raise ValueError(f"{self.path}: expected the file as it was when the set was pickled, got one written since")
        return np.asarray(np.memmap(self.path, np.dtype(self.dtype), "r", self.offset, self.shape))


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
