"""A scikit-learn estimator as a teacher. A classifier's logits come from probabilities, which are looked at first."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..numerics import less_row_means
from . import fingerprint
from .answers import on_host
from .classes import distinct
from .names import as_fitted_on, names_of
from .regressor import Predictions, is_fitted, is_regressor
from .teacher import FunctionTeacher, Teacher

_SLACK = 1e-3  # what probabilities and their sums may be off: the rounding of half precision, for 1000 classes


def from_sklearn(estimator: Any, floor: float = 0.01, classes: Sequence[Any] | None = None) -> Teacher:
    """A teacher from a fitted scikit-learn estimator, or one that is used alike, as those of LightGBM and XGBoost are.

    Of a classifier the logits are log(predict_proba(x) + floor), less their mean over each row; of a regressor they are what it predicts,
    a column for each of its targets, in their units.

    The floor bounds the logits from below: a forest says 0 where a student can only say very little. The description has the estimator's
    parameters and a digest of all that it learned, so that two fits can be told apart. An estimator that was
    fitted on a DataFrame gets one. Who labels a DataFrame must give the same columns in the same order; an array's are taken for these.

    Parameters
    ----------
    estimator : has `predict_proba` and `classes_`; or is a regressor by its tags, and has `predict`
    floor : above 0, added to each probability of a classifier
    classes : of a classifier: labels in the order of the logits' columns; None takes `estimator.classes_`. A class that the
        estimator has never seen gets probability 0. Pass it where folds may lack a class, see `out_of_fold`.

    Raises
    ------
    TypeError
        No `predict_proba`, or no `classes_`: not a classifier, or not a fitted one. A regressor that is not fitted.
    ValueError
        floor is not above 0, the estimator knows a class that is not in `classes`, or a regressor got classes. When it labels:
        `predict_proba` returns another shape than (B, len(classes_)), or rows that are no probabilities.
    """
    regressor = is_regressor(estimator)
    if regressor and not is_fitted(estimator):
        raise TypeError(f"estimator: expected a fitted regressor, got {_unsuited(estimator)}")
    if regressor:
        if classes is not None:
            raise ValueError(f"classes: expected None for a regressor, {type(estimator).__name__}, got {classes}")
        name, described = _description(estimator)
        return FunctionTeacher(Predictions(estimator), name, described, None, names_of(estimator))
    if isinstance(estimator, type) or not hasattr(estimator, "predict_proba") or not hasattr(estimator, "classes_"):
        raise TypeError(f"estimator: expected a fitted classifier with predict_proba, got {_unsuited(estimator)}")
    floor = _check.number("floor", floor, above=0)
    if not isinstance(estimator.classes_, np.ndarray):
        raise TypeError("estimator: expected a classifier with one output, got one with several")
    known = estimator.classes_.tolist()
    columns = known if classes is None else distinct(classes)
    unknown = [value for value in known if value not in columns]
    if unknown:
        raise ValueError(f"classes: expected all that the estimator knows, got none of {unknown}")
    name, described = _description(estimator)
    described |= {"floor": floor, "outputs": len(columns), "classes": [fingerprint.text(value) for value in columns]}
    return FunctionTeacher(_LogProbabilities(estimator, floor, known, columns), name, described, columns, names_of(estimator))


def _description(estimator: Any) -> tuple[str, dict[str, Any]]:
    """The estimator's class, and what tells it from others."""
    name = f"{type(estimator).__module__}.{type(estimator).__qualname__}"
    parameters = estimator.get_params() if hasattr(estimator, "get_params") else {}
    return name, {
        "kind": "sklearn",
        "class": name,
        "parameters": {key: fingerprint.text(value) for key, value in parameters.items() if key not in fingerprint.UNIMPORTANT},
        "learned": fingerprint.digest(estimator),
    }


class _LogProbabilities:
    """log(p + floor) of a classifier's probabilities p, less the mean of each row.

    Parameters
    ----------
    estimator : has `predict_proba`
    floor : above 0
    known : the estimator's classes
    columns : the classes of the logits' columns, all of `known` among them; others have p = 0
    """

    def __init__(self, estimator: Any, floor: float, known: list[Any], columns: list[Any]) -> None:
        self.estimator, self.floor, self.outputs = estimator, floor, len(columns)
        self.positions = [columns.index(value) for value in known]

    def __call__(self, x: Array) -> Array:
        p = np.zeros((len(x), self.outputs))
        p[:, self.positions] = self._probabilities(x)
        return log_probabilities(p, self.floor)

    def _probabilities(self, x: Array) -> Array:
        """What the estimator says, demanded to be (B, len(known)) probabilities with sum 1."""
        name = type(self.estimator).__name__
        given = self.estimator.predict_proba(as_fitted_on(self.estimator, x))
        if isinstance(given, list) and given and np.ndim(given[0]) > 1:
            raise TypeError(f"predict_proba: expected one array from {name}, got {len(given)}, as classifiers with several outputs give")
        p = on_host("predict_proba", given, name)
        expected = (len(x), len(self.positions))
        if p.shape != expected:
            raise ValueError(f"predict_proba: expected shape (B, len(classes_)) = {expected} from {name}, got {p.shape}")
        return demand_probabilities("predict_proba", p, name)


def demand_probabilities(name: str, p: Array, teacher: str) -> Array:
    """Demand rows (B, C) of probabilities with sum 1, up to rounding, and give them without values below 0; `name` is who gave them."""
    sums = p.sum(axis=1, dtype=np.float64)
    good = ((p >= -_SLACK) & (p <= 1 + _SLACK)).all(axis=1) & (np.abs(sums - 1) <= _SLACK)  # false where there is NaN
    if not good.all():
        row = int(good.argmin())
        raise ValueError(
            f"{name}: expected rows of probabilities with sum 1 from {teacher}, "
            f"got values in [{p[row].min():g}, {p[row].max():g}] with sum {sums[row]:g} in row {row}"
        )
    return np.maximum(p, 0)


def log_probabilities(p: Array, floor: float) -> Array:
    """log(p + floor) of probabilities (B, C), less the mean of each row."""
    return less_row_means(np.log(p + floor))


def _unsuited(estimator: Any) -> str:
    """What it is, and what it takes to make a teacher of it."""
    if isinstance(estimator, type):
        return f"the class {estimator.__name__}: make one and fit it, {estimator.__name__}().fit(x, labels)"
    name = type(estimator).__name__
    if hasattr(estimator, "predict_proba") or is_regressor(estimator):
        return f"one that is not fitted: call {name}.fit(x, labels) first" if hasattr(estimator, "fit") else f"{name} without classes_"
    if hasattr(estimator, "decision_function"):
        return f"{name} with decision_function alone: calibrate it (CalibratedClassifierCV), or use from_callable on that function"
    return name
