"""A transfer set's folder: files of arrays, shard by shard, and the manifest that vouches for them."""

from __future__ import annotations

import errno
import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..errors import ManifestError
from ..foreign import demand_plain
from ..targets import naming, remove_parts, replacing
from .compressed import CompressedFile, write_compressed
from .manifest import MANIFEST, Manifest, read_manifest, write_manifest
from .mapped import kind_of, load_mapped
from .moments import moments
from .storage import Storage

_SLAB = 1 << 14  # rows of one step through a whole set
Part = Array | CompressedFile  # the inputs, logits or weights of a shard, or of a set in memory


def demand_room(directory: Path, files: list[dict[str, Any]] | None, kinds: Sequence[str]) -> None:
    """Demand a folder without files of shards' names, other than those of the manifest; None where there is none, and no link may be."""
    if (directory / MANIFEST).is_symlink():  # it would be followed, out of the folder
        raise FileExistsError(errno.EEXIST, f"directory: expected a folder whose {MANIFEST} is a file, got a link", os.fspath(directory))
    known = {file["name"] for file in files or ()}
    strange = sorted(
        name for name in os.listdir(directory) if re.fullmatch(rf"({'|'.join(kinds)})-\d{{5,}}\.npy(\.gz)?", name) and name not in known
    )
    if strange:
        lack = f"no {MANIFEST} is there" if files is None else f"{MANIFEST} knows nothing of it"
        raise FileExistsError(
            errno.EEXIST,
            f"directory: expected a folder without files of the names that shards get, got {strange[0]}, and {lack}: "
            "choose another folder, or move the file",
            os.fspath(directory),
        )


def write_shard(directory: Path, manifest: Manifest, arrays: list[Array]) -> None:
    """Write the next shard's files, then the manifest that has them; on any error no file is left that was not there before.

    A manifest with the files' sums stands before they do, so that what a killed process leaves is known from a user's own files.
    ManifestError where another process has written to the folder since: that is seen where folders cannot be locked, too.
    """
    there = read_manifest(directory).files if (directory / MANIFEST).exists() else None
    if (there or []) != manifest.files:
        raise ManifestError(f"{directory / MANIFEST}: expected {manifest.shards} shards as this process left them, got others")
    demand_room(directory, there, manifest.kinds)
    names, level = manifest.names(manifest.shards), manifest.stored.compress
    new = [*names, *([MANIFEST] if there is None else [])]
    before, files, unfinished = list(manifest.files), list[dict[str, Any]](), 0
    try:
        with ExitStack() as stack:
            for name, array in zip(names, arrays):
                files.append(write_array(stack.enter_context(replacing(directory / name, links=False)), name, array, level))
            manifest.unfinished = [file["sha256"] for file in files]
            write_manifest(directory, manifest)
        manifest.files, manifest.unfinished = before + files, None
        unfinished = _number(directory)
        write_manifest(directory, manifest)
    except BaseException:
        manifest.files, manifest.unfinished = before, None
        stands = unfinished and _number(directory) != unfinished  # the new one is in place already; asked without opening a file
        for name in () if stands else new:
            with suppress(OSError):
                os.unlink(directory / name)
        raise


def _number(directory: Path) -> int:
    """The manifest's file, as its file system counts: another takes its place whenever it is written."""
    return (directory / MANIFEST).stat().st_ino


def write_array(file: BinaryIO, name: str, array: Array, level: int) -> dict[str, Any]:
    """Write a shard's array; what the manifest says of the file that is to have that name."""
    summed = _Summed(file)
    if level:
        write_compressed(summed, array, level)
    else:
        np.lib.format.write_array(summed, array, allow_pickle=False)
    sums: dict[str, Any] = {"sha256": summed.sha256.hexdigest()} | ({"size": summed.size} if level else {})
    return {"name": name, "rows": len(array), **sums}


class _Summed:
    """A file to write, with the sha256 and the number of its bytes."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self.sha256, self.size = file, hashlib.sha256(), 0

    def write(self, data: bytes) -> int:
        self.sha256.update(data)
        self.size += len(data)
        return self._file.write(data)


def open_shard(directory: Path, manifest: Manifest, shard: int, verify: bool) -> list[Part]:
    """The shard's arrays as they are stored, memory-mapped or compressed; ManifestError names a file that is not the manifest's."""
    return [open_file(directory, manifest, kind, file, verify) for kind, file in manifest.files_of(shard).items()]


def open_file(directory: Path, manifest: Manifest, kind: str, file: dict[str, Any], verify: bool) -> Part:
    """The array of a file of "inputs", "logits" or "weights", of which `file` is what the manifest says."""
    path, shape = directory / file["name"], manifest.shape(kind, file["rows"])
    dtype, sha256 = manifest.stored.dtype(kind, manifest.outputs), file["sha256"]
    with naming(os.fspath(path)):
        part: Part
        if manifest.stored.compress:
            _demand_size(path, file["size"])
            part = CompressedFile(path, dtype, shape)
        else:
            part = _open(path, shape, dtype)
        if verify and (got := _sha256(path)) != sha256:
            raise ManifestError(f"{path}: expected sha256 {sha256}, as the manifest says, got {got}")
    return part


def finish(folder: Path, manifest: Manifest, standardise: bool) -> None:
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


def rechunk(name: str, values: Array | Iterable[Array], rows: int, *axes: str) -> Iterator[Array]:
    """The rows of an array, or of arrays one after the other, as float32 arrays of `rows` rows each; the last may be shorter."""
    dims = _check.Dims()
    shard = np.empty(0, np.float32)
    have = 0
    for value in arrays_of(name, values):
        array = _check.data_array(name, value)
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
    """One array as an iterable of one; demands that anything else can be iterated over, and DataFrames of the same columns in it."""
    if isinstance(values, np.ndarray):
        return [values]
    if not isinstance(values, Iterable):
        kind = f"{type(values).__module__}.{type(values).__qualname__}"
        raise TypeError(f"{name}: expected an array, or an iterable of arrays, got {kind}")
    return _of_the_same_columns(name, values)


def _of_the_same_columns(name: str, values: Iterable[Array]) -> Iterator[Array]:
    first = None
    for value in values:
        _check.demand_columns(name, value, first, "of the first part")
        first = _check.column_names(value) if first is None else first
        yield value


def slabs(kind: str, part: Part, storage: Storage, outputs: int) -> Iterator[Array]:
    """The rows of a shard as float32, some at a time."""
    for start in range(0, len(part), _SLAB):
        yield storage.unpack(kind, part[start : start + _SLAB], outputs)


def remove_unfinished(directory: Path, manifest: Manifest | None) -> None:
    """Remove what a killed process left: half-written files, and files of a shard that its manifest does not have yet."""
    remove_parts(directory, rf"(?:inputs|logits|weights|labels)-\d+\.npy(?:\.gz)?|{re.escape(MANIFEST)}")
    if manifest is not None and manifest.unfinished is not None:
        for name, sha256 in zip(manifest.names(manifest.shards), manifest.unfinished):
            with naming(os.fspath(directory / name)):
                if (directory / name).is_file() and _sha256(directory / name) == sha256:
                    os.unlink(directory / name)


def _open(path: Path, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    try:
        demand_plain(path)
        array = load_mapped(path)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError:
        raise
    except Exception as error:  # a damaged header can raise almost anything
        raise ManifestError(f"{path}: expected a whole .npy file, got {kind_of(path)}") from error
    if not isinstance(array, np.memmap) or array.dtype != dtype or array.shape != shape or not array.flags.c_contiguous:
        got = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
        raise ManifestError(f"{path}: expected {dtype} {shape} in C order, as the manifest says, got {got}")
    _demand_size(path, array.offset + array.nbytes)
    return np.asarray(array)  # a plain view of the mapping: np.memmap's own indexing is slow


def _demand_size(path: Path, size: int) -> None:
    try:
        got = path.stat().st_size
    except FileNotFoundError:
        raise _missing(path) from None
    if got != size:
        raise ManifestError(f"{path}: expected {size} bytes, got {got}")


def _missing(path: Path) -> ManifestError:
    return ManifestError(f"{path}: expected a file, as the manifest says, got none")


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
