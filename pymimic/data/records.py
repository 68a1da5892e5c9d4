"""What several processes have labelled of a set so far: its shards' files, and a record of each shard."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from ..backends.interface import Array
from ..errors import ManifestError
from ..foreign import demand_plain, parsed
from ..targets import naming, replacing
from .locks import Lock
from .manifest import MANIFEST, UNDER_WAY, Manifest, read_manifest
from .shards import Part, demand_room, finish, open_file, write_array

TURN, PRESENT = "turn.lock", "present.lock"  # who may change what all rely on; who labels
FIRST = "first"  # a set of the first rows, on which all workers must agree
_OURS = rf"\.?(?:(?:inputs|logits|weights)-\d+\.npy(?:\.gz)?|\d+\.(?:json|lock)|{re.escape(MANIFEST)}|{TURN}|{PRESENT})(?:\.\w+\.part)?"
_RECORD = r"(\d{5,})\.json"


class Records:
    """Shards on their way into a set.

    They lie in a folder of their own until all are there: whatever has a shard's name in the set's folder is the manifest's, or the user's.

    Parameters
    ----------
    folder : the set's
    manifest : what is common to all shards, and the files of those that the set's own manifest has already
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self._folder, self.path, self.manifest = folder, folder / UNDER_WAY, manifest

    def shards(self) -> list[int]:
        """Those that are on disk, whole or at least their inputs and weights."""
        return sorted({*range(self.manifest.shards), *recorded(self._folder)})

    def whole(self, shard: int) -> bool:
        """Whether it was labelled."""
        return "logits" in self.of(shard)

    def demand_rows(self, rows: int) -> None:
        """Demand so many rows on disk."""
        there = sum(self.of(shard)["inputs"]["rows"] for shard in self.shards())
        if there != rows:
            raise ManifestError(f"inputs: expected {there} rows, as in {self._folder}, got {rows}")

    def of(self, shard: int) -> dict[str, dict[str, Any]]:
        """The files of a shard by what they hold; none where nobody wrote any, and all but "logits" where it was not labelled yet."""
        if shard < self.manifest.shards:
            return self.manifest.files_of(shard)
        return _record(self.path, shard)

    @contextmanager
    def claim(self, shard: int) -> Iterator[bool]:
        """Be the only one who writes that shard, unless another is."""
        lock = Lock(self.path / f"{shard:05d}.lock")
        try:
            yield lock.take() is not False
        finally:
            lock.close()

    def write(self, shard: int, arrays: dict[str, Array]) -> None:
        """Write files of a shard that was claimed, then the record that has them too."""
        record = self.of(shard)
        for kind, name in zip(self.manifest.kinds, self.manifest.names(shard)):
            if kind in arrays:
                with replacing(self.path / name, links=False) as file:
                    record[kind] = write_array(file, name, arrays[kind], self.manifest.stored.compress)
        with replacing(self.path / f"{shard:05d}.json", links=False) as file:
            file.write(json.dumps(record).encode())

    def open(self, shard: int) -> dict[str, tuple[Path, Part]]:
        """The files and arrays of a shard by what they hold, compared with their sums."""
        found = {}
        for kind, file in self.of(shard).items():
            place = self.path if (self.path / file["name"]).exists() else self._folder
            found[kind] = place / file["name"], open_file(place, self.manifest, kind, file, True)
        return found

    def publish(self, standardise: bool) -> None:
        """Make the set of all shards; nobody else labels. Killed on the way, it can be done again."""
        there = read_manifest(self._folder).files if (self._folder / MANIFEST).exists() else []
        if there != self.manifest.files:
            raise ManifestError(f"{self._folder / MANIFEST}: expected {self.manifest.shards} shards as before, got others")
        demand_room_beside(self._folder, there, self.manifest.kinds)
        files = [self.of(shard)[kind] for shard in self.shards() for kind in self.manifest.kinds]
        for file in files[len(there) :]:
            target = self._folder / file["name"]
            with suppress(FileNotFoundError), naming(os.fspath(target)):  # not there: it was moved before
                os.replace(self.path / file["name"], target)
        self.manifest.files, self.manifest.unfinished = files, None
        finish(self._folder, self.manifest, standardise)


def begun(folder: Path) -> bool:
    """Whether a shard has been labelled."""
    return any("logits" in _record(folder / UNDER_WAY, shard) for shard in recorded(folder))


def recorded(folder: Path) -> list[int]:
    """The shards that have records."""
    with suppress(FileNotFoundError):
        return [int(found[1]) for name in os.listdir(folder / UNDER_WAY) if (found := re.fullmatch(_RECORD, name))]
    return []


def demand_room_beside(folder: Path, files: list[dict[str, Any]], kinds: tuple[str, ...]) -> None:
    """`demand_room` beside the files of the manifest, and those that were moved from among the records already."""
    path = folder / UNDER_WAY
    written = [file for shard in recorded(folder) for file in _record(path, shard).values()]
    known = files + [file for file in written if not (path / file["name"]).exists()]
    demand_room(folder, known if known or (folder / MANIFEST).exists() else None, kinds)


def demand_own_folders(path: Path) -> None:
    """Demand that the folder of records, and what is in it, are no links: files would be written, and removed, in another folder."""
    for folder in (path, path / FIRST):
        if folder.is_symlink():
            raise FileExistsError(errno.EEXIST, "directory: expected a folder for what is under way, got a link", os.fspath(folder))


def clear(folder: Path) -> None:
    """Remove the records of a set that is complete, or of none."""
    remove(folder / UNDER_WAY / FIRST)
    remove(folder / UNDER_WAY)


def remove(path: Path, keep: tuple[str, ...] = ()) -> None:
    """Remove files of ours from a folder of records, and the folder where nothing else is in it; whoever waits for a turn finds it gone."""
    with suppress(OSError):
        for name in () if path.is_symlink() else sorted(os.listdir(path), key=lambda name: name == TURN):
            if re.fullmatch(_OURS, name) and name not in keep:
                with suppress(OSError):
                    os.unlink(path / name)
        if not keep:
            os.rmdir(path)


def _record(path: Path, shard: int) -> dict[str, dict[str, Any]]:
    """What is noted of a shard, nothing where there is no note; ManifestError where it is none of ours."""
    file = path / f"{shard:05d}.json"
    try:
        with naming(os.fspath(file)):
            demand_plain(file)
            text = file.read_bytes()
    except FileNotFoundError:
        return {}
    try:
        record: dict[str, dict[str, Any]] = parsed(text)
        if not all(_is_file_of(kind, shard, noted) for kind, noted in record.items()) or "inputs" not in record:
            raise ValueError("other files")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ManifestError(f"{file}: expected a note of shard {shard}'s files, got {error}") from error
    return record


def _is_file_of(kind: str, shard: int, noted: dict[str, Any]) -> bool:
    """Whether that is what `write_array` notes of a file, in the folder and nowhere else."""
    sizes = [noted["rows"], *([noted["size"]] if "size" in noted else [])]
    numbers = all(type(size) is int and size > 0 for size in sizes)
    known = kind in ("inputs", "logits", "weights") and re.fullmatch(rf"{kind}-{shard:05d}\.npy(\.gz)?", noted["name"]) is not None
    return numbers and known and isinstance(noted["sha256"], str)
