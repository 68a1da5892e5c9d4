"""Teachers: whatever gives logits for rows. Deep nets of our own are in `deepnet`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from .. import _check
from ..backends.interface import Array


class Teacher(Protocol):
    """What labels a transfer set."""

    def logits(self, x: Array) -> Array:
        """Logits (B, C) float32 of rows x (B, D) float32: log p up to a constant for each row."""
        ...

    def describe(self) -> dict[str, Any]:
        """What JSON can hold and tells this teacher from others: it is kept in the transfer set's manifest."""
        ...


class Ensemble:
    """The mean of its members' logits (Ba & Caruana 2014, section 3.1: it teaches better than one of them).

    Parameters
    ----------
    members : teachers with the same outputs, at least one
    """

    def __init__(self, members: Sequence[Teacher]) -> None:
        self.members = list(members)
        if not self.members:
            raise ValueError("members: expected at least one teacher, got none")

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


def from_callable(function: Callable[[Array], Any], description: str | None = None) -> Teacher:
    """A teacher from any function of rows.

    Parameters
    ----------
    function : takes x (B, D) float32 and returns logits (B, C), anything that NumPy turns into a float array
    description : what to call it in manifests; None takes the function's qualified name
    """
    if not callable(function):
        raise TypeError(f"function: expected a callable, got {type(function).__name__}")
    named = getattr(function, "__qualname__", type(function).__qualname__)
    return _Function(function, {"kind": "callable", "name": named if description is None else description})


def from_sklearn(estimator: Any, floor: float = 0.01, classes: Sequence[Any] | None = None) -> Teacher:
    """A teacher from a fitted scikit-learn classifier: log(predict_proba(x) + floor), less its mean over each row.

    The floor bounds the logits from below: a forest says 0 where a student can only say very little.

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
        floor is not above 0, or the estimator knows a class that is not in `classes`.
    """
    if not hasattr(estimator, "predict_proba") or not hasattr(estimator, "classes_"):
        raise TypeError(f"estimator: expected a fitted classifier with predict_proba, got {type(estimator).__name__}")
    if not 0 < floor < np.inf:
        raise ValueError(f"floor: expected a number above 0, got {floor}")
    if not isinstance(estimator.classes_, np.ndarray):
        raise TypeError("estimator: expected a classifier with one output, got one with several")
    known = estimator.classes_.tolist()
    columns = known if classes is None else list(classes)
    unknown = [value for value in known if value not in columns]
    if unknown:
        raise ValueError(f"classes: expected all that the estimator knows, got none of {unknown}")
    name = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    parameters = {key: repr(value) for key, value in estimator.get_params().items()} if hasattr(estimator, "get_params") else {}
    described = {"kind": "sklearn", "class": name, "parameters": parameters, "floor": float(floor), "outputs": len(columns)}
    positions = [columns.index(value) for value in known]

    def logits(x: Array) -> Array:
        probability = np.zeros((len(x), len(columns)))
        probability[:, positions] = estimator.predict_proba(x)
        log_p: Array = np.log(probability + floor)
        log_p -= log_p.mean(axis=1, keepdims=True)
        return log_p

    return _Function(logits, described)


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
        The folds' teachers differ in their number of outputs, as they do when a class is rarer than 2 rows and the
        teacher counts only those that it saw: give `from_sklearn` its `classes`.
    """
    dims = _check.Dims()
    x, labels = dims.array("x", x, "N", "D").astype(np.float32, copy=False), _check.host_array("labels", labels)
    dims.shape("labels", labels.shape, ("N",))
    _check.integer("folds", folds, 2, dims["N"] + 1)
    fold = _stratified(labels, folds, seed)
    logits: Array | None = None
    for i in range(folds):
        held_out = fold == i
        given = label(make_teacher(x[~held_out], labels[~held_out]), x[held_out])
        if logits is None:
            logits = np.empty((dims["N"], given.shape[1]), np.float32)
        if given.shape[1] != logits.shape[1]:
            raise ValueError(
                f"make_teacher: expected teachers with {logits.shape[1]} outputs as the first has, got {given.shape[1]} "
                f"in fold {i}, whose training rows have {len(np.unique(labels[~held_out]))} of {len(np.unique(labels))} classes"
            )
        logits[held_out] = given
    assert logits is not None
    return logits


def label(teacher: Teacher, x: Array, first_row: int = 0) -> Array:
    """The teacher's logits for x, demanded to be finite and (B, C), as float32; `first_row` is x's place in messages."""
    logits = np.asarray(teacher.logits(x))
    if logits.dtype.kind != "f":
        raise TypeError(f"logits: expected floats from the teacher, got {logits.dtype}")
    if logits.ndim != 2 or len(logits) != len(x):
        raise ValueError(f"logits: expected shape ({len(x)}, C) from the teacher, got {logits.shape}")
    logits = logits.astype(np.float32, copy=False)
    _check.finite("logits", logits, first_row)
    return logits


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

    def __init__(self, function: Callable[[Array], Any], description: dict[str, Any]) -> None:
        self._function = function
        self._description = description
        json.dumps(description)  # a description that JSON cannot hold is found here, not after labelling

    def logits(self, x: Array) -> Array:
        """What the function says of x, as float32."""
        return np.asarray(self._function(x), np.float32)

    def describe(self) -> dict[str, Any]:
        """Where the function is from."""
        return self._description
