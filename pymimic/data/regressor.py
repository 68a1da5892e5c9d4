"""A scikit-learn regressor as a teacher, whose predictions are the logits; and what is asked of any estimator."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np

from ..backends.interface import Array
from .answers import on_host


class Predictions:
    """What a regressor predicts, one column for each of its targets."""

    def __init__(self, estimator: Any) -> None:
        self.estimator = estimator

    def __call__(self, x: Array) -> Array:
        y = on_host("predict", self.estimator.predict(as_fitted_on(self.estimator, x)), type(self.estimator).__name__)
        return y[:, None] if y.ndim == 1 else y


def is_regressor(estimator: Any) -> bool:
    """Whether scikit-learn, of any version, counts it as one."""
    if isinstance(estimator, type):
        return False
    tags = getattr(estimator, "__sklearn_tags__", None)
    kind = tags().estimator_type if callable(tags) else getattr(estimator, "_estimator_type", None)
    return bool(kind == "regressor")


def is_fitted(estimator: Any) -> bool:
    """scikit-learn's rule: the estimator says so, or has an attribute that ends in an underscore."""
    says = getattr(estimator, "__sklearn_is_fitted__", None)
    return bool(says() if callable(says) else any(name.endswith("_") and not name.startswith("__") for name in vars(estimator)))


def as_fitted_on(estimator: Any, x: Array) -> Any:
    """Rows x (B, D) with the names of columns that the estimator was fitted with, if it was and pandas is installed; else x."""
    return with_names(getattr(estimator, "feature_names_in_", None), x)


def with_names(names: Any, x: Array) -> Any:
    """Rows x (B, D) as a DataFrame of pandas with D names, over the same memory; x without names or without pandas."""
    if names is None or np.shape(names) != x.shape[1:]:
        return x
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return x
    return pandas.DataFrame(x, columns=names, copy=False)
