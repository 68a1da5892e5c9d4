"""Teachers: whatever gives logits for rows. Nets of our own are in `nets` and `training`."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from .. import _check
from ..backends.interface import Array
from . import fingerprint
from .answers import on_host
from .classifier import LogProbabilities


class Teacher(Protocol):
    """What labels a transfer set.

    A teacher may have an attribute `classes` besides: the labels that its columns stand for, in that order. `Ensemble` and `out_of_fold`
    compare those of the teachers that have it. The rows that the library gives a teacher are copies, which it may change.
    """

    def logits(self, x: Array) -> Array:
        """Logits (B, C) float32 of rows x (B, D) float32: log p up to a constant for each row."""
        ...

    def describe(self) -> dict[str, Any]:
        """What JSON can hold and tells this teacher from others, alike in every process: it is kept in the transfer set's manifest."""
        ...


class Ensemble:
    """The mean of its members' logits (Ba & Caruana 2014, section 3.1: it teaches better than one of them).

    Parameters
    ----------
    members : teachers with the same outputs, at least one

    Raises
    ------
    ValueError
        No members, or members whose classes differ, or are in another order; the message names those that are missing.
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

    def logits(self, x: Array) -> Array:
        """Mean logits (B, C) float32 of rows x (B, D)."""
        total = label(self.members[0], x).astype(np.float64)
        for member in self.members[1:]:
            logits = label(member, x)
            if logits.shape != total.shape:
                raise ValueError(f"members: expected logits of one shape, got {total.shape} and {logits.shape}")
            total += logits
        return (total / len(self.members)).astype(np.float32)

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
    return _Function(function, name, {"kind": "callable", "name": name}, None if classes is None else _distinct(classes))


def from_sklearn(estimator: Any, floor: float = 0.01, classes: Sequence[Any] | None = None) -> Teacher:
    """A teacher from a fitted scikit-learn classifier: log(predict_proba(x) + floor), less its mean over each row.

    The floor bounds the logits from below: a forest says 0 where a student can only say very little. The description has the estimator's
    parameters and a digest of all that it learned, so that two fits can be told apart.

    Parameters
    ----------
    estimator : has `predict_proba` and `classes_`
    floor : above 0, added to each probability
    classes : labels in the order of the logits' columns; None takes `estimator.classes_`. A class that the
        estimator has never seen gets probability 0. Pass it where folds may lack a class, see `out_of_fold`.

    Raises
    ------
    TypeError
        No `predict_proba`, or no `classes_`: not a classifier, or not a fitted one.
    ValueError
        floor is not above 0, or the estimator knows a class that is not in `classes`. When it labels: `predict_proba` returns another shape
        than (B, len(classes_)), or rows that are no probabilities.
    """
    if isinstance(estimator, type) or not hasattr(estimator, "predict_proba") or not hasattr(estimator, "classes_"):
        raise TypeError(f"estimator: expected a fitted classifier with predict_proba, got {_unsuited(estimator)}")
    _check.number("floor", floor, above=0)
    if not isinstance(estimator.classes_, np.ndarray):
        raise TypeError("estimator: expected a classifier with one output, got one with several")
    known = estimator.classes_.tolist()
    columns = known if classes is None else _distinct(classes)
    unknown = [value for value in known if value not in columns]
    if unknown:
        raise ValueError(f"classes: expected all that the estimator knows, got none of {unknown}")
    name = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    described = {
        "kind": "sklearn",
        "class": name,
        "parameters": {key: fingerprint.text(value) for key, value in parameters.items() if key not in fingerprint.UNIMPORTANT},
        "floor": float(floor),
        "outputs": len(columns),
        "classes": [fingerprint.text(value) for value in columns],
        "learned": fingerprint.digest(estimator),
    }
    return _Function(LogProbabilities(estimator, float(floor), known, columns), name, described, columns)


def centred(teacher: Teacher) -> Teacher:
    """The teacher's logits less their mean over each row, which no softmax sees: the student need not learn it.

    Logits of `from_sklearn` are so already. A student trained by squared error gains where the teacher is a net.
    """
    demand_teacher("teacher", teacher, "logits", "describe")
    return _Centred(teacher)


def label(teacher: Teacher, x: Array, *, rows: int = 16384, workers: int = 1, first_row: int = 0) -> Array:
    """The teacher's logits (N, C) float32 for x, demanded to be finite.

    The teacher gets copies, which it may change, of some rows at a time: what it needs memory for stays small.

    Parameters
    ----------
    teacher : has `logits`
    x : (N, D) float32 or float64 array; the teacher gets float32
    rows : that the teacher gets at a time
    workers : threads that ask the teacher at once, if it can bear that: some of scikit-learn's use one core each
    first_row : the number of x's first row in messages

    Raises
    ------
    TypeError, ValueError
        The teacher gives something else than finite floats (B, C); the message names it, and the row.
    """
    demand_teacher("teacher", teacher, "logits")
    _check.integer("rows", rows, 1, 1 << 62)
    _check.integer("workers", workers, 1, 1 << 16)
    starts = range(0, max(1, len(x)), rows)

    def ask(start: int) -> Array:
        return _ask(teacher, x if len(starts) == 1 else x[start : start + rows], first_row + start)

    if workers == 1:
        parts = [ask(start) for start in starts]
    else:
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(ask, starts))
    if columns := [part.shape[1] for part in parts if part.shape[1] != parts[0].shape[1]]:
        raise ValueError(f"logits: expected {parts[0].shape[1]} columns from the teacher, got {columns[0]}")
    return parts[0] if len(parts) == 1 else np.concatenate(parts)


def _ask(teacher: Teacher, x: Array, first_row: int) -> Array:
    """The teacher's logits for a copy of x, so that it cannot change it."""
    name = repr(teacher.name) if isinstance(teacher, _Function) else type(teacher).__qualname__
    logits = on_host("logits", teacher.logits(_copy(x)), name)
    if logits.dtype.kind != "f":
        raise TypeError(f"logits: expected floats from the teacher, got {logits.dtype} from {name}")
    _demand_shape(logits, len(x), classes_of(teacher), name)
    with np.errstate(over="ignore"):  # values that become infinite are refused next
        logits = logits.astype(np.float32, copy=False)
    _check.finite("logits", logits, first_row)
    return logits


def demand_teacher(name: str, value: object, *methods: str) -> None:
    """Demand an object with those methods of a teacher."""
    if not all(callable(getattr(value, method, None)) for method in methods):
        kind = f"{type(value).__module__}.{type(value).__qualname__}"
        raise TypeError(f"{name}: expected a teacher, which has logits(x) and describe(), got {kind}: see from_callable and from_sklearn")


def _unsuited(estimator: Any) -> str:
    """What it is, and what it takes to make a teacher of it."""
    if isinstance(estimator, type):
        return f"the class {estimator.__name__}: make one and fit it, {estimator.__name__}().fit(x, labels)"
    name = type(estimator).__name__
    if hasattr(estimator, "predict_proba"):
        return f"one that is not fitted: call {name}.fit(x, labels) first" if hasattr(estimator, "fit") else f"{name} without classes_"
    if hasattr(estimator, "decision_function"):
        return f"{name} with decision_function alone: calibrate it (CalibratedClassifierCV), or use from_callable on that function"
    return name


def classes_of(teacher: Teacher) -> list[Any] | None:
    """The labels that a teacher's columns stand for, if it knows them."""
    classes = getattr(teacher, "classes", None)
    return None if classes is None else [value.item() if isinstance(value, np.generic) else value for value in classes]


def difference_of(a: list[Any] | None, whose_a: str, b: list[Any], whose_b: str) -> str:
    """In what two lists of classes differ, in words; nothing where they are the same."""
    lacking = [
        f"{whose} lacks {missing}"
        for whose, missing in (
            (whose_a, [value for value in b if value not in (a or [])]),
            (whose_b, [value for value in a or [] if value not in b]),
        )
        if missing
    ]
    return " and ".join(lacking) or ("" if a == b else f"{whose_a} has {a} and {whose_b} has {b}")


def _distinct(classes: Sequence[Any]) -> list[Any]:
    """Demand labels of which none stands twice, and give those of NumPy as Python's."""
    given = classes if isinstance(classes, str) else _check.sequence("classes", classes, "labels")
    values = [value.item() if isinstance(value, np.generic) else value for value in given]
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise ValueError(f"classes: expected each class once, got {twice} again")
    return values


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


class _Centred:
    """A teacher whose rows of logits have mean 0."""

    def __init__(self, teacher: Teacher) -> None:
        self._teacher, self.classes = teacher, classes_of(teacher)

    def logits(self, x: Array) -> Array:
        """The teacher's logits (B, C) float32, less their mean over each row."""
        logits = label(self._teacher, x)
        return np.asarray(logits - logits.mean(axis=1, keepdims=True))

    def describe(self) -> dict[str, Any]:
        """Whose logits are centred."""
        return {"kind": "centred", "of": self._teacher.describe()}


class _Function:
    """A function with a description."""

    def __init__(self, function: Callable[[Array], Any], name: str, description: dict[str, Any], classes: list[Any] | None) -> None:
        self._function, self.name, self._description, self.classes = function, name, description, classes

    def logits(self, x: Array) -> Array:
        """What the function says of x, or of a copy that it may change, as float32."""
        logits = on_host("logits", self._function(_copy(x)), repr(self.name))
        _demand_shape(logits, len(x), self.classes, repr(self.name))
        with np.errstate(over="ignore"):
            return logits.astype(np.float32)  # a copy: the function may use its memory again

    def describe(self) -> dict[str, Any]:
        """Where the function is from."""
        return self._description
