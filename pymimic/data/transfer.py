"""What students train on: inputs with a teacher's logits, in memory or in a folder."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from .. import _check
from ..backends.interface import Array
from ..errors import ManifestError
from ..numerics import warn
from ..targets import expanded
from .asking import Asked, Recorded
from .cases import Targets, class_labels, demand_values, float32_array, row_numbers
from .classes import classes_of
from .labelling import label_into
from .manifest import MANIFEST, read_manifest
from .mapped import packed, unpacked
from .moments import TINY, moments
from .names import names_of
from .rounding import merged_logits, warn_of_merged_values
from .rows import StoredRows, opened
from .shards import arrays_of
from .storage import DType, Storage
from .teacher import Teacher, label


class Standardised(NamedTuple):
    """What `TransferSet.standardised` returns."""

    set: TransferSet
    mean: Array  # (C,) float32
    scale: Array  # (C,) float32


class TransferSet:
    """Inputs (N, D) and a teacher's logits (N, C), float32, in memory or memory-mapped from a folder.

    Arrays of other libraries on the CPU, such as torch's, are used where they are. DataFrames and Series of pandas and lists do as well.

    Parameters
    ----------
    x : (N, D) float32 or float64 array; float32 is not copied, and may be memory-mapped
    logits : (N, C) float32 or float64 array, likewise
    weights : (N,) array of per-row weights of at least 0, or None for ones
    labels : (N,) array of integers in [0, C), for `Trainer(loss="distillation", alpha=)`, or None

    A set pickles for other processes: one of memory-mapped files as their paths, which are mapped again where it is loaded. Once a file is
    written to that is mapped read-only, batches from it raise ManifestError.

    Raises
    ------
    TypeError, ValueError
        Wrong kinds or shapes; NaN or infinity, with the name of the array and the row.

    Warns
    -----
    UserWarning
        Many float64 values of a column of x or of the logits are one as float32, in which nets learn.
    """

    _undo: tuple[Array, Array] | None  # mean and scale, of a standardised set
    _opened: tuple[Path, bool, list[str]] | None  # folder, verify, and each file's sha256
    _labels: Array | None = None

    def __init__(self, x: Array, logits: Array, weights: Array | None = None, labels: Array | None = None) -> None:
        dims, x, logits = _check.Dims(), _check.data_array("x", x), _check.data_array("logits", logits)
        parts = [float32_array(dims, "x", x, "N", "D"), float32_array(dims, "logits", logits, "N", "C")]
        if weights is not None:
            parts.append(float32_array(dims, "weights", weights, "N"))
        for name, part in zip(("x", "logits", "weights"), parts):
            demand_values(name, part)
        warn_of_merged_values("x", x)
        if message := merged_logits(logits):
            warn(message)
        self._adopt(StoredRows([[*parts]]), None)
        if labels is not None:
            self._labels = class_labels(dims, labels, self.outputs)

    @classmethod
    def from_teacher(
        cls, teacher: Teacher, inputs: Array | Iterable[Array], weights: Array | None = None, labels: Array | None = None, *,
        rows: int = 16384, workers: int = 1,
    ) -> TransferSet:  # fmt: skip
        """Label inputs, and keep them with the logits in memory.

        Parameters
        ----------
        teacher : see `centred` for logits whose rows have mean 0, as squared error wants them
        inputs : (N, D) array or DataFrame, or an iterable of such, like `munge(...)`, `copies(...)` or `pandas.read_csv(chunksize=)`;
            float32 or float64
        weights, labels : (N,) arrays or None, as `TransferSet` takes them
        rows, workers : how many the teacher gets at a time, in how many threads, see `label`

        Raises
        ------
        TypeError, ValueError
            What `TransferSet` and `label` raise, wrong weights and labels before the teacher is asked; no rows at all.
        """
        dims, parts, warned = _check.Dims(), list[Array](), False
        columns = names_of(teacher)
        inputs = _check.whole_array("inputs", inputs, axes=2, columns=columns)
        for part in arrays_of("inputs", inputs):
            dims.size.pop("n", None)
            part = _check.data_array("inputs", part, columns=columns)
            parts.append(float32_array(dims, "inputs", part, "n", "D"))
            warned = warned or warn_of_merged_values("inputs", part)
            if part is not inputs:
                parts[-1] = parts[-1].copy()  # whoever gives parts may use their memory again
        if not sum(map(len, parts)):
            raise ValueError("inputs: expected at least one row, got none")
        x = parts[0] if len(parts) == 1 else np.concatenate(parts)
        demand_values("inputs", x)
        dims = _check.Dims(N=len(x))
        if weights is not None:
            demand_values("weights", float32_array(dims, "weights", weights, "N"))
        if labels is not None:
            class_labels(dims, labels, len(classes_of(teacher) or ()) or None)
        return cls(x, label(teacher, x, rows=rows, workers=workers), weights, labels)

    @classmethod
    def open(cls, directory: str | os.PathLike[str], *, verify: bool = True) -> TransferSet:
        """The set that `create` wrote, memory-mapped: it may be larger than memory.

        Parameters
        ----------
        directory : the folder; `~` is the home folder
        verify : compare each file with its sha256, which reads the whole set once; sizes and dtypes are always compared

        Raises
        ------
        ManifestError
            A file is not the one in the manifest, with its name; or the set is not complete.
        OSError
            There is no such folder, or no set in it.
        """
        folder = Path(expanded(directory, "directory")).absolute()
        rows, manifest = opened(folder, verify)
        made = cls.__new__(cls)
        made._adopt(rows, manifest.standardisation)
        made._opened = (folder, verify, [file["sha256"] for file in manifest.files])
        return made

    @classmethod
    def create(
        cls, directory: str | os.PathLike[str], teacher: Teacher, inputs: Array | Iterable[Array],
        weights: Array | Iterable[Array] | None = None, *, rows_per_shard: int = 16384, source: Any = None, standardise: bool = False,
        progress: bool = True, inputs_dtype: DType = "float32", logits_dtype: DType = "float32",
        inputs_range: tuple[float, float] = (0.0, 1.0), top_logits: int | None = None, compress: bool | int = False,
        part: tuple[int, int] | Literal["auto"] | None = None,
    ) -> TransferSet:  # fmt: skip
        """Label inputs shard by shard into a folder, and open it.

        Stopped at any moment, even killed, it goes on behind the last whole shard when it is called again with the same arguments:
        `inputs` gives its rows from the first again, and they are compared with those on disk. The teacher labels up to 16 rows of
        the first and of the last shard again: answers that differ by more than 1 % of the logits' spread are another teacher's.
        Nothing but one shard is in memory.

        With `part`, several processes label the folder together, to the same files as one, for any n. All must agree on the first 16
        rows, and on their logits, before they label. Of an array, worker i reads and labels shards i, i + n, ... first, then what
        others left. An iterable each generates, and labels the next shard that nobody has begun. A worker waits for those that others
        label, takes up what a killed one left, and returns when the set is complete; one that fails leaves whole shards. Whoever comes
        later goes on, with another n or without `part`. Until the set is complete its shards are in the folder `.labelling` in it.

        Parameters
        ----------
        directory : is made if need be; `~` is the home folder
        teacher : its description is kept in the manifest
        inputs : (N, D) array, or an iterable of (n, D) arrays such as `munge(...)`; float32 or float64
        weights : (N,) array of per-row weights of at least 0, or an iterable of (n,) arrays, or None for ones
        rows_per_shard : rows that a stop can lose, and hold in memory
        source : what JSON can hold, a description of the inputs to be kept in the manifest
        standardise : keep the mean and scale of each output in the manifest, for `standardised`
        progress : show a bar where output is a terminal; of several workers the first does
        inputs_dtype : how files keep inputs: "float32", "float16", or "uint8": one of 256 values evenly over `inputs_range`. The teacher
            labels the inputs as they are kept
        logits_dtype : how files keep logits: "float32" or "float16"
        inputs_range : least and greatest input of "uint8"; pixels k / 255 in (0, 1) are kept exactly
        top_logits : K, below C: keep each row's K largest logits with their classes, and one number that all others come back as: the log
            of their mean exponential, so that the K classes have the teacher's probabilities. None keeps all
        compress : write files in gzip's format, at zlib's level 6, or a level from 1 to 9. To be read, they are unpacked into temporary
            files, which take the bytes that uncompressed ones would
        part : (i, n), 0 <= i < n, for worker i of n processes that label the folder together, each called with the same arguments but i;
            "auto" takes them from RANK and WORLD_SIZE, which torchrun sets, and is None where neither is there. None labels alone,
            whatever launched it

        Raises
        ------
        ManifestError
            The folder holds labels of another teacher or of other inputs, in other dtypes, damaged files, or a set of another version.
        BlockingIOError
            Another process labels into the folder; with `part`, one without it, and the other way round.
        ValueError
            NaN or infinity in inputs, weights or logits, with the row, or values that their dtype cannot hold; no rows at all.
        FileExistsError
            The folder holds files of the names that shards get, which are not of the set.
        OSError
            `part` was given, and the system (Windows) or the folder's file system knows no locks.

        Warns
        -----
        UserWarning
            Values of a column fall together as they are kept: it is named, with what to do. So do float64 inputs or logits as float32.
            The logits that `top_logits` leaves out have more than half of the teacher's probability.
        """
        storage = Storage.of(inputs_dtype, logits_dtype, inputs_range, top_logits, compress)
        folder = Path(expanded(directory, "directory"))
        label_into(folder, Asked(teacher), inputs, weights, rows_per_shard, source, standardise, progress, storage, part)
        return cls.open(directory, verify=False)

    def save(
        self, directory: str | os.PathLike[str], *, rows_per_shard: int = 16384, source: Any = None, standardise: bool = False,
        progress: bool = True, inputs_dtype: DType = "float32", logits_dtype: DType = "float32",
        inputs_range: tuple[float, float] = (0.0, 1.0), top_logits: int | None = None, compress: bool | int = False,
        part: tuple[int, int] | Literal["auto"] | None = None,
    ) -> TransferSet:  # fmt: skip
        """Write the set into a folder, in as few bytes as `create` would, and open it there; no teacher is asked.

        Arguments, errors and warnings are those of `create`, and it goes on where it was stopped too. Logits on disk are compared in all
        rows, and exactly: other ones need another folder. The manifest of a set that is from a folder gives the teacher's description.
        Labels and standardisations are not written: a set that has them is refused.
        """
        if self._labels is not None or self._undo is not None:
            kind = "labels" if self._undo is None else "standardised logits"
            raise ValueError(f"save: expected a set of plain logits, as folders hold no others, got one with {kind}")
        storage = Storage.of(inputs_dtype, logits_dtype, inputs_range, top_logits, compress)
        folder = Path(expanded(directory, "directory"))
        teacher = read_manifest(self._opened[0]).teacher if self._opened else {"kind": "logits"}
        inputs = self._rows.slabs("inputs")
        weights = self._rows.slabs("weights") if "weights" in self._rows.kinds else None
        label_into(folder, Recorded(self._rows, teacher), inputs, weights, rows_per_shard, source, standardise, progress, storage, part)
        return TransferSet.open(directory, verify=False)

    def __repr__(self) -> str:
        where = f"in {str(self._opened[0])!r}" if self._opened else "in memory"
        return f"<TransferSet: {len(self)} rows, {self.inputs} inputs -> {self.outputs} outputs, {where}>"

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def inputs(self) -> int:
        """D."""
        return self._rows.inputs

    @property
    def outputs(self) -> int:
        """C."""
        return self._rows.outputs

    def batch(self, indices: ArrayLike) -> tuple[Array, Array | Targets, Array | None]:
        """The rows of those numbers, in that order.

        Parameters
        ----------
        indices : (n,) ints in [0, N); they may repeat

        Returns
        -------
        x (n, D), t (n, C) and weights (n,), or None without weights; float32 copies. With labels (n,) t is `Targets(t, labels)`.
        """
        rows = row_numbers(indices, len(self))
        labels = None if self._labels is None else self._labels[rows]
        x, t, *weights = self._rows.read(rows, self._rows.kinds)
        if self._undo is not None:
            t -= self._undo[0]
            t /= self._undo[1]
        return x, t if labels is None else Targets(t, labels), weights[0] if weights else None

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
            mean, scale = self._moments or moments(self._rows.slabs("logits"))
            if not (np.isfinite(mean).all() and np.isfinite(scale).all()):
                raise ValueError("standardised: expected logits whose mean and deviation are finite, got others")
        dims = _check.Dims(C=self.outputs)
        mean, scale = float32_array(dims, "mean", mean, "C"), float32_array(dims, "scale", scale, "C")
        if not (np.isfinite(mean).all() and np.isfinite(scale).all() and (scale >= TINY).all()):
            raise ValueError(f"scale: expected finite means and scales above 0, {TINY:.2g} and more, got others")
        view = TransferSet.__new__(TransferSet)
        view.__dict__.update(self.__dict__ | {"_moments": None, "_undo": (mean, scale)})
        return Standardised(view, mean, scale)

    def __getstate__(self) -> dict[str, Any]:
        state = {"moments": self._moments, "undo": self._undo, "opened": self._opened, "labels": self._labels}
        return state | ({} if self._opened else {"parts": [packed(part) for part in self._rows.shards[0] if isinstance(part, np.ndarray)]})

    def __setstate__(self, state: dict[str, Any]) -> None:
        if state["opened"] is None:
            self._adopt(StoredRows([[unpacked(part) for part in state["parts"]]]), None)
        else:
            folder, verify, _ = state["opened"]
            self.__dict__.update(TransferSet.open(folder, verify=verify).__dict__)
            if self._opened != state["opened"]:
                raise ManifestError(f"{folder / MANIFEST}: expected the set that was pickled, got another")
        self._moments, self._undo, self._labels = state["moments"], state["undo"], state["labels"]

    def _adopt(self, rows: StoredRows, known: dict[str, list[float]] | None) -> None:
        self._rows = rows
        self._moments = None if known is None else tuple(np.array(known[name], np.float64) for name in ("mean", "scale"))
        self._undo = self._opened = self._labels = None
