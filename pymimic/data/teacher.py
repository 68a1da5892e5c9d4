"""Teachers: whatever gives logits for rows. Nets of our own are in `nets` and `training`."""

from __future__ import annotations

import copy
import functools
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..numerics import less_row_means, warn
from .answers import on_host
from .cases import demand_values
from .classes import classes_of, difference_of, distinct
from .names import common_names, names_of
from .rounding import merged_logits


class Teacher(Protocol):
    """What labels a transfer set.

    A teacher may have an attribute `classes` besides: the labels that its columns stand for, in that order. `Ensemble` and `out_of_fold`
    compare those of the teachers that have it, and `MimicClassifier` orders the columns by them. The rows that the library gives a
    teacher are copies, which it may change. Another attribute may be `feature_names_in_`, the names of the columns that it was fitted on:
    DataFrames must have these columns in that order.
    """

    def logits(self, x: Array) -> Array:
        """Logits (B, C) float32 of rows x (B, D) float32: log p up to a constant for each row."""
        ...

    def describe(self) -> dict[str, Any]:
        """What JSON can hold and tells this teacher from others, alike in every process: it is kept in the transfer set's manifest."""
        ...


class _Unrounded(ABC):
    """A teacher that can give its logits as they were computed, before they are float32."""

    @abstractmethod
    def unrounded(self, x: Array) -> Array:
        """Logits (B, C) float32 or wider of rows x (B, D)."""

    def logits(self, x: Array) -> Array:
        """Logits (B, C) float32 of rows x (B, D)."""
        with np.errstate(over="ignore"):  # whoever asks refuses values that become infinite
            return self.unrounded(x).astype(np.float32)


class Ensemble(_Unrounded):
    """The mean of its members' logits (Ba & Caruana 2014, section 3.1: it teaches better than one of them).

    Parameters
    ----------
    members : teachers with the same outputs, at least one

    Raises
    ------
    ValueError
        No members, or members whose classes differ, or are in another order; the message names those that are missing. Members that
        were fitted on columns of other names, or in another order.
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        self.members: list[Teacher] = _check.sequence("members", members, "teachers")
        if not self.members:
            raise ValueError("members: expected at least one teacher, got none")
        for member in self.members:
            demand_teacher("members", member, "logits")
        self.classes: list[Any] | None = None
        first = 0
        for i, member in enumerate(self.members):
            if (classes := classes_of(member)) is not None and self.classes is None:
                self.classes, first = classes, i
            elif classes is not None and (difference := difference_of(self.classes, f"member {first}", classes, f"member {i}")):
                raise ValueError(f"members: expected teachers of the same classes in the same order, got {difference}")
        self.feature_names_in_ = common_names(self.members)

    def unrounded(self, x: Array) -> Array:
        """Mean logits (B, C) float64 of rows x (B, D)."""
        total = _asked(self.members[0], x).astype(np.float64)
        for member in self.members[1:]:
            logits = _asked(member, x)
            if logits.shape != total.shape:
                raise ValueError(f"members: expected logits of one shape, got {total.shape} and {logits.shape}")
            with np.errstate(over="ignore"):  # whoever asks refuses values that become infinite
                total += logits
        return total / len(self.members)

    def describe(self) -> dict[str, Any]:
        """The members' descriptions."""
        return {"kind": "ensemble", "members": [member.describe() for member in self.members]}


def from_callable(function: Callable[[Array], Any], description: str | None = None, classes: Sequence[Any] | None = None) -> Teacher:
    """A teacher from any function of rows.

    Parameters
    ----------
    function : takes x (B, D) float32, a copy, and returns logits (B, C): what NumPy turns into an array of numbers, or a tensor of torch
        on any device
    description : what to call it in manifests; None takes the function's qualified name. Give one that tells trained nets apart.
    classes : the labels that the columns stand for, where `Ensemble` and `out_of_fold` shall compare them

    The teacher can be pickled if the function can, which lambdas cannot.
    """
    if not callable(function):
        raise TypeError(f"function: expected a callable, got {type(function).__name__}")
    if description is not None and not isinstance(description, str):
        raise TypeError(f"description: expected a str or None, got {type(description).__name__}")
    inner: Any = function
    while isinstance(inner, functools.partial):
        inner = inner.func
    name = getattr(inner, "__qualname__", type(inner).__qualname__) if description is None else description
    return FunctionTeacher(function, name, {"kind": "callable", "name": name}, None if classes is None else distinct(classes))


def centred(teacher: Teacher) -> Teacher:
    """The teacher's logits less their mean over each row, which no softmax sees: the student need not learn it.

    Logits of `from_sklearn` are so already. A student trained by squared error gains where the teacher is a net. A teacher with one output,
    as of a regression, is refused when it is asked: less its own mean it would be 0 for every row.
    """
    demand_teacher("teacher", teacher, "logits", "describe")
    return _Centred(teacher)


def ordered(teacher: Teacher, classes: list[Any]) -> Teacher:
    """The teacher with its columns in the order of `classes`, which are its own; itself where they stand so, or where it knows none."""
    known = classes_of(teacher)
    return teacher if known is None or known == classes else _Ordered(teacher, [known.index(value) for value in classes], classes)


def label(teacher: Teacher, x: Array, *, rows: int = 16384, workers: int = 1, first_row: int = 0) -> Array:
    """The teacher's logits (N, C) float32 for x, demanded to be finite.

    The teacher gets copies, which it may change, of some rows at a time: what it needs memory for stays small. Its answers are copied.

    Parameters
    ----------
    teacher : has `logits`
    x : (N, D) float32 or float64 array of values that are finite as float32, which the teacher gets
    rows : that the teacher gets at a time
    workers : threads that ask the teacher at once, if it can bear that: some of scikit-learn's use one core each
    first_row : the number of x's first row in messages

    Raises
    ------
    TypeError, ValueError
        The teacher gives something else than finite floats (B, C); the message names it, and the row. Wrong kinds, NaN or infinity in x.

    Warns
    -----
    UserWarning
        The teacher is a net of pymimic's that was neither fitted nor loaded. Many float64 logits of a column are one as float32: see
        `centred`, which subtracts before they are float32.
    """
    found: list[str] = []
    logits = labelled(teacher, x, found, rows, workers, first_row)
    for message in found:
        warn(message)
    return logits


def labelled(teacher: Teacher, x: Array, found: list[str], rows: int = 16384, workers: int = 1, first_row: int = 0) -> Array:
    """As `label`; in place of a warning its message goes to `found`, if there is none yet."""
    demand_teacher("teacher", teacher, "logits")
    rows, workers = _check.integer("rows", rows, 1, 1 << 62), _check.integer("workers", workers, 1, 1 << 16)
    x = _check.data_array("x", x, columns=names_of(teacher))
    _check.float_dtype("x", x)
    _check.Dims().shape("x", x.shape, ("N", "D"))
    demand_values("x", x, first_row)

    def rounded(logits: Array, row: int) -> Array:
        if not found and (message := merged_logits(logits)):
            found.append(message)
        with np.errstate(over="ignore"):  # values that become infinite are refused next
            narrow: Array = logits.astype(np.float32, copy=False)
        _check.finite("logits", narrow, row)
        return narrow

    return _asked(teacher, x, rows, workers, first_row, rounded)


def _asked(
    teacher: Teacher, x: Array, rows: int = 16384, workers: int = 1, first_row: int = 0,
    rounded: Callable[[Array, int], Array] = lambda logits, row: logits,
) -> Array:  # fmt: skip
    """The teacher's logits for x, some rows at a time, unrounded where it can give them so; what `rounded` makes of those."""
    if getattr(teacher, "fresh", False) is True:
        warn(f"teacher: expected a net that has learned, got a {type(teacher).__name__} with its first, random weights: fit or load it")
    starts = range(0, max(1, len(x)), rows)

    def ask(start: int) -> Array:
        logits = _ask(teacher, x if len(starts) == 1 else x[start : start + rows], first_row + start)
        return rounded(logits, first_row + start)

    if workers == 1:
        parts = [ask(start) for start in starts]
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(ask, starts))
    if columns := [part.shape[1] for part in parts if part.shape[1] != parts[0].shape[1]]:
        raise ValueError(f"logits: expected {parts[0].shape[1]} columns from the teacher, got {columns[0]}")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _ask(teacher: Teacher, x: Array, first_row: int) -> Array:
    """The teacher's logits for a copy of x, which it may change; in memory that is not the teacher's, which it may use again."""
    name = _name(teacher)
    given = teacher.unrounded(_copy(x)) if isinstance(teacher, _Unrounded) else teacher.logits(_copy(x))
    logits = on_host("logits", given, name)
    if logits.dtype.kind != "f":
        raise TypeError(f"logits: expected floats from the teacher, got {logits.dtype} from {name}")
    _demand_shape(logits, len(x), classes_of(teacher), name)
    logits = np.array(logits, np.result_type(logits.dtype, np.float32), order="C")
    _check.finite("logits", logits, first_row)
    return logits


def _name(teacher: Teacher) -> str:
    return repr(teacher.name) if isinstance(teacher, FunctionTeacher) else type(teacher).__qualname__


def demand_teacher(name: str, value: object, *methods: str) -> None:
    """Demand an object with those methods of a teacher."""
    if not all(callable(getattr(value, method, None)) for method in methods):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{name}: expected a teacher, which has logits(x) and describe(), got {kind}: see from_callable and from_sklearn")


def _copy(x: Any) -> Any:
    """Rows that a teacher may change."""
    if not isinstance(x, np.ndarray):
        return copy.deepcopy(x)
    return _check.host_array("x", x).astype(np.float32 if x.dtype == np.float64 else x.dtype)


def _demand_shape(logits: Array, rows: int, classes: list[Any] | None, teacher: str) -> None:
    """Demand (B, C), with one column a class where the classes are known."""
    if logits.ndim != 2 or len(logits) != rows or (classes is not None and logits.shape[1] != len(classes)):
        columns = "C" if classes is None else len(classes)
        raise ValueError(f"logits: expected shape ({rows}, {columns}) from the teacher, got {logits.shape} from {teacher}")


class _Centred(_Unrounded):
    """A teacher whose rows of logits have mean 0."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self.classes, self.feature_names_in_ = teacher, classes_of(teacher), names_of(teacher)

    def unrounded(self, x: Array) -> Array:
        """The teacher's logits (B, C), less their mean over each row, in the dtype of the teacher's."""
        logits = _asked(self._teacher, x)
        if logits.shape[1] == 1:
            wanted = "teacher: expected at least two outputs, as one has nothing to be centred against"
            raise ValueError(f"{wanted}, got one from {_name(self._teacher)}: label by the teacher itself")
        with np.errstate(over="ignore", invalid="ignore"):  # whoever asks refuses values that are not finite
            return less_row_means(logits)

    def describe(self) -> dict[str, Any]:
        """Whose logits are centred."""
        return {"kind": "centred", "of": self._teacher.describe()}


class _Ordered(_Unrounded):
    """A teacher whose columns are put in another order."""

    def __init__(self, teacher: Teacher, columns: list[int], classes: list[Any]) -> None:
        self._teacher, self._columns, self.classes, self.feature_names_in_ = teacher, columns, classes, names_of(teacher)

    def unrounded(self, x: Array) -> Array:
        """The teacher's logits (B, C), in the dtype of the teacher's."""
        return _asked(self._teacher, x)[:, self._columns]

    def describe(self) -> dict[str, Any]:
        """Whose columns they are, and in what order."""
        return {"kind": "ordered", "columns": self._columns, "of": self._teacher.describe()}


class FunctionTeacher(_Unrounded):
    """A function with a description."""

    def __init__(
        self, function: Callable[[Array], Any], name: str, description: dict[str, Any], classes: list[Any] | None,
        names: list[str] | None = None,
    ) -> None:  # fmt: skip
        self._function, self.name, self._description, self.classes, self.feature_names_in_ = function, name, description, classes, names

    def unrounded(self, x: Array) -> Array:
        """What the function says of x, or of a copy that it may change, as floats."""
        logits = on_host("logits", self._function(_copy(x)), repr(self.name))
        _demand_shape(logits, len(x), self.classes, repr(self.name))
        return logits.astype(np.result_type(logits.dtype, np.float32))  # a copy: the function may use its memory again

    def describe(self) -> dict[str, Any]:
        """Where the function is from."""
        return self._description
