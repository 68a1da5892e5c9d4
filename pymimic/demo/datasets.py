"""Labelled sets: MNIST-1D, made here; Letter and MNIST from their publishers' own files."""

from __future__ import annotations

import errno
import gzip
import math
import os
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..errors import FileFormatError
from ..foreign import demand_plain
from . import mnist1d as curves

NAMES = ("mnist1d", "letter", "mnist")

_LETTER_FILE = "letter-recognition.data"
_MNIST_FILES = [f"{part}-{what}-ubyte" for part in ("train", "t10k") for what in ("images-idx3", "labels-idx1")]
FILES = {"letter": [_LETTER_FILE], "mnist": [f"{name}{suffix}" for name in _MNIST_FILES for suffix in ("", ".gz")]}  # that `load` may read
_LETTER_ROWS, _LETTER_POOL, _LETTER_TRAIN, _LETTER_VALIDATION = 20_000, 16_000, 4_000, 2_000
_LETTER_LINE = 64  # bytes at most
_LETTER_BYTES = _LETTER_ROWS * _LETTER_LINE
_MNIST_VALIDATION = 10_000
_CURVES_TRAIN, _CURVES_VALIDATION, _CURVES_TEST, _CURVES_UNLABELLED = 4_000, 1_000, 10_000, 100_000
_IDX_BYTES = 0x08  # the IDX format's code for unsigned bytes


class Rows(NamedTuple):
    """Rows and their classes."""

    x: Array  # (n, D) float32, in [0, 1] but for mnist1d's, which have mean 0 and deviation 1
    labels: Array  # (n,) int64 in [0, C)


@dataclass(frozen=True)
class Dataset:
    """Rows to train on, to choose by, to report on, and rows for a teacher to label. No row is in two of them."""

    name: str
    outputs: int  # C
    train: Rows
    validation: Rows
    test: Rows
    unlabelled: Rows  # with labels all the same, for what they would have given; mnist has none

    @property
    def inputs(self) -> int:
        """D."""
        return int(self.train.x.shape[1])

    @property
    def shape(self) -> tuple[int, ...]:
        """Of a row, its channels first: that of images is square."""
        side = math.isqrt(self.inputs)
        return (1, side, side) if self.name == "mnist" else (1, self.inputs)


def load(name: str, folder: str | os.PathLike[str] | None, seed: int) -> Dataset:
    """The set called "mnist1d", "letter" or "mnist"; the last two are read from `folder`, and the first needs none.

    Raises
    ------
    ValueError
        An unknown name; a folder that is missing, or given for a set that needs none; as FileFormatError, a file that is not the
        publisher's.
    OSError
        A file cannot be read.
    """
    if name not in NAMES:
        raise ValueError(f"data: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == "mnist1d":
        if folder is not None:
            raise ValueError(f"path: expected none with data 'mnist1d', which is made here, got {str(folder)!r}")
        return mnist1d(seed)
    if folder is None:
        raise ValueError(f"path: expected the folder with {name}'s files, got none")
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, f"path: expected the folder with {name}'s files, got no folder", os.fspath(folder))
    return letter(folder, seed) if name == "letter" else mnist(folder)


def mnist1d(seed: int) -> Dataset:
    """MNIST-1D (Greydanus 2020): 40 samples of a curve of one of 10 classes; each part from a stream of its own.

    4,000 rows to train on, 1,000 to validate, 10,000 to test, and 100,000 unlabelled.
    """
    sizes = (_CURVES_TRAIN, _CURVES_VALIDATION, _CURVES_TEST, _CURVES_UNLABELLED)
    return Dataset("mnist1d", 10, *(Rows(*curves.rows(size, stream)) for size, stream in zip(sizes, _seeds(seed).spawn(len(sizes)))))


def letter(folder: str | os.PathLike[str], seed: int) -> Dataset:
    """UCI Letter Recognition (Frey & Slate 1991): 16 integer features, scaled to [0, 1], and 26 classes.

    The last 4,000 rows are the test set. Of the first 16,000 a seeded 4,000 are to train on, another 2,000 to validate, and the other
    10,000 unlabelled.

    Parameters
    ----------
    folder : has `letter-recognition.data`
    seed : of the choice of rows

    Raises
    ------
    FileFormatError
        The file has not 20,000 lines of a letter and 16 integers in [0, 15]; the message gives the line.
    OSError
        It cannot be read.
    """
    x, labels = _read_letter(Path(folder) / _LETTER_FILE)
    order = np.random.default_rng(_seeds(seed)).permutation(_LETTER_POOL)
    train, validation = order[:_LETTER_TRAIN], order[_LETTER_TRAIN : _LETTER_TRAIN + _LETTER_VALIDATION]
    rest = order[_LETTER_TRAIN + _LETTER_VALIDATION :]
    return Dataset("letter", 26, *(Rows(x[rows], labels[rows]) for rows in (train, validation, slice(_LETTER_POOL, None), rest)))


def mnist(folder: str | os.PathLike[str]) -> Dataset:
    """MNIST (LeCun, Cortes & Burges): 28 x 28 pixels, row by row, scaled to [0, 1]; the last 10,000 training images validate.

    Parameters
    ----------
    folder : has the four files `train-images-idx3-ubyte.gz`, `train-labels-idx1-ubyte.gz`, `t10k-images-idx3-ubyte.gz` and
        `t10k-labels-idx1-ubyte.gz`, each as it is or unpacked, without .gz

    Raises
    ------
    FileFormatError
        A file is truncated, not IDX, or not of MNIST's shape.
    OSError
        A file cannot be read.
    """
    sets = []
    for prefix, rows in (("train", 60_000), ("t10k", 10_000)):
        images = read_idx(_packed_or_not(Path(folder), f"{prefix}-images-idx3-ubyte"), (rows, 28, 28))
        path = _packed_or_not(Path(folder), f"{prefix}-labels-idx1-ubyte")
        labels = read_idx(path, (rows,))
        if labels.max() > 9:
            raise FileFormatError(f"path: {str(path)!r}: expected labels in [0, 9], got {labels.max()} in row {labels.argmax()}")
        x = images.reshape(rows, 784).astype(np.float32)
        x /= 255
        sets.append(Rows(x, labels.astype(np.int64)))
    train, test = sets
    cut = len(train.x) - _MNIST_VALIDATION
    return Dataset(
        "mnist",
        10,
        Rows(train.x[:cut], train.labels[:cut]),
        Rows(train.x[cut:], train.labels[cut:]),
        test,
        Rows(train.x[:0], train.labels[:0]),
    )


def read_idx(path: str | os.PathLike[str], shape: tuple[int, ...]) -> Array:
    """The unsigned bytes of an IDX file, an array of `shape`. Two zeros, the type, the number of axes, sizes (big-endian), values.

    Parameters
    ----------
    path : the file, packed if its name ends in .gz
    shape : what the file must hold

    Raises
    ------
    FileFormatError
        The file is truncated, too long, not IDX, or of another shape or type.
    OSError
        It cannot be read.
    """
    where = f"path: {os.fspath(path)!r}"
    head = 4 + 4 * len(shape)
    demand_plain(path, "path")
    with gzip.open(path) if os.fspath(path).endswith(".gz") else open(path, "rb") as file:
        try:
            content = file.read(head + math.prod(shape) + 1)  # and no more: few bytes unpack to any number
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            raise FileFormatError(f"{where}: expected a whole gzip file, got a truncated or foreign one ({error})") from error
    magic = bytes((0, 0, _IDX_BYTES, len(shape)))
    if content[:4] != magic or len(content) < head:
        raise FileFormatError(
            f"{where}: expected an IDX file of bytes with {len(shape)} axes, which begins with {magic.hex()}, got {content[:4].hex()!r}"
        )
    sizes = tuple(int(size) for size in np.frombuffer(content, ">u4", len(shape), offset=4))
    if sizes != shape:
        raise FileFormatError(f"{where}: expected sizes {shape}, got {sizes}")
    if len(content) != head + math.prod(shape):
        more = " or more" * (len(content) > head + math.prod(shape))
        raise FileFormatError(f"{where}: expected {math.prod(shape)} values, got {len(content) - head}{more}")
    return np.frombuffer(content, np.uint8, offset=head).reshape(shape)


def _read_letter(path: Path) -> Rows:
    where = f"path: {str(path)!r}"
    demand_plain(path, "path")
    with open(path, "rb") as file:
        content = file.read(_LETTER_BYTES + 1)
    if len(content) > _LETTER_BYTES:
        raise FileFormatError(f"{where}: expected {_LETTER_ROWS} lines of at most {_LETTER_LINE} bytes, got more")
    lines = content.splitlines()
    if len(lines) != _LETTER_ROWS:
        raise FileFormatError(f"{where}: expected {_LETTER_ROWS} lines, got {len(lines)}")
    x, labels = np.empty((_LETTER_ROWS, 16), np.float32), np.empty(_LETTER_ROWS, np.int64)
    for i, line in enumerate(lines):
        letter, *values = line.split(b",")
        numbers = [int(value) for value in values if value.isdigit() and len(value) <= 2]
        if not (len(letter) == 1 and b"A" <= letter <= b"Z" and len(values) == len(numbers) == 16 and max(numbers) <= 15):
            shown = line[:80].decode(errors="replace")
            raise FileFormatError(f"{where}: expected a letter A-Z and 16 integers in [0, 15] in line {i + 1}, got {shown!r}")
        labels[i], x[i] = ord(letter) - ord("A"), numbers
    return Rows(x / 15, labels)


def _packed_or_not(folder: Path, name: str) -> Path:
    """The file as it is if it is there, else the packed one."""
    return folder / name if (folder / name).is_file() else folder / f"{name}.gz"


def _seeds(seed: int) -> np.random.SeedSequence:
    return np.random.SeedSequence(_check.integer("seed", seed, 0, 1 << 64))
