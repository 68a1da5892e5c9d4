"""The K largest of a row's logits with their classes, and one number for all the others."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..backends.interface import Array
from ..errors import ManifestError

_SLAB = 1 << 22  # logits at once


def record(top: int, outputs: int, dtype: str) -> np.dtype[Any]:
    """What a file has for a row: "values" (K + 1), of which the last is that of the others, and "classes" (K), of the first K."""
    return np.dtype([("values", dtype, (top + 1,)), ("classes", np.min_scalar_type(outputs - 1), (top,))])


def largest(logits: Array, top: int) -> Array:
    """The classes (N, K) of each row's K largest logits, in ascending order; ValueError where the row (N, C) has no more than K."""
    outputs = logits.shape[1]
    if top >= outputs:
        raise ValueError(f"top_logits: expected fewer than the teacher's {outputs} logits, got {top}")
    classes = np.empty((len(logits), top), np.int64)
    for rows in _slabs(logits):
        classes[rows] = np.argpartition(logits[rows], outputs - top, axis=1)[:, outputs - top :]
    classes.sort(axis=1)
    return classes


def reduced(logits: Array, classes: Array) -> Array:
    """The logits (N, C) of classes (N, K), and as column K the log of the others' mean exponential; (N, K + 1) float32.

    Were each of the C - K others that number, the softmax would have the same denominator.
    """
    top = classes.shape[1]
    values = np.empty((len(logits), top + 1), np.float32)
    for rows in _slabs(logits):
        others, chosen = logits[rows].astype(np.float64), classes[rows].astype(np.int64)
        values[rows, :top] = np.take_along_axis(others, chosen, axis=1)
        np.put_along_axis(others, chosen, -np.inf, axis=1)
        most = others.max(axis=1, keepdims=True)
        values[rows, top] = most[:, 0] + np.log(np.exp(others - most).sum(axis=1) / (logits.shape[1] - top))
    return values


def dense(values: Array, classes: Array, outputs: int) -> Array:
    """Logits (N, C) float32 of what `reduced` gave for classes (N, K)."""
    if classes.max(initial=0) >= outputs:
        raise ManifestError(
            f"logits: expected classes below {outputs} in the set's files, got {classes.max()}: a file is damaged; "
            "TransferSet.open(verify=True) says which"
        )
    logits = np.repeat(values[:, -1:].astype(np.float32), outputs, axis=1)
    put(logits, values, classes)
    return logits


def put(logits: Array, values: Array, classes: Array) -> None:
    """Put what `reduced` gave for classes (N, K) in their places in logits (N, C)."""
    np.put_along_axis(logits, classes.astype(np.int64), values[:, :-1].astype(np.float32), axis=1)


def share_of_others(values: Array, others: int) -> float:
    """The mean probability of the C - K other classes, by what `reduced` gave."""
    logs = values.astype(np.float64)
    logs[:, -1] += np.log(others)
    shares = np.exp(logs - logs.max(axis=1, keepdims=True))
    return float((shares[:, -1] / shares.sum(axis=1)).mean())


def _slabs(logits: Array) -> Iterator[slice]:
    step = max(1, _SLAB // logits.shape[1])
    return (slice(start, start + step) for start in range(0, len(logits), step))
