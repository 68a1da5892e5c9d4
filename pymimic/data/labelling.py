"""Labelling into a folder, shard by shard: what stands there is compared with what is given, and what is missing is added."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .. import _check
from ..backends.interface import Array
from ..errors import ManifestError
from ..progress import Progress
from .agreement import demand_alike, demand_same
from .asking import Answers, packed_logits
from .given import Given, plain
from .locks import alone
from .manifest import MANIFEST, UNDER_WAY, Manifest, read_manifest
from .records import clear
from .shards import demand_room, finish, open_shard, remove_unfinished, write_shard
from .storage import Storage
from .together import demand_part, label_together


def label_into(
    folder: Path, answers: Answers, inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None, rows_per_shard: int,
    source: Any, standardise: bool, progress: bool, storage: Storage, part: object = None,
) -> None:  # fmt: skip
    """What `TransferSet.create` and `save` do before they open the folder."""
    rows_per_shard, worker = _check.integer("rows_per_shard", rows_per_shard, 1, 1 << 40), demand_part(part)
    standardise, progress = _check.flag("standardise", standardise), _check.flag("progress", progress)
    given = Given(inputs, weights, rows_per_shard, storage, answers.columns)
    given.demand(worker)
    described = {
        "weighted": given.weighted, "rows_per_shard": rows_per_shard, "teacher": plain("teacher", answers.describe()),
        "source": plain("source", source), "storage": storage.described(),
    }  # fmt: skip
    if folder.exists() and not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "directory: expected a folder, or a path where nothing is, got a file", os.fspath(folder))
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, shared=worker is not None):
        manifest = _manifest(folder, described)
        if manifest is None or not manifest.complete:
            if not os.access(folder, os.W_OK):
                raise PermissionError(errno.EACCES, "expected a folder that can be written to", os.fspath(folder))
            if worker is not None or (folder / UNDER_WAY).is_dir():
                if label_together(folder, answers, given, described, worker, standardise, progress):
                    return
                manifest = _manifest(folder, described)
        elif (folder / UNDER_WAY).is_dir():  # of workers that were killed at the very end
            clear(folder)
        remove_unfinished(folder, manifest)
        if manifest is None or not manifest.complete:
            kinds = ("inputs", "logits", "weights") if given.weighted else ("inputs", "logits")
            demand_room(folder, None if manifest is None else manifest.files, kinds)
        manifest = manifest if manifest is not None and manifest.shards else None  # one without shards binds nobody
        finish(folder, _label(folder, manifest, answers, given, described, progress), standardise)


def _manifest(folder: Path, described: dict[str, Any]) -> Manifest | None:
    """The folder's, if there is one; where it has shards they must be of what is given."""
    manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
    if manifest is not None and manifest.shards:
        demand_alike(folder / MANIFEST, manifest, described)
    return manifest


def _label(
    folder: Path, manifest: Manifest | None, answers: Answers, given: Given, described: dict[str, Any], progress: bool
) -> Manifest:  # fmt: skip
    """Compare the shards that the manifest has, and label those that it lacks."""
    seen = rows = 0
    found: list[str] = []  # what there is to say of the logits
    storage = Storage(**described["storage"] or {})
    with Progress(total=given.total, unit="row", unit_scale=True, desc=answers.doing, disable=None if progress else True) as bar:
        for seen, arrays in enumerate(given, 1):
            if manifest is not None and seen <= manifest.shards:
                parts = open_shard(folder, manifest, seen - 1, True)
                stored = dict(zip(manifest.kinds, zip((folder / name for name in manifest.names(seen - 1)), parts)))
                demand_same(manifest, stored, arrays, answers if answers.recorded or seen in (1, manifest.shards) else None, rows)
            elif manifest is not None and manifest.complete:
                raise ManifestError(f"inputs: expected {rows} rows, as {folder / MANIFEST} says, got more")
            else:
                logits, outputs = packed_logits(answers, storage, arrays[0], rows, found)
                manifest = manifest or Manifest(inputs=arrays[0].shape[1], outputs=outputs, **described)
                if outputs != manifest.outputs:
                    raise ValueError(f"logits: expected {manifest.outputs} columns from the teacher, got {outputs}")
                write_shard(folder, manifest, [arrays[0], logits, *arrays[1:]])
            rows += len(arrays[0])
            bar.update(len(arrays[0]))
    if manifest is None:
        raise ValueError("inputs: expected at least one row, got none")
    if seen < manifest.shards:
        raise ManifestError(f"inputs: expected more than {rows} rows, as {folder / MANIFEST} says, got no more")
    return manifest
