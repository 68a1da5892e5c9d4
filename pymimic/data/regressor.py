"""A scikit-learn regressor as a teacher, whose predictions are the logits; and what is asked of any estimator."""

from __future__ import annotations

from typing import Any

from ..backends.interface import Array
from .answers import on_host
from .names import as_fitted_on


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
