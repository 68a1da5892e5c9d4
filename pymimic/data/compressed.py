"""`.npy` files in gzip's format, for transfer sets that are kept: rows in random order need them unpacked, into a temporary file."""

from __future__ import annotations

import gzip
import math
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ..backends.interface import Array
from ..errors import ManifestError
from ..foreign import demand_plain
from ..targets import naming

_BLOCK = 1 << 20  # bytes at once
_MOST = 1040  # times as many bytes as it has can a file give; deflate reaches 1032


def write_compressed(file: Any, array: Array, level: int) -> None:
    """Write a .npy file in gzip's format; the same bytes for the same array, whenever it is written."""
    with gzip.GzipFile(filename="", mode="wb", compresslevel=level, fileobj=file, mtime=0) as packed:
        np.lib.format.write_array(packed, array, allow_pickle=False)


class CompressedFile:
    """An array in such a file. It is unpacked when its rows are first asked for, into a temporary file that ends with this object.

    Parameters
    ----------
    path : the file
    dtype, shape : what the array must be: nothing is read that would be larger

    Raises
    ------
    ManifestError
        The file is too small for such an array, however it is packed.
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape, there = path, dtype, shape, os.stat(path)
        self._as_opened, self._size = _state(there), dtype.itemsize * math.prod(shape)
        if self._size > _MOST * there.st_size:
            raise ManifestError(f"{path}: expected a whole .npy file in gzip's format, got one that is too small for {self._size} bytes")
        self._array: Array | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        if self._array is None:
            self._array = self._unpacked()
        return cast(Array, self._array[rows])

    def _unpacked(self) -> Array:
        """The array, mapped from an unnamed file of its own."""
        try:
            with naming(os.fspath(self.path)):
                demand_plain(self.path)
                with open(self.path, "rb") as file, tempfile.TemporaryFile() as unpacked:
                    try:
                        start = self._unpack(file, unpacked)
                    except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
                        raise ManifestError(f"{self.path}: expected a whole .npy file in gzip's format, got {error}") from error
                    return np.asarray(np.memmap(unpacked, self.dtype, "r", start, self.shape))
        except FileNotFoundError:
            raise ManifestError(f"{self.path}: expected a file, as the manifest says, got none") from None

    def _unpack(self, file: BinaryIO, unpacked: Any) -> int:
        """Write the .npy file that is in `file`; where its array begins. Nothing is written of one that is not the array's."""
        if _state(os.fstat(file.fileno())) != self._as_opened:
            raise ValueError("one that was written to since it was opened")
        with gzip.GzipFile(fileobj=file) as packed:
            start = self._header(packed)
            packed.seek(0)
            left = start + self._size
            while block := packed.read(min(left, _BLOCK)):
                try:
                    unpacked.write(block)
                    unpacked.flush()
                except OSError as error:
                    where = f"unpacked into {tempfile.gettempdir()}, which TMPDIR names"
                    raise OSError(error.errno, f"{where}: {error.strerror}") from error
                left -= len(block)
            if left or packed.read(1):  # at its end gzip compares its own checksum
                raise ValueError("a shorter one" if left else f"a longer one than {self._size} bytes")
        return start

    def _header(self, packed: Any) -> int:
        """Demand the header of the array, and say where it ends."""
        try:
            version = np.lib.format.read_magic(packed)
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(packed) if version == (1, 0) else ((), False, None)
        except Exception as error:  # a damaged one can raise almost anything
            if isinstance(error, OSError) and not isinstance(error, gzip.BadGzipFile):
                raise
            raise ValueError(str(error) or "a damaged header") from error
        if (shape, fortran, dtype) != (self.shape, False, self.dtype):
            raise ValueError(f"{dtype} {shape} where the manifest says {self.dtype} {self.shape} in C order")
        return int(packed.tell())


def _state(file: os.stat_result) -> tuple[int, int, int]:
    """What another file, or one that was written to, has otherwise."""
    return file.st_ino, file.st_size, file.st_mtime_ns
