"""The logits of a scikit-learn classifier, from probabilities that are looked at first."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..backends.interface import Array
from .answers import on_host

_SLACK = 1e-3  # what probabilities and their sums may be off: the rounding of half precision, for 1000 classes


class LogProbabilities:
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
        log_p: Array = np.log(p + self.floor)
        log_p -= log_p.mean(axis=1, keepdims=True)
        return log_p

    def _probabilities(self, x: Array) -> Array:
        """What the estimator says, demanded to be (B, len(known)) probabilities with sum 1."""
        name = type(self.estimator).__name__
        given = self.estimator.predict_proba(x)
        if isinstance(given, list) and given and np.ndim(given[0]) > 1:
            raise TypeError(f"predict_proba: expected one array from {name}, got {len(given)}, as classifiers with several outputs give")
        p = on_host("predict_proba", given, name)
        expected = (len(x), len(self.positions))
        if p.shape != expected:
            raise ValueError(f"predict_proba: expected shape (B, len(classes_)) = {expected} from {name}, got {p.shape}")
        sums = p.sum(axis=1, dtype=np.float64)
        good = ((p >= -_SLACK) & (p <= 1 + _SLACK)).all(axis=1) & (np.abs(sums - 1) <= _SLACK)  # false where there is NaN
        if not good.all():
            row = int(good.argmin())
            raise ValueError(
                f"predict_proba: expected rows of probabilities with sum 1 from {name}, "
                f"got values in [{p[row].min():g}, {p[row].max():g}] with sum {sums[row]:g} in row {row}"
            )
        return np.maximum(p, 0)
