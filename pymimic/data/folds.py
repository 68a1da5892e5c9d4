"""Logits for labelled rows from teachers that were not fitted on them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..numerics import warn
from .cases import demand_values
from .classes import classes_of, difference_of
from .names import names_of
from .rounding import warn_of_merged_values
from .teacher import Teacher, demand_teacher, labelled


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
        NaN or infinity in x, with the row.
    TypeError
        Labels of kinds that don't sort.
    """
    dims, given_x = _check.Dims(), x
    wide = dims.array("x", _check.data_array("x", x), "N", "D")
    labels = _check.data_array("labels", labels, floats=False)
    dims.shape("labels", labels.shape, ("N",))
    folds = _check.integer("folds", folds, 2, dims["N"] + 1)
    if not callable(make_teacher):
        raise TypeError(f"make_teacher: expected a function of (x, labels) that returns a teacher, got {type(make_teacher).__name__}")
    fold = _stratified(labels, folds, seed)
    demand_values("x", wide)
    warn_of_merged_values("x", wide)
    x = wide.astype(np.float32, copy=False)
    logits: Array | None = None
    first: list[Any] | None = None  # classes of the first teacher that knows its own
    first_fold = 0
    found: list[str] = []
    for i in range(folds):
        held_out = fold == i
        teacher = make_teacher(x[~held_out], labels[~held_out])
        demand_teacher("make_teacher", teacher, "logits")
        _check.demand_columns("x", given_x, names_of(teacher))
        classes, difference = classes_of(teacher), ""
        if first is None:
            first, first_fold = classes, i
        elif classes is not None:
            difference = difference_of(first, f"fold {first_fold}'s teacher", classes, f"fold {i}'s teacher")
        if difference and len(first or ()) == len(classes or ()):
            raise ValueError(f"make_teacher: expected teachers of the same classes in the same order, got {difference}")
        given = labelled(teacher, x[held_out], found)
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
    for message in found:
        warn(message)
    return logits


def _stratified(labels: Array, folds: int, seed: int) -> Array:
    """The fold of each row: each class's rows, in random order, are dealt out in turn."""
    rng = np.random.default_rng(np.random.SeedSequence(_check.integer("seed", seed, 0, 1 << 64)))
    order = rng.permutation(len(labels))
    try:
        order = order[np.argsort(labels[order], kind="stable")]
    except TypeError as error:
        raise TypeError(f"labels: expected values that sort, got some that don't: {error}") from None
    fold = np.empty(len(labels), np.int64)
    fold[order] = np.arange(len(labels)) % folds
    return fold
