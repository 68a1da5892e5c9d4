"""A transfer set's folder: `.npy` files, shard by shard, and the manifest that vouches for them."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..errors import ManifestError
from ..targets import remove_parts, replacing
from .mapped import kind_of
from .moments import TINY
from .storage import Storage

FORMAT = 1
MANIFEST = "manifest.json"
_SLAB = 1 << 14  # rows of one step through a whole set


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
        return [f"{kind}-{shard:05d}.npy" for kind in self.kinds]

    def shape(self, kind: str, rows: int) -> tuple[int, ...]:
        """The shape of a file."""
        return {"inputs": (rows, self.inputs), "logits": (rows, self.outputs), "weights": (rows,)}[kind]


def demand_set(directory: Path) -> None:
    """Demand a folder with a manifest; OSError says what is there instead."""
    where = os.fspath(directory)
    if not directory.exists():
        raise FileNotFoundError(errno.ENOENT, "directory: expected the folder of a transfer set, got no such folder", where)
    if not directory.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, "directory: expected the folder of a transfer set, got a file", where)
    if not (directory / MANIFEST).exists():
        raise FileNotFoundError(
            errno.ENOENT, f"directory: expected a folder that TransferSet.create made, got one without {MANIFEST}", where
        )


def read_manifest(directory: Path) -> Manifest:
    """The manifest, or ManifestError where it is none of ours; OSError where there is none."""
    text = (directory / MANIFEST).read_bytes()
    try:
        data = json.loads(text)
        if (stored := data.pop("format", None)) != FORMAT:
            raise ValueError(f"format {stored!r} where this version of pymimic knows {FORMAT}")
        manifest = Manifest(**data)
        names = [name for shard in range(manifest.shards) for name in manifest.names(shard)]
        if [file["name"] for file in manifest.files] != names or not all(
            isinstance(file["rows"], int) and file["rows"] > 0 and isinstance(file["sha256"], str) for file in manifest.files
        ):
            raise ValueError("a list of files that is not in order")
        if manifest.complete and not manifest.files:
            raise ValueError("a complete set without files")
        for name, least in (("inputs", 0), ("outputs", 0), ("rows_per_shard", 1)):
            _check.integer(name, getattr(manifest, name), least, 1 << 62)
        for name in ("weighted", "complete"):
            _check.flag(name, getattr(manifest, name))
        stored = manifest.stored
        Storage.of(stored.inputs, stored.logits, (stored.low, stored.high))
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
    with replacing(directory / MANIFEST) as file:
        fields = asdict(manifest)
        if manifest.storage is None:  # earlier versions know no such thing
            del fields["storage"]
        file.write(json.dumps({"format": FORMAT, **fields}, indent=1).encode())


def demand_room(directory: Path, manifest: Manifest | None, kinds: Sequence[str]) -> None:
    """Demand a folder without files of shards' names, other than those of the manifest and of a shard that a stop left behind it."""
    known = set() if manifest is None else {name for shard in range(manifest.shards + 1) for name in manifest.names(shard)}
    strange = sorted(
        name for name in os.listdir(directory) if re.fullmatch(rf"({'|'.join(kinds)})-\d{{5,}}\.npy", name) and name not in known
    )
    if strange:
        lack = f"no {MANIFEST} is there" if manifest is None else f"{MANIFEST} knows nothing of it"
        raise FileExistsError(
            errno.EEXIST,
            f"directory: expected a folder without files of the names that shards get, got {strange[0]}, and {lack}: "
            "choose another folder, or move the file",
            os.fspath(directory),
        )


def write_shard(directory: Path, manifest: Manifest, arrays: list[Array]) -> None:
    """Write the next shard's files, then the manifest that has them; on any error no file is left that was not there before.

    A manifest stands before the first shard, so that a process that is killed leaves no files of which nobody knows.
    ManifestError where another process has written to the folder since: that is seen where folders cannot be locked, too.
    """
    there = read_manifest(directory).files if (directory / MANIFEST).exists() else []
    if there != manifest.files:
        raise ManifestError(f"{directory / MANIFEST}: expected {manifest.shards} shards as this process left them, got others")
    names = manifest.names(manifest.shards)
    new = [name for name in (*names, MANIFEST) if not os.path.lexists(directory / name)]
    before = list(manifest.files)
    try:
        if MANIFEST in new:
            write_manifest(directory, manifest)
        for name, array in zip(names, arrays):
            with replacing(directory / name) as file:
                np.lib.format.write_array(file, array, allow_pickle=False)
            manifest.files.append({"name": name, "rows": len(array), "sha256": _sha256(directory / name)})
        write_manifest(directory, manifest)
    except BaseException:
        manifest.files = before
        stands = (directory / MANIFEST).exists() and read_manifest(directory).shards > manifest.shards  # the new one is written already
        for name in () if stands else new:
            with suppress(OSError):
                os.unlink(directory / name)
        raise


def open_shard(directory: Path, manifest: Manifest, shard: int, verify: bool) -> list[Array]:
    """The shard's arrays as they are stored, memory-mapped; ManifestError names a file that is not the one in the manifest."""
    count = len(manifest.kinds)
    files = manifest.files[shard * count : (shard + 1) * count]
    return [
        _open(directory / file["name"], manifest.shape(kind, file["rows"]), manifest.stored.dtype(kind), file["sha256"] if verify else None)
        for kind, file in zip(manifest.kinds, files)
    ]


def rechunk(name: str, values: Array | Iterable[Array], rows: int, *axes: str) -> Iterator[Array]:
    """The rows of an array, or of arrays one after the other, as float32 arrays of `rows` rows each; the last may be shorter."""
    dims = _check.Dims()
    shard = np.empty(0, np.float32)
    have = 0
    for value in arrays_of(name, values):
        array = _check.host_array(name, value)
        _check.float_dtype(name, array)
        dims.size.pop(axes[0], None)
        dims.shape(name, array.shape, axes)
        done = 0
        while done < len(array):
            if have == 0:
                shard = np.empty((rows, *array.shape[1:]), np.float32)
            take = min(rows - have, len(array) - done)
            with np.errstate(over="ignore"):  # values that become infinite are refused afterwards
                shard[have : have + take] = array[done : done + take]
            have, done = have + take, done + take
            if have == rows:
                yield shard
                have = 0
    if have:
        yield shard[:have]


def arrays_of(name: str, values: Array | Iterable[Array]) -> Iterable[Array]:
    """One array as an iterable of one; demands that anything else can be iterated over."""
    if isinstance(values, np.ndarray):
        return [values]
    if not isinstance(values, Iterable):
        kind = f"{type(values).__module__}.{type(values).__qualname__}"
        raise TypeError(f"{name}: expected an array, or an iterable of arrays, got {kind}")
    return values


def slabs(shards: list[list[Array]]) -> Iterator[Array]:
    """The logits of all shards, some rows at a time."""
    for _, logits, *_ in shards:
        yield from (logits[start : start + _SLAB] for start in range(0, len(logits), _SLAB))


@contextmanager
def alone(directory: Path) -> Iterator[None]:
    """Keep other processes, and other threads, from labelling into the folder; BlockingIOError where one does.

    The lock ends with the process. Where the system or the folder knows no locks there is none.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        yield
        return
    handle = os.open(directory, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise BlockingIOError(
                error.errno, "expected a folder that nobody else labels into, got one in use", os.fspath(directory)
            ) from None
        except OSError:  # some network file systems
            pass
        yield
    finally:
        with suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_UN)  # closing the file would not unlock it while a process lives that the teacher forked
        os.close(handle)


def remove_unfinished(directory: Path) -> None:
    """Remove what a killed process left half-written."""
    remove_parts(directory, rf"(?:inputs|logits|weights|labels)-\d+\.npy|{re.escape(MANIFEST)}")


def _open(path: Path, shape: tuple[int, ...], dtype: str, sha256: str | None) -> Array:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise ManifestError(f"{path}: expected a file, as the manifest says, got none") from None
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise almost anything
        raise ManifestError(f"{path}: expected a whole .npy file, got {kind_of(path)}") from error
    if not isinstance(array, np.memmap) or array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ManifestError(f"{path}: expected {dtype} {shape} in C order, as the manifest says, got {got}")
    size = path.stat().st_size
    if size != array.offset + array.nbytes:
        raise ManifestError(f"{path}: expected {array.offset + array.nbytes} bytes, got {size}")
    if sha256 is not None and (got := _sha256(path)) != sha256:
        raise ManifestError(f"{path}: expected sha256 {sha256}, as the manifest says, got {got}")
    return np.asarray(array)  # a plain view of the mapping: np.memmap's own indexing is slow


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
