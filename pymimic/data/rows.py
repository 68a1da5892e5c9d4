"""The rows of a transfer set, by their numbers: in memory, or in the shards of a folder."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ..backends.interface import Array
from ..errors import ManifestError
from .manifest import MANIFEST, Manifest, demand_set, read_manifest
from .mapped import mapped_file
from .shards import Part, open_shard, slabs
from .storage import Storage

_KINDS = ("inputs", "logits", "weights")


class StoredRows:
    """Shards of [inputs, logits] or [inputs, logits, weights], read as float32.

    Parameters
    ----------
    shards : at least one
    storage : how they keep their arrays
    outputs : C; None where a row of logits has all C
    """

    def __init__(self, shards: list[list[Part]], storage: Storage | None = None, outputs: int | None = None) -> None:
        self.shards, self._storage = shards, storage or Storage()
        inputs, logits = shards[0][:2]
        self.inputs, self.outputs = int(inputs.shape[1]), int(logits.shape[1] if outputs is None else outputs)
        self._starts = np.cumsum([0, *(len(shard[0]) for shard in shards)])
        self._files = [[file for part in shard if isinstance(part, np.ndarray) and (file := mapped_file(part))] for shard in shards]

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def kinds(self) -> Sequence[str]:
        """What there is of each row."""
        return _KINDS[: len(self.shards[0])]

    def read(self, rows: Array, kinds: Sequence[str]) -> list[Array]:
        """Of each kind the rows (n,) of those numbers, in that order; copies."""
        order = np.argsort(rows, kind="stable")  # files are read shard by shard, front to back
        rows = rows[order]
        cuts = np.searchsorted(rows, self._starts)
        width: dict[str, tuple[int, ...]] = {"inputs": (self.inputs,), "logits": (self.outputs,), "weights": ()}
        found = [np.empty((len(rows), *width[kind]), np.float32) for kind in kinds]
        for shard in np.flatnonzero(np.diff(cuts)).tolist():
            self._demand_files(shard)
            here = slice(cuts[shard], cuts[shard + 1])
            for kind, out in zip(kinds, found):
                part = self.shards[shard][_KINDS.index(kind)]
                with _naming(part):
                    out[order[here]] = self._storage.unpack(kind, part[rows[here] - self._starts[shard]], self.outputs)
        return found

    def slabs(self, kind: str) -> Iterator[Array]:
        """All rows in order, some at a time."""
        for shard, parts in enumerate(self.shards):
            self._demand_files(shard)
            with _naming(part := parts[_KINDS.index(kind)]):
                for slab in slabs(kind, part, self._storage, self.outputs):
                    yield slab
                    self._demand_files(shard)

    def _demand_files(self, shard: int) -> None:
        """Demand that the files are as they were opened."""
        try:
            for file in self._files[shard]:
                file.demand()
        except ValueError as error:
            raise ManifestError(str(error)) from None


@contextmanager
def _naming(part: Part) -> Iterator[None]:
    """Let errors of what a file holds name it."""
    try:
        yield
    except ManifestError as error:
        file = mapped_file(part) if isinstance(part, np.ndarray) else part
        if file is None or str(file.path) in str(error):
            raise
        raise ManifestError(f"{file.path}: {error}") from error


def opened(folder: Path, verify: bool) -> tuple[StoredRows, Manifest]:
    """The rows of a complete set in a folder, and its manifest; what `TransferSet.open` raises."""
    demand_set(folder)
    manifest = read_manifest(folder)
    if not manifest.complete:
        raise ManifestError(
            f"{folder / MANIFEST}: expected a complete set, got {manifest.shards} shards of one that create() can go on with"
        )
    shards = [open_shard(folder, manifest, shard, verify) for shard in range(manifest.shards)]
    return StoredRows(shards, manifest.stored, manifest.outputs), manifest
