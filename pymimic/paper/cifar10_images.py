"""CIFAR-10 from its publisher's binary files."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import numpy as np

from .. import _check
from ..demo.datasets import Dataset, Rows
from ..errors import FileFormatError
from ..foreign import demand_plain

FOLDER = "cifar-10-batches-bin"
SHAPE = (3, 32, 32)  # of a row: red, green and blue planes, each row by row
OUTPUTS = 10
PIXELS = 3 * 32 * 32
_RECORD = 1 + PIXELS  # bytes: the class, then the planes
_RECORDS = 10_000  # in each file
_VALIDATION = 5_000
_TRAIN_FILES, _TEST_FILE = [f"data_batch_{i}.bin" for i in range(1, 6)], "test_batch.bin"


def cifar10(folder: str | os.PathLike[str] | None, labelled: int) -> Dataset:
    """CIFAR-10 (Krizhevsky 2009), "binary version": 32 x 32 pixels in three colours, scaled to [0, 1], and 10 classes.

    The last 5,000 training images validate. The first `labelled` are to train on, and those between have no labels.

    Parameters
    ----------
    folder : has `data_batch_1.bin` to `data_batch_5.bin` and `test_batch.bin`, or a folder `cifar-10-batches-bin` that has them
    labelled : how many, in [1, 45,000]

    Raises
    ------
    ValueError
        No folder; as FileFormatError, a file that has not 10,000 records of 3,073 bytes, a class in [0, 9] and the pixels.
    OSError
        A file cannot be read.
    """
    if folder is None:
        raise ValueError("path: expected the folder with cifar10's files, got none")
    if not os.path.isdir(folder):
        raise FileNotFoundError(errno.ENOENT, "path: expected the folder with cifar10's files, got no folder", os.fspath(folder))
    inner = Path(folder) / FOLDER
    where = inner if inner.is_dir() else Path(folder)
    parts = [_read(where / name) for name in _TRAIN_FILES]
    train, test = Rows(*(np.concatenate(arrays) for arrays in zip(*parts))), _read(where / _TEST_FILE)
    cut = len(train.x) - _VALIDATION
    labelled = _check.integer("labelled", labelled, 1, cut + 1)
    slices = (slice(labelled), slice(cut, None), slice(labelled, cut))
    own, validation, unlabelled = (Rows(train.x[rows], train.labels[rows]) for rows in slices)
    return Dataset("cifar10", OUTPUTS, own, validation, test, unlabelled)


def _read(path: Path) -> Rows:
    """The records of a file."""
    demand_plain(path, "path")
    with open(path, "rb") as file:
        content = file.read(_RECORDS * _RECORD + 1)
    if len(content) != _RECORDS * _RECORD:
        got = "more" if len(content) > _RECORDS * _RECORD else f"{len(content):,} bytes"
        raise FileFormatError(f"path: {str(path)!r}: expected {_RECORDS:,} records of {_RECORD:,} bytes, got {got}")
    records = np.frombuffer(content, np.uint8).reshape(_RECORDS, _RECORD)
    labels = records[:, 0].astype(np.int64)
    if labels.max() >= OUTPUTS:
        raise FileFormatError(f"path: {str(path)!r}: expected classes in [0, 9], got {labels.max()} in record {labels.argmax()}")
    x = records[:, 1:].astype(np.float32)
    x /= 255
    return Rows(x, labels)
