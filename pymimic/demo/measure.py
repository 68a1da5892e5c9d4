"""The figures of one model: how good it is on the test rows, and what it takes to store and to ask."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..backends.interface import Array
from ..nets.net import Net
from .datasets import Rows

TIMINGS, _MOST_SECONDS = 20, 1.0  # of a model on the test rows: so many, or fewer where they take longer than that together


@dataclass(frozen=True)
class Size:
    """What a model takes, by rules that are the same for all. None where a word has no clear meaning: for forests and support vectors."""

    parameters: int | None
    multiply_adds: int | None  # for one row
    bytes: int  # what a prediction reads: the weights as files have them, and 4 for each mean and scale
    file_bytes: int  # of the saved file or the pickle

    @classmethod
    def of(cls, *nets: Net) -> Size:
        """Of the nets together."""
        standards = sum(array.size for net in nets for array in (net.mean, net.scale) if array is not None)
        parameters = sum(net.parameter_count for net in nets)
        stored = sum(net.stored_nbytes for net in nets) + 4 * standards
        return cls(parameters, sum(net.multiply_adds for net in nets), stored, sum(map(_file_bytes, nets)))


@dataclass(frozen=True)
class Model:
    """One line of the table. Accuracy and agreement are shares of the test rows."""

    title: str
    rows: int  # trained on
    size: Size
    accuracy: float
    error: float  # standard error of the accuracy, for so many test rows
    agreement: float  # share of test rows on which the choice is the teacher's
    us_per_row: float  # all test rows in one call, the fastest of up to 20
    train_seconds: float  # of this model's own training
    validation_accuracy: float
    curve: list[float]  # validation accuracy after each epoch; empty where there are no epochs


def choices(logits: Callable[[Array], Array], test: Rows, timings: int = TIMINGS) -> tuple[Array, float]:
    """The classes chosen for the test rows, and microseconds a row: the fastest of so many timings, the one least disturbed."""
    seconds: list[float] = []
    answer = np.empty(0)
    while len(seconds) < timings and sum(seconds) < _MOST_SECONDS:
        started = time.perf_counter()
        answer = logits(test.x)
        seconds.append(time.perf_counter() - started)
    chosen: Array = answer.argmax(axis=1)
    return chosen, 1e6 * min(seconds) / len(test.x)


def accuracy_of(chosen: Array, test: Rows) -> tuple[float, float]:
    """The share of rows that are right, and its standard error."""
    share = float(np.mean(chosen == test.labels))
    return share, math.sqrt(share * (1 - share) / len(chosen))


def agreement_of(chosen: Array, given: Array) -> float:
    """The share of rows on which both choose the same class."""
    return float(np.mean(chosen == given))


def _file_bytes(net: Net) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.safetensors"
        net.save(path)
        return path.stat().st_size
