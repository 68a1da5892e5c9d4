"""A transfer set's `manifest.json`: what the set is, and the files that it vouches for."""

from __future__ import annotations

import errno
import json
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .. import _check
from ..errors import ManifestError
from ..foreign import demand_plain, parsed
from ..targets import naming, replacing
from .moments import TINY
from .storage import Storage

FORMAT = 1
MANIFEST = "manifest.json"
UNDER_WAY = ".labelling"  # a folder in the set's, of what several processes have labelled so far


@dataclass
class Manifest:
    """What `manifest.json` says. A shard is in it only when all its files are whole and on disk."""

    inputs: int  # D
    outputs: int  # C
    weighted: bool  # whether there are per-row weights
    rows_per_shard: int
    teacher: dict[str, Any]  # Teacher.describe()
    source: Any  # the caller's description of the inputs
    complete: bool = False
    standardisation: dict[str, list[float]] | None = None  # "mean" and "scale" of each output, where asked for
    storage: dict[str, Any] | None = None  # of a set whose files are not all float32
    files: list[dict[str, Any]] = field(default_factory=list)  # "name", "rows", "sha256"; in the order of `names`, shard after shard
    unfinished: list[str] | None = None  # sha256 of the files of the next shard, while it is written: a kill may leave some of them

    @property
    def kinds(self) -> tuple[str, ...]:
        """What each shard holds."""
        return ("inputs", "logits", "weights") if self.weighted else ("inputs", "logits")

    @property
    def stored(self) -> Storage:
        """How the files keep their arrays."""
        return Storage(**self.storage or {})

    @property
    def shards(self) -> int:
        """How many are whole."""
        return len(self.files) // len(self.kinds)

    def names(self, shard: int) -> list[str]:
        """The shard's files."""
        return [f"{kind}-{shard:05d}.npy{'.gz' * (self.stored.compress > 0)}" for kind in self.kinds]

    def files_of(self, shard: int) -> dict[str, dict[str, Any]]:
        """The files of a whole shard, by what they hold."""
        count = len(self.kinds)
        return dict(zip(self.kinds, self.files[shard * count : (shard + 1) * count]))

    def shape(self, kind: str, rows: int) -> tuple[int, ...]:
        """The shape of a file."""
        records = kind == "weights" or (kind == "logits" and self.stored.top)
        return (rows,) if records else (rows, self.inputs if kind == "inputs" else self.outputs)


def demand_set(directory: Path) -> None:
    """Demand a folder with a manifest; OSError says what is there instead."""
    where = os.fspath(directory)
    if not directory.exists():
        raise FileNotFoundError(errno.ENOENT, "directory: expected the folder of a transfer set, got no such folder", where)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "directory: expected the folder of a transfer set, got a file", where)
    if not (directory / MANIFEST).exists():
        if (directory / UNDER_WAY).is_dir():
            raise ManifestError(f"{directory}: expected a complete set, got one that create(part=) has not finished")
        raise FileNotFoundError(
            errno.ENOENT, f"directory: expected a folder that TransferSet.create made, got one without {MANIFEST}", where
        )


def read_manifest(directory: Path) -> Manifest:
    """The manifest, or ManifestError where it is none of ours; OSError where there is none."""
    with naming(os.fspath(directory / MANIFEST)):
        demand_plain(directory / MANIFEST)
        text = (directory / MANIFEST).read_bytes()
    try:
        data = parsed(text)
        if (stored := data.pop("format", None)) != FORMAT:
            raise ValueError(f"format {stored!r} where this version of pymimic knows {FORMAT}")
        manifest = Manifest(**data)
        names = [name for shard in range(manifest.shards) for name in manifest.names(shard)]
        sizes = [file["rows"] for file in manifest.files] + [file["size"] for file in manifest.files if manifest.stored.compress]
        if [file["name"] for file in manifest.files] != names or not (
            all(isinstance(size, int) and size > 0 for size in sizes) and all(isinstance(file["sha256"], str) for file in manifest.files)
        ):
            raise ValueError("a list of files that is not in order")
        if manifest.complete and not manifest.files:
            raise ValueError("a complete set without files")
        for name, least in (("inputs", 0), ("outputs", 0), ("rows_per_shard", 1)):
            _check.integer(name, getattr(manifest, name), least, 1 << 62)
        for name in ("weighted", "complete"):
            _check.flag(name, getattr(manifest, name))
        stored = manifest.stored
        if stored != Storage.of(stored.inputs, stored.logits, (stored.low, stored.high), stored.top or None, stored.compress):
            raise ValueError(f"the storage {manifest.storage}")
        if stored.top and not stored.top < manifest.outputs:
            raise ValueError(f"{stored.top} of {manifest.outputs} logits")
        if manifest.unfinished is not None and not all(isinstance(sha256, str) for sha256 in manifest.unfinished):
            raise ValueError("no sums of an unfinished shard's files")
        moments = manifest.standardisation
        if moments is not None:
            if not len(moments["mean"]) == len(moments["scale"]) == manifest.outputs:
                raise ValueError(f"a standardisation that is not for {manifest.outputs} outputs")
            for mean, scale in zip(moments["mean"], moments["scale"]):
                _check.number("mean", mean, float32=True), _check.number("scale", scale, TINY, float32=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise ManifestError(f"{directory / MANIFEST}: expected a transfer set's manifest, got {error}") from error
    return manifest


def write_manifest(directory: Path, manifest: Manifest) -> None:
    """Put the manifest in place of the one before, atomically."""
    with replacing(directory / MANIFEST, links=False) as file:
        fields = asdict(manifest)
        for name in ("storage", "unfinished"):  # of which earlier versions know nothing
            if fields[name] is None:
                del fields[name]
        file.write(json.dumps({"format": FORMAT, **fields}, indent=1).encode())
