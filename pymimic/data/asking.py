"""Where the logits of a set come from: a teacher, or a set that has them already."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from ..backends.interface import Array
from ..numerics import warn
from .names import names_of
from .rows import StoredRows
from .storage import Storage
from .teacher import Teacher, demand_teacher, labelled


class Answers(Protocol):
    """Where logits come from."""

    doing: str  # what the progress bar says
    recorded: bool  # whether they are there already: they cost nothing, and are the same bits whenever they are read

    @property
    def columns(self) -> list[str] | None:
        """Names that the columns of DataFrames must have."""

    def describe(self) -> Any:
        """For the manifest."""

    def logits(self, x: Array, rows: Array, found: list[str]) -> Array:
        """Logits (n, C) float32 of x (n, D), the rows of those numbers (n,); what there is to warn of goes to `found`, once."""


@dataclass
class Asked:
    """A teacher, who is asked."""

    doing, recorded = "labelling", False
    teacher: Teacher

    def __post_init__(self) -> None:
        demand_teacher("teacher", self.teacher, "logits", "describe")

    @property
    def columns(self) -> list[str] | None:
        return names_of(self.teacher)

    def describe(self) -> Any:
        return self.teacher.describe()

    def logits(self, x: Array, rows: Array, found: list[str]) -> Array:
        return labelled(self.teacher, x, found, first_row=int(rows[0]))


@dataclass
class Recorded:
    """Logits that are there already."""

    doing, recorded, columns = "writing", True, None
    rows: StoredRows
    description: Any

    def describe(self) -> Any:
        return self.description

    def logits(self, x: Array, rows: Array, found: list[str]) -> Array:
        return self.rows.read(rows, ["logits"])[0]


def packed_logits(answers: Answers, storage: Storage, inputs: Array, first_row: int, found: list[str]) -> tuple[Array, int]:
    """The logits of packed inputs, packed, and C; what there is to say of them is said once, and kept in `found`."""
    known = len(found)
    logits = answers.logits(storage.unpack("inputs", inputs, 0), np.arange(first_row, first_row + len(inputs)), found)
    packed = storage.pack("logits", logits, first_row)
    if not found and (message := storage.losses("logits", logits, packed)):
        found.append(message)
    for message in found[known:]:
        warn(message)
    return np.ascontiguousarray(packed), logits.shape[1]
