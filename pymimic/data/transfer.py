"""What students train on: inputs with a teacher's logits, in memory or in a folder."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator
from itertools import zip_longest
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import _check
from ..backends.interface import Array
from ..errors import ManifestError
from ..progress import Progress
from .moments import moments
from .shards import MANIFEST, Manifest, open_shard, read_manifest, rechunk, remove_unfinished, write_manifest, write_shard
from .teacher import Teacher, label

_SLAB = 1 << 14  # rows of one step through a whole set


class Standardised(NamedTuple):
    """What `TransferSet.standardised` returns."""

    set: TransferSet
    mean: Array  # (C,) float32
    scale: Array  # (C,) float32


class TransferSet:
    """Inputs (N, D) and a teacher's logits (N, C), float32, in memory or memory-mapped from a folder.

    Parameters
    ----------
    x : (N, D) float32 or float64 array; float32 is not copied, and may be memory-mapped
    logits : (N, C) float32 or float64 array, likewise
    weights : (N,) array of per-row weights of at least 0, or None for ones

    Raises
    ------
    TypeError, ValueError
        Wrong kinds or shapes; NaN or infinity, with the name of the array and the row.
    """

    def __init__(self, x: Array, logits: Array, weights: Array | None = None) -> None:
        dims = _check.Dims()
        parts = [_float32(dims, "x", x, "N", "D"), _float32(dims, "logits", logits, "N", "C")]
        if weights is not None:
            parts.append(_float32(dims, "weights", weights, "N"))
        for name, part in zip(("x", "logits", "weights"), parts):
            _demand_values(name, part)
        self._adopt([parts], None)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, verify: bool = True) -> TransferSet:
        """The set that `create` wrote, memory-mapped: it may be larger than memory.

        Parameters
        ----------
        directory : the folder
        verify : compare each file with its sha256, which reads the whole set once; sizes and dtypes are always compared

        Raises
        ------
        ManifestError
            A file is not the one in the manifest, with its name; or the set is not complete.
        OSError
            There is no such folder, or no manifest in it.
        """
        folder = Path(directory)
        manifest = read_manifest(folder)
        if not manifest.complete:
            raise ManifestError(
                f"{folder / MANIFEST}: expected a complete set, got {manifest.shards} shards of one that create() can go on with"
            )
        opened = cls.__new__(cls)
        shards = [open_shard(folder, manifest, shard, verify) for shard in range(manifest.shards)]
        opened._adopt(shards, manifest.standardisation)
        return opened

    @classmethod
    def create(
        cls, directory: str | os.PathLike[str], teacher: Teacher, inputs: Array | Iterable[Array],
        weights: Array | Iterable[Array] | None = None, *, rows_per_shard: int = 16384, source: Any = None, standardise: bool = False,
        progress: bool = True,
    ) -> TransferSet:  # fmt: skip
        """Label inputs shard by shard into a folder, and open it.

        Stopped at any moment, even killed, it goes on behind the last whole shard when it is called again with the same arguments:
        `inputs` gives its rows from the first again, and they are compared with those on disk. Nothing but one shard is in memory.

        Parameters
        ----------
        directory : is made if need be
        teacher : its description is kept in the manifest
        inputs : (N, D) array, or an iterable of (n, D) arrays such as `munge(...)`; float32 or float64
        weights : (N,) array of per-row weights of at least 0, or an iterable of (n,) arrays, or None for ones
        rows_per_shard : rows that a stop can lose, and hold in memory
        source : what JSON can hold, a description of the inputs to be kept in the manifest
        standardise : keep the mean and scale of each output in the manifest, for `standardised`
        progress : show a bar where output is a terminal

        Raises
        ------
        ManifestError
            The folder holds labels of another teacher or of other inputs, or damaged files.
        ValueError
            NaN or infinity in inputs, weights or logits, with the row; no rows at all.
        """
        _check.integer("rows_per_shard", rows_per_shard, 1, 1 << 40)
        folder = Path(directory)
        described = json.loads(json.dumps({"teacher": teacher.describe(), "source": source}))
        given = {"weighted": weights is not None, "rows_per_shard": rows_per_shard, **described}
        manifest = read_manifest(folder) if (folder / MANIFEST).exists() else None
        for key, value in given.items() if manifest is not None else ():
            if getattr(manifest, key) != value:
                raise ManifestError(f"{key}: expected {getattr(manifest, key)!r}, as {folder / MANIFEST} says, got {value!r}")
        folder.mkdir(parents=True, exist_ok=True)
        remove_unfinished(folder)
        seen = rows = 0
        total = len(inputs) if isinstance(inputs, np.ndarray) else None
        with Progress(total=total, unit="row", unit_scale=True, desc="labelling", disable=None if progress else True) as bar:
            for seen, arrays in enumerate(_labelling_shards(inputs, weights, rows_per_shard), 1):
                if manifest is not None and seen <= manifest.shards:
                    _demand_same(folder, manifest, seen - 1, arrays)
                elif manifest is not None and manifest.complete:
                    raise ManifestError(f"inputs: expected {rows} rows, as {folder / MANIFEST} says, got more")
                else:
                    logits = label(teacher, arrays[0], rows)
                    manifest = manifest or Manifest(inputs=arrays[0].shape[1], outputs=logits.shape[1], **given)
                    if logits.shape[1] != manifest.outputs:
                        raise ValueError(f"logits: expected {manifest.outputs} columns from the teacher, got {logits.shape[1]}")
                    write_shard(folder, manifest, [arrays[0], np.ascontiguousarray(logits), *arrays[1:]])
                rows += len(arrays[0])
                bar.update(len(arrays[0]))
        if manifest is None:
            raise ValueError("inputs: expected at least one row, got none")
        if seen < manifest.shards:
            raise ManifestError(f"inputs: expected more than {rows} rows, as {folder / MANIFEST} says, got no more")
        missing = standardise and manifest.standardisation is None
        if missing or not manifest.complete:
            manifest.complete = True
            if missing:
                shards = [open_shard(folder, manifest, shard, False) for shard in range(manifest.shards)]
                mean, scale = moments(_slabs(shards))
                manifest.standardisation = {"mean": mean.tolist(), "scale": scale.tolist()}
            write_manifest(folder, manifest)
        return cls.open(folder, verify=False)

    def __len__(self) -> int:
        return int(self._starts[-1])

    @property
    def inputs(self) -> int:
        """D."""
        return int(self._shards[0][0].shape[1])

    @property
    def outputs(self) -> int:
        """C."""
        return int(self._shards[0][1].shape[1])

    def batch(self, indices: ArrayLike) -> tuple[Array, Array, Array | None]:
        """The rows of those numbers, in that order.

        Parameters
        ----------
        indices : (n,) ints in [0, N); they may repeat

        Returns
        -------
        x (n, D), t (n, C) and weights (n,), or None without weights; float32 copies.
        """
        rows = _row_numbers(indices, len(self))
        order = np.argsort(rows, kind="stable")  # files are read shard by shard, front to back
        rows = rows[order]
        cuts = np.searchsorted(rows, self._starts)
        touched = np.flatnonzero(np.diff(cuts))
        found = [np.empty((len(rows), *part.shape[1:]), np.float32) for part in self._shards[0]]
        for shard in touched:
            here = slice(cuts[shard], cuts[shard + 1])
            for out, part in zip(found, self._shards[shard]):
                out[order[here]] = part[rows[here] - self._starts[shard]]
        x, t = found[:2]
        if self._undo is not None:
            t -= self._undo[0]
            t /= self._undo[1]
        return x, t, found[2] if len(found) == 3 else None

    def standardised(self, mean: Array | None = None, scale: Array | None = None) -> Standardised:
        """The same set with targets t = (logits - mean) / scale, and what undoes that: logits = t * scale + mean.

        Without arguments, mean and scale are those of each output over the set (from the manifest, or computed in float64, some rows
        at a time); an output that never varies has scale 1. Pass another set's to treat validation rows alike.
        `Student.fold(mean, scale)` undoes it at prediction.

        Parameters
        ----------
        mean, scale : (C,) arrays, both or neither; scale above 0
        """
        if self._undo is not None:
            raise ValueError("standardised: expected a set of plain logits, got one that is standardised already")
        if (mean is None) != (scale is None):
            raise ValueError("scale: expected both mean and scale, or neither, got one of them")
        if mean is None or scale is None:
            mean, scale = self._moments or moments(_slabs(self._shards))
        dims = _check.Dims(C=self.outputs)
        mean, scale = _float32(dims, "mean", mean, "C"), _float32(dims, "scale", scale, "C")
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale > 0).all()):
            raise ValueError("scale: expected finite means and scales above 0, got others")
        view = TransferSet.__new__(TransferSet)
        view._shards, view._starts, view._moments, view._undo = self._shards, self._starts, None, (mean, scale)
        return Standardised(view, mean, scale)

    def _adopt(self, shards: list[list[Array]], known: dict[str, list[float]] | None) -> None:
        self._shards = shards  # [inputs, logits] or [inputs, logits, weights] of each
        self._starts = np.cumsum([0, *(len(shard[0]) for shard in shards)])
        self._moments = None if known is None else (np.array(known["mean"]), np.array(known["scale"]))
        self._undo: tuple[Array, Array] | None = None  # mean and scale, of a standardised set


def _float32(dims: _check.Dims, name: str, value: object, *axes: str) -> Array:
    """Demand a float array of that shape, and give it as float32; a float32 one is not copied."""
    array = _check.host_array(name, value)
    if array.dtype not in _check.FLOATS:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
    dims.shape(name, array.shape, axes)
    with np.errstate(over="ignore"):  # infinity is found afterwards
        return np.asarray(array.astype(np.float32, copy=False))


def _demand_values(name: str, array: Array, first_row: int = 0) -> None:
    """Demand finite values, and no negative weights."""
    _check.finite(name, array, first_row)
    if name == "weights" and array.size and array.min() < 0:
        raise ValueError(f"weights: expected values of at least 0, got {array.min()} in row {first_row + int(array.argmin())}")


def _row_numbers(indices: ArrayLike, rows: int) -> Array:
    """Demand (n,) ints in [0, rows)."""
    array = np.asarray(indices)
    if array.size == 0:
        array = array.astype(np.int64)
    if array.dtype.kind not in "iu":
        raise TypeError(f"indices: expected an integer dtype, got {array.dtype}")
    _check.Dims().shape("indices", array.shape, ("n",))
    if array.size and not 0 <= array.min() <= array.max() < rows:
        raise ValueError(f"indices: expected values in [0, {rows}), got [{array.min()}, {array.max()}]")
    return array


def _slabs(shards: list[list[Array]]) -> Iterator[Array]:
    """The logits, some rows at a time."""
    for _, logits, *_ in shards:
        yield from (logits[start : start + _SLAB] for start in range(0, len(logits), _SLAB))


def _labelling_shards(inputs: Array | Iterable[Array], weights: Array | Iterable[Array] | None, rows: int) -> Iterator[list[Array]]:
    """[inputs] or [inputs, weights] of each shard, checked."""
    streams = [rechunk("inputs", inputs, rows, "n", "D")]
    if weights is not None:
        streams.append(rechunk("weights", weights, rows, "n"))
    first_row = 0
    for arrays in zip_longest(*streams, fillvalue=np.empty(0, np.float32)):
        if len(arrays[0]) != len(arrays[-1]):
            raise ValueError(
                f"weights: expected one for each row of inputs, got {len(arrays[-1])} for {len(arrays[0])} from row {first_row}"
            )
        for name, array in zip(("inputs", "weights"), arrays):
            _demand_values(name, array, first_row)
        yield list(arrays)
        first_row += len(arrays[0])


def _demand_same(folder: Path, manifest: Manifest, shard: int, arrays: list[Array]) -> None:
    """Demand that a shard on disk holds these inputs and weights."""
    inputs, _, *weights = open_shard(folder, manifest, shard, True)
    for kind, stored, given in zip(("inputs", "weights"), (inputs, *weights), arrays):
        if not np.array_equal(stored, given):
            raise ManifestError(f"{kind}: expected the rows in {folder / f'{kind}-{shard:05d}.npy'}, got others")
