"""`.npy` files in gzip's format, for transfer sets that are kept: rows in random order need them unpacked, into a temporary file."""

from __future__ import annotations

import gzip
import math
import tempfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np

from ..backends.interface import Array
from ..errors import ManifestError

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
    """

    def __init__(self, path: Path, dtype: np.dtype[Any], shape: tuple[int, ...]) -> None:
        self.path, self.dtype, self.shape = path, dtype, shape
        self._array: Array | None = None

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: Any) -> Array:
        if self._array is None:
            self._array = self._unpacked()
        return cast(Array, self._array[rows])

    def _unpacked(self) -> Array:
        size = self.dtype.itemsize * math.prod(self.shape)
        try:
            with open(self.path, "rb") as file:
                if size > _MOST * file.seek(0, 2):
                    raise ValueError(f"one that is too small for {size} bytes")
                file.seek(0)
                with gzip.GzipFile(fileobj=file) as packed:
                    return self._mapped(cast(BinaryIO, packed), size)
        except FileNotFoundError:
            raise ManifestError(f"{self.path}: expected a file, as the manifest says, got none") from None
        except (ValueError, EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise ManifestError(f"{self.path}: expected a whole .npy file in gzip's format, got {error}") from error

    def _mapped(self, packed: BinaryIO, size: int) -> Array:
        """The array, mapped from an unnamed file of its own."""
        if np.lib.format.read_magic(packed) != (1, 0):
            raise ValueError("a .npy file of another version")
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(packed)
        if (shape, fortran, dtype) != (self.shape, False, self.dtype):
            raise ValueError(f"{dtype} {shape} where the manifest says {self.dtype} {self.shape} in C order")
        start = packed.tell()
        packed.seek(0)
        left = start + size
        with tempfile.TemporaryFile() as file:
            while block := packed.read(min(left, _BLOCK)):
                try:
                    file.write(block)
                except OSError as error:
                    where = f"{self.path}: unpacked into {tempfile.gettempdir()}, which TMPDIR names"
                    raise OSError(error.errno, f"{where}: {error.strerror}") from error
                left -= len(block)
            if left or packed.read(1):  # at its end gzip compares its own checksum
                raise ValueError("a shorter one" if left else f"a longer one than {size} bytes")
            file.flush()
            return np.asarray(np.memmap(file, self.dtype, "r", start, self.shape))
