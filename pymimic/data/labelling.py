"""Labelling into a folder, shard by shard: what stands there is compared with what is given, and what is missing is added."""

from __future__ import annotations

import errno
import json
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..differences import differences
from ..errors import ManifestError
from ..numerics import warn
from ..progress import Progress
from .cases import demand_values
from .manifest import MANIFEST, Manifest, read_manifest, write_manifest
from .moments import moments
from .rounding import warn_of_merged_values
from .rows import StoredRows
from .shards import alone, arrays_of, demand_room, open_shard, rechunk, remove_unfinished, slabs, write_shard
from .storage import ROUNDING, Storage
from .teacher import Teacher, demand_teacher, labelled

_AGAIN = 16  # rows of a shard that are labelled again
_OFFSET = 1e-5  # and rows' means by so much of the greatest logit
_TOLERANCE = 0.01  # two answers of one teacher may differ by so much of the logits' spread


class Answers(Protocol):
    """Where logits come from."""

    doing: str  # what the progress bar says

    def describe(self) -> Any:
        """For the manifest."""

    def logits(self, x: Array, rows: Array, found: list[str]) -> Array:
        """Logits (n, C) float32 of x (n, D), the rows of those numbers (n,); what there is to warn of goes to `found`, once."""


@dataclass
class Asked:
    """A teacher, who is asked."""

    doing = "labelling"
    teacher: Teacher

    def __post_init__(self) -> None:
        demand_teacher("teacher", self.teacher, "logits", "describe")

    def describe(self) -> Any:
        return self.teacher.describe()

    def logits(self, x: Array, rows: Array, found: list[str]) -> Array:
        return labelled(self.teacher, x, found, first_row=int(rows[0]))


@dataclass
class Recorded:
    """Logits that are there already."""

    doing = "writing"
    rows: StoredRows
    description: Any

    def describe(self) -> Any:
        return self.description

    def logits(self, x: Array, rows: Array, found: list[str]) -> Array:
        return self.rows.read(rows, ["logits"])[0]


def label_into(
    folder: Path, answers: Answers, inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None, rows_per_shard: int,
    source: Any, standardise: bool, progress: bool, storage: Storage,
) -> None:  # fmt: skip
    """What `TransferSet.create` and `save` do before they open the folder."""
    rows_per_shard = _check.integer("rows_per_shard", rows_per_shard, 1, 1 << 40)
    standardise, progress = _check.flag("standardise", standardise), _check.flag("progress", progress)
    inputs, weights = _check.whole_array("inputs", inputs, axes=2), _check.whole_array("weights", weights, axes=1)
    _demand_arrays(inputs, weights, storage)
    described = {"teacher": _plain("teacher", answers.describe()), "source": _plain("source", source)}
    given = {"weighted": weights is not None, "rows_per_shard": rows_per_shard, **described, "storage": storage.described()}
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "directory: expected a folder, or a path where nothing is, got a file", os.fspath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder):
        manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
        if manifest is not None and manifest.shards:
            _demand_alike(folder, {key: getattr(manifest, key) for key in given}, given)
        if (manifest is None or not manifest.complete) and not os.access(folder, os.W_OK):
            raise PermissionError(errno.EACCES, "expected a folder that can be written to", os.fspath(folder))
        remove_unfinished(folder, manifest)
        if manifest is None or not manifest.complete:
            kinds = ("inputs", "logits", "weights") if weights is not None else ("inputs", "logits")
            demand_room(folder, None if manifest is None else manifest.files, kinds)
        manifest = manifest if manifest is not None and manifest.shards else None  # one without shards binds nobody
        _finish(folder, _label(folder, manifest, answers, inputs, weights, given, progress), standardise)


def _demand_alike(folder: Path, stored: dict[str, Any], given: dict[str, Any]) -> None:
    """Demand what the manifest says; the message has what differs, and nothing else."""
    found = [f"{name}: expected {a}, as {folder / MANIFEST} says, got {b}" for name, a, b in differences("", stored, given)]
    if found:
        raise ManifestError("; ".join(found))


def _label(
    folder: Path, manifest: Manifest | None, answers: Answers, inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None,
    given: dict[str, Any], progress: bool,
) -> Manifest:  # fmt: skip
    """Compare the shards that the manifest has, and label those that it lacks."""
    seen = rows = 0
    found: list[str] = []  # what there is to say of the logits
    storage = Storage(**given["storage"] or {})
    total = len(inputs) if isinstance(inputs, np.ndarray) else None
    with Progress(total=total, unit="row", unit_scale=True, desc=answers.doing, disable=None if progress else True) as bar:
        for seen, arrays in enumerate(_shards(inputs, weights, given["rows_per_shard"], storage), 1):
            if manifest is not None and seen <= manifest.shards:
                _demand_same(folder, manifest, seen - 1, arrays, answers if seen in (1, manifest.shards) else None, rows)
            elif manifest is not None and manifest.complete:
                raise ManifestError(f"inputs: expected {rows} rows, as {folder / MANIFEST} says, got more")
            else:
                known = len(found)
                logits = answers.logits(storage.unpack("inputs", arrays[0], 0), np.arange(rows, rows + len(arrays[0])), found)
                packed = storage.pack("logits", logits, rows)
                if not found and (message := storage.losses("logits", logits, packed)):
                    found.append(message)
                for message in found[known:]:
                    warn(message)
                manifest = manifest or Manifest(inputs=arrays[0].shape[1], outputs=logits.shape[1], **given)
                if logits.shape[1] != manifest.outputs:
                    raise ValueError(f"logits: expected {manifest.outputs} columns from the teacher, got {logits.shape[1]}")
                write_shard(folder, manifest, [arrays[0], np.ascontiguousarray(packed), *arrays[1:]])
            rows += len(arrays[0])
            bar.update(len(arrays[0]))
    if manifest is None:
        raise ValueError("inputs: expected at least one row, got none")
    if seen < manifest.shards:
        raise ManifestError(f"inputs: expected more than {rows} rows, as {folder / MANIFEST} says, got no more")
    return manifest


def _finish(folder: Path, manifest: Manifest, standardise: bool) -> None:
    """Say that the set is complete, with the moments of its logits where they are asked for."""
    missing = standardise and manifest.standardisation is None
    if not missing and manifest.complete:
        return
    manifest.complete = True
    if missing:
        logits = (open_shard(folder, manifest, shard, False)[1] for shard in range(manifest.shards))
        mean, scale = moments(slab for part in logits for slab in slabs("logits", part, manifest.stored, manifest.outputs))
        manifest.standardisation = {"mean": mean.tolist(), "scale": scale.tolist()}
    write_manifest(folder, manifest)


def _plain(name: str, value: Any) -> Any:
    """`value` as it comes back from JSON, numbers and arrays of NumPy as Python's; TypeError where JSON cannot hold it."""

    def python(item: Any) -> Any:
        if isinstance(item, (np.generic, np.ndarray)):
            return item.tolist()
        raise TypeError(f"{name}: expected what JSON can hold, got a {type(item).__name__} in it")

    try:
        return json.loads(json.dumps(value, default=python))
    except (TypeError, ValueError, RecursionError) as error:
        message = str(error)
        raise TypeError(message if message.startswith(f"{name}: ") else f"{name}: expected what JSON can hold, got {error}") from None


def _shards(
    inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None, rows: int, storage: Storage
) -> Iterator[list[Array]]:  # fmt: skip
    """[inputs] or [inputs, weights] of each shard, checked, as they are stored."""
    streams = [rechunk("inputs", _watched(inputs), rows, "n", "D")]
    if weights is not None:
        streams.append(rechunk("weights", weights, rows, "n"))
    first_row, warned = 0, False
    for arrays in zip_longest(*streams, fillvalue=np.empty(0, np.float32)):
        if len(arrays[0]) != len(arrays[-1]):
            raise ValueError(
                f"weights: expected one for each row of inputs, got {len(arrays[-1])} for {len(arrays[0])} from row {first_row}"
            )
        for name, array in zip(("inputs", "weights"), arrays):
            demand_values(name, array, first_row)
        packed = storage.pack("inputs", arrays[0], first_row)
        if not warned and (message := storage.losses("inputs", arrays[0], packed)):
            warned = True
            warn(message)
        yield [packed, *arrays[1:]]
        first_row += len(arrays[0])


def _demand_arrays(inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None, storage: Storage) -> None:
    """Demand of arrays, before the teacher is asked, what is demanded of their rows as they come."""
    for name, given, axes in (("inputs", inputs, ("n", "D")), ("weights", weights, ("n",))):
        if not isinstance(given, np.ndarray):
            continue
        array = _check.host_array(name, given)
        _check.float_dtype(name, array)
        _check.Dims().shape(name, array.shape, axes)
        if isinstance(inputs, np.ndarray) and len(array) != len(inputs):
            raise ValueError(f"weights: expected one for each row of inputs, got {len(array)} for {len(inputs)}")
        demand_values(name, array)
        rows = max(1, (4 << 20) // max(1, math.prod(array.shape[1:])))
        for start in range(0, len(array), rows):
            storage.pack(name, array[start : start + rows].astype(np.float32), start)


def _watched(inputs: Array | Iterable[Array]) -> Iterator[Array]:
    """The same arrays; the first with values that fall together as float32 is pointed out."""
    warned = False
    for part in arrays_of("inputs", inputs):
        array = _check.data_array("inputs", part)
        warned = warned or warn_of_merged_values("inputs", array)
        yield array


def _demand_same(folder: Path, manifest: Manifest, shard: int, arrays: list[Array], answers: Answers | None, first_row: int) -> None:
    """Demand that a shard on disk holds these inputs and weights, and what the teacher, if one is given, says of some of its rows."""
    inputs, logits, *weights = open_shard(folder, manifest, shard, True)
    names = dict(zip(manifest.kinds, manifest.names(shard)))
    for kind, stored, given in zip(("inputs", "weights"), (inputs, *weights), arrays):
        if not np.array_equal(stored[:], given):
            raise ManifestError(f"{kind}: expected the rows in {folder / names[kind]}, got others")
    if answers is None:
        return
    rows = np.linspace(0, len(inputs) - 1, min(_AGAIN, len(inputs))).astype(np.int64)
    x = manifest.stored.unpack("inputs", inputs[rows], 0)
    said = answers.logits(x, first_row + rows, [])
    where = folder / names["logits"]
    if said.shape[1] != manifest.outputs:
        raise ManifestError(f"teacher: expected {manifest.outputs} columns, as in {where}, got {said.shape[1]}")
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
