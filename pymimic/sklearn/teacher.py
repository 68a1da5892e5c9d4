"""The teacher of a mimic: fitted already, or fitted here, and then its logits for labelled rows come out of fold."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from sklearn import get_config
from sklearn.base import clone
from sklearn.utils.validation import has_fit_parameter

from .. import _check
from ..backends.interface import Array
from ..data.classes import classes_of, difference_of
from ..data.classifier import from_sklearn
from ..data.folds import out_of_fold
from ..data.names import names_of, with_names
from ..data.regressor import is_fitted, is_regressor
from ..data.teacher import Teacher, centred, label, ordered
from .rows import Rows


class Taught(NamedTuple):
    """A teacher and what it says."""

    fitted: Any  # what the user knows: an estimator, or a teacher of pymimic's
    teacher: Teacher
    own: Array  # (n, C) float32 logits of the labelled rows


class Lesson(NamedTuple):
    """What it takes to ask a teacher about labelled rows. It is fitted on the rows as the user gave them, and asked about merged ones."""

    rows: Rows  # merged
    x: Array  # (N, D) float32, the user's
    labels: Array  # the user's, (N,) or (N, C)
    weights: Array | None  # (N,) above 0, if the user gave some
    numbers: Array  # (N,) ints: which of the merged rows each is
    classes: list[Any] | None  # of the columns; None for a regressor's
    names: Any  # of the columns of x, or None
    floor: float
    folds: int
    seed: int

    def ask(self, teacher: Any) -> Taught:
        """A fitted teacher says its logits; one that is not is cloned and fitted, and says them of rows that it has not seen."""
        self._demand(teacher)
        if _has_learned(teacher):
            made = self._as_teacher(teacher)
            return Taught(teacher, made, self._labelled(made))
        random = np.random.RandomState(self.seed)
        seed = {name: random.randint(1 << 31) for name, value in sorted(teacher.get_params().items()) if _unset(name, value)}

        def fit(numbers: Array) -> Any:
            return self._fitted(clone(teacher).set_params(**seed), numbers)

        fitted = fit(np.arange(len(self.x)))
        self._demand_kind(fitted)  # which an estimator may not show before
        made = self._as_teacher(fitted)
        return Taught(fitted, made, self._out_of_fold(lambda numbers: self._as_teacher(fit(numbers)), made))

    def _out_of_fold(self, make: Callable[[Array], Teacher], of_all: Teacher) -> Array:
        """Logits of each row by a teacher of the other folds, which are stratified: rows are numbered along their labels."""
        x, y = self.rows.x, self.rows.y
        if len(x) < 2:
            return self._labelled(of_all)
        order = np.random.default_rng(self.seed).permutation(len(x))
        order = order[np.argsort(y.reshape(len(y), -1)[order, 0], kind="stable")]
        rank = np.empty(len(x), np.int64)
        rank[order] = np.arange(len(x))
        return out_of_fold(lambda _, ranks: make(self._given(order[ranks])), x, rank, min(self.folds, len(x)))

    def _given(self, merged: Array) -> Array:
        """Numbers of the user's rows that became these merged ones, in the user's order."""
        chosen = np.zeros(len(self.rows.x), bool)
        chosen[merged] = True
        return np.flatnonzero(chosen[self.numbers])

    def _fitted(self, estimator: Any, chosen: Array) -> Any:
        x, y = with_names(self.names, self.x[chosen]), self.labels[chosen]
        if self.weights is not None and _takes_weights(estimator):
            return estimator.fit(x, y, sample_weight=self.weights[chosen])
        if self.weights is not None and (self.weights != 1).any():
            raise ValueError(f"sample_weight: expected a teacher whose fit takes it, or None, got weights and {type(estimator).__name__}")
        return estimator.fit(x, y)

    def _as_teacher(self, fitted: Any) -> Teacher:
        if is_teacher(fitted):
            return fitted if self.classes is None else centred(ordered(fitted, self.classes))
        return from_sklearn(fitted, self.floor, self.classes)

    def _labelled(self, teacher: Teacher) -> Array:
        logits = label(teacher, self.rows.x)
        columns = self.rows.y.reshape(len(self.rows.y), -1).shape[1] if self.classes is None else len(self.classes)
        if logits.shape[1] != columns:
            raise ValueError(f"teacher: expected {columns} outputs, as y has, got {logits.shape[1]}")
        return logits

    def _demand(self, teacher: Any) -> None:
        """Demand a teacher for these rows, before it is fitted."""
        self._demand_kind(teacher)
        if not _has_learned(teacher):
            return
        name, features = type(teacher).__name__, self.rows.x.shape[1]
        expects = getattr(teacher, "n_features_in_", getattr(teacher, "inputs", features))
        if expects != features:
            raise ValueError(f"X has {features} features, but teacher {name} is expecting {expects} features as input")
        named = names_of(teacher)
        if named is not None and self.names is not None and not _check.same_names(self.names, named):
            raise ValueError(f"teacher: expected the feature names of X, {list(self.names)}, in that order, got {named}")
        known = classes_of(teacher) if is_teacher(teacher) else getattr(teacher, "classes_", np.zeros(0)).tolist()
        if self.classes is not None and known is not None and (len(known), set(known)) != (len(self.classes), set(self.classes)):
            difference = difference_of(known, "the teacher", self.classes, "y")
            raise ValueError(f"teacher: expected the classes of y, {difference}")

    def _demand_kind(self, teacher: Any) -> None:
        """Demand a classifier or a regressor. One that is not fitted may get `predict_proba` by that, as a stack of estimators does."""
        if is_teacher(teacher):
            return
        wanted = "a regressor" if self.classes is None else "a classifier with predict_proba"
        answers = hasattr(teacher, "predict_proba") or (hasattr(type(teacher), "predict_proba") and not _has_learned(teacher))
        suits = is_regressor(teacher) if self.classes is None else answers and not is_regressor(teacher)
        if isinstance(teacher, type) or not suits:
            got = f"the class {teacher.__name__}" if isinstance(teacher, type) else type(teacher).__name__
            raise TypeError(f"teacher: expected {wanted}, got {got}")
        if not (_has_learned(teacher) or hasattr(teacher, "fit")):
            raise TypeError(f"teacher: expected {wanted} that is fitted or has fit, got {type(teacher).__name__}")


def is_teacher(teacher: Any) -> bool:
    """Whether it is one by pymimic's own protocol."""
    return callable(getattr(teacher, "logits", None)) and callable(getattr(teacher, "describe", None))


def _has_learned(teacher: Any) -> bool:
    return is_teacher(teacher) or not hasattr(teacher, "fit") or is_fitted(teacher)


def _takes_weights(estimator: Any) -> bool:
    """Whether `fit` has the argument, or by metadata routing something inside, such as a step of a pipeline, wants it."""
    if has_fit_parameter(estimator, "sample_weight"):
        return True
    routed = get_config()["enable_metadata_routing"] and hasattr(estimator, "get_metadata_routing")
    return routed and "sample_weight" in estimator.get_metadata_routing().consumes("fit", ["sample_weight"])


def _unset(name: str, value: Any) -> bool:
    """Whether a parameter asks for random numbers that nobody can repeat."""
    return value is None and name.rpartition("__")[2] == "random_state"
