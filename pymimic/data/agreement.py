"""What stands on disk is compared with what is given: descriptions, rows, and recorded logits or some of the teacher's answers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..backends.interface import Array
from ..differences import differences
from ..errors import ManifestError
from .asking import Answers
from .manifest import Manifest
from .shards import Part
from .storage import ROUNDING

AGAIN = 16  # rows of a shard that are labelled again
_OFFSET = 1e-5  # and rows' means by so much of the greatest logit
_TOLERANCE = 0.01  # two answers of one teacher may differ by so much of the logits' spread


def demand_alike(path: Path, manifest: Manifest, described: dict[str, Any]) -> None:
    """Demand what the manifest at `path` says; the message has what differs, and nothing else."""
    stored = {key: getattr(manifest, key) for key in described}
    found = [f"{name}: expected {a}, as {path} says, got {b}" for name, a, b in differences("", stored, described)]
    if found:
        raise ManifestError("; ".join(found))


def demand_same(manifest: Manifest, stored: dict[str, tuple[Path, Part]], arrays: list[Array], answers: Answers | None, row: int) -> None:
    """Demand that a shard on disk holds these inputs and weights, and these logits: recorded ones in all rows, a teacher's in some.

    Parameters
    ----------
    stored : of each kind the file and its array
    arrays : [inputs] or [inputs, weights], as files keep them
    answers : None compares no logits
    row : the number of the first
    """
    for kind, given in zip(("inputs", "weights"), arrays):
        path, part = stored[kind]
        if not np.array_equal(part[:], given):
            raise ManifestError(f"{kind}: expected the rows in {path}, got others")
    if answers is not None and answers.recorded:
        demand_recorded(manifest, *stored["logits"], answers, row)
    elif answers is not None:
        _demand_answers(manifest, stored["inputs"][1], *stored["logits"], answers, row)


def demand_recorded(manifest: Manifest, where: Path, logits: Part, answers: Answers, first_row: int) -> None:
    """Demand that a shard on disk holds the recorded logits of its rows, as they would be written."""
    given = answers.logits(np.empty((0, 0)), np.arange(first_row, first_row + len(logits)), [])
    _demand_columns("logits", manifest, where, given)
    same = manifest.stored.pack("logits", given, first_row) == logits[:]
    if not same.all():
        row = first_row + int(same.reshape(len(same), -1).all(axis=1).argmin())
        raise ManifestError(f"logits: expected the rows in {where}, got another in row {row}: write other logits into another folder")


def _demand_columns(name: str, manifest: Manifest, where: Path, logits: Array) -> None:
    if logits.shape[1] != manifest.outputs:
        raise ManifestError(f"{name}: expected {manifest.outputs} columns, as in {where}, got {logits.shape[1]}")


def _demand_answers(manifest: Manifest, inputs: Part, where: Path, logits: Part, answers: Answers, first_row: int) -> None:
    rows = np.linspace(0, len(inputs) - 1, min(AGAIN, len(inputs))).astype(np.int64)
    x = manifest.stored.unpack("inputs", inputs[rows], 0)
    said = answers.logits(x, first_row + rows, [])
    _demand_columns("teacher", manifest, where, said)
    stored, said = (columns.astype(np.float64) for columns in manifest.stored.same_columns(logits[rows], said))
    grain = ROUNDING[manifest.stored.logits]
    for old, new, slack in zip(_parts(stored), _parts(said), (grain, max(grain, _OFFSET))):
        allowed = _TOLERANCE * np.abs(old - old.mean(axis=0)).max() + slack * np.abs(stored).max()
        difference = np.abs(new - old).max(axis=1)
        if difference.max() > allowed:
            row = int(difference.argmax())
            raise ManifestError(
                f"teacher: expected the logits in {where} again, within {allowed:.3g}, got others, by {difference[row]:.3g} in row "
                f"{first_row + rows[row]}: label with the teacher that the folder began with, or into another folder; a teacher must "
                "answer alike whenever it is asked, without dropout or statistics of the batch"
            )


def _parts(logits: Array) -> list[Array]:
    """Logits about the mean of each row, and these means: an offset, which may be large, hides nothing of what is about it."""
    means = logits.mean(axis=1, keepdims=True)
    return [logits] if logits.shape[1] == 1 else [logits - means, means]
