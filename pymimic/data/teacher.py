"""Teachers: whatever gives logits for rows. Deep nets of our own are in `deepnet`."""

from __future__ import annotations

import copy
import functools
import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .. import _check
from ..backends.interface import Array
from . import fingerprint
from .answers import on_host
from .classifier import LogProbabilities
from .rounding import warn_of_merged_values


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
        self.members = list(members)
        if not self.members:
            raise ValueError("members: expected at least one teacher, got none")
        for member in self.members:
            demand_teacher("members", member, "logits")
        self.classes: list[Any] | None = None
        first = 0
        for i, member in enumerate(self.members):
            if (classes := classes_of(member)) is not None and self.classes is None:
                self.classes, first = classes, i
            elif classes is not None and (difference := _difference(self.classes, f"member {first}", classes, f"member {i}")):
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
    if not 0 < floor < np.inf:
        raise ValueError(f"floor: expected a number above 0, got {floor}")
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


def out_of_fold(make_teacher: Callable[[Array, Array], Teacher], x: Array, labels: Array, folds: int = 5, seed: int = 0) -> Array:
    """Logits (N, C) float32 for labelled rows, each row's from a teacher that was not fitted on it.

    A teacher has overfitted the rows that it was fitted on, and its logits there say little. The rows are split into stratified
    folds at random; for each fold a teacher is fitted on the others.

    Parameters
    ----------
    make_teacher : takes x (n, D) and labels (n,), and returns a fitted teacher, for instance
        `lambda x, y: from_sklearn(ExtraTreesClassifier().fit(x, y), classes=range(26))`
    x : (N, D) float32 or float64 array
    labels : (N,) array of any dtype that sorts
    folds : in [2, N]
    seed : of the split

    Raises
    ------
    ValueError
        The folds' teachers differ in their classes, or in their number of outputs, as they do when a class is rarer than 2 rows and the
        teacher counts only those that it saw: give `from_sklearn` its `classes`. The message names the fold and what it lacks.
    """
    dims = _check.Dims()
    wide = dims.array("x", x, "N", "D")
    labels = _check.host_array("labels", labels)
    dims.shape("labels", labels.shape, ("N",))
    _check.integer("folds", folds, 2, dims["N"] + 1)
    if not callable(make_teacher):
        raise TypeError(f"make_teacher: expected a function of (x, labels) that returns a teacher, got {type(make_teacher).__name__}")
    fold = _stratified(labels, folds, seed)
    warn_of_merged_values("x", wide, 2)
    x = wide.astype(np.float32, copy=False)
    logits: Array | None = None
    first: list[Any] | None = None  # classes of the first teacher that knows its own
    first_fold = 0
    for i in range(folds):
        held_out = fold == i
        teacher = make_teacher(x[~held_out], labels[~held_out])
        demand_teacher("make_teacher", teacher, "logits")
        classes, difference = classes_of(teacher), ""
        if first is None:
            first, first_fold = classes, i
        elif classes is not None:
            difference = _difference(first, f"fold {first_fold}'s teacher", classes, f"fold {i}'s teacher")
        if difference and len(first or ()) == len(classes or ()):
            raise ValueError(f"make_teacher: expected teachers of the same classes in the same order, got {difference}")
        given = label(teacher, x[held_out])
        if logits is None:
            logits = np.empty((dims["N"], given.shape[1]), np.float32)
        if given.shape[1] != logits.shape[1]:
            raise ValueError(
                f"make_teacher: expected teachers with {logits.shape[1]} outputs as the first has, got {given.shape[1]} "
                f"in fold {i}, whose training rows have {len(np.unique(labels[~held_out]))} of {len(np.unique(labels))} classes"
                f"{'; ' * bool(difference)}{difference}"
            )
        logits[held_out] = given
    assert logits is not None
    return logits


def label(teacher: Teacher, x: Array, first_row: int = 0) -> Array:
    """The teacher's logits for x, demanded to be finite and (B, C), as float32; `first_row` is x's place in messages.

    The teacher gets a copy of x, so that it cannot change it.
    """
    name = repr(teacher.name) if isinstance(teacher, _Function) else type(teacher).__qualname__
    logits = on_host("logits", teacher.logits(_copy(x)), name)
    if logits.dtype.kind != "f":
        raise TypeError(f"logits: expected floats from the teacher, got {logits.dtype} from {name}")
    _demand_shape(logits, len(x), classes_of(teacher), name)
    with np.errstate(over="ignore"):  # infinity is found next
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


def _difference(a: list[Any] | None, whose_a: str, b: list[Any], whose_b: str) -> str:
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
    values = [value.item() if isinstance(value, np.generic) else value for value in classes]
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise ValueError(f"classes: expected each class once, got {twice} again")
    return values


def _copy(x: Any) -> Any:
    """Rows that a teacher may change."""
    return _check.host_array("x", x).copy() if isinstance(x, np.ndarray) else copy.deepcopy(x)


def _demand_shape(logits: Array, rows: int, classes: list[Any] | None, teacher: str) -> None:
    """Demand (B, C), with one column a class where the classes are known."""
    if logits.ndim != 2 or len(logits) != rows or (classes is not None and logits.shape[1] != len(classes)):
        columns = "C" if classes is None else len(classes)
        raise ValueError(f"logits: expected shape ({rows}, {columns}) from the teacher, got {logits.shape} from {teacher}")


def _stratified(labels: Array, folds: int, seed: int) -> Array:
    """The fold of each row: each class's rows, in random order, are dealt out in turn."""
    rng = np.random.default_rng(np.random.SeedSequence(_check.integer("seed", seed, 0, 1 << 64)))
    order = rng.permutation(len(labels))
    order = order[np.argsort(labels[order], kind="stable")]
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold


class _Function:
    """A function with a description."""

    def __init__(self, function: Callable[[Array], Any], name: str, description: dict[str, Any], classes: list[Any] | None) -> None:
        self._function, self.name, self._description, self.classes = function, name, description, classes
        json.dumps(description)  # a description that JSON cannot hold is found here, not after labelling

    def logits(self, x: Array) -> Array:
        """What the function says of x, or of a copy that it may change, as float32."""
        logits = on_host("logits", self._function(_copy(x)), repr(self.name))
        _demand_shape(logits, len(x), self.classes, repr(self.name))
        with np.errstate(over="ignore"):
            return logits.astype(np.float32)  # a copy: the function may use its memory again

    def describe(self) -> dict[str, Any]:
        """Where the function is from."""
        return self._description
