"""Names of columns: those that an estimator was fitted on, and rows under them."""

from __future__ import annotations

import importlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..differences import short


def names_of(teacher: Any) -> list[str] | None:
    """The names of the columns that a teacher or an estimator was fitted on; None for none, and for those that LightGBM makes up."""
    names = getattr(teacher, "feature_names_in_", None)
    known = None if names is None else [str(name) for name in names]
    return None if known is None or known == [f"Column_{i}" for i in range(len(known))] else known


def common_names(members: Iterable[Any]) -> list[str] | None:
    """What `names_of` says of the members of an `Ensemble`; ValueError where they differ."""
    known = [names for member in members if (names := names_of(member)) is not None]
    for names in known:
        if not _check.same_names(names, known[0]):
            got = f"{short(known[0])} and {short(names)}"
            raise ValueError(f"members: expected teachers that were fitted on the same columns in the same order, got {got}")
    return known[0] if known else None


def as_fitted_on(estimator: Any, x: Array) -> Any:
    """Rows x (B, D) with the names of columns that the estimator was fitted with, if it was and pandas is installed; else x.

    ValueError where x is a DataFrame with other names, or with these in another order.
    """
    _check.demand_columns("x", x, names_of(estimator))
    return with_names(getattr(estimator, "feature_names_in_", None), x)


def with_names(names: Any, x: Any) -> Any:
    """Rows x (B, D) as a DataFrame of pandas with D names, over the same memory; x without names or without pandas."""
    if names is None or np.shape(names) != x.shape[1:]:
        return x
    try:
        pandas = importlib.import_module("pandas")
    except ImportError:
        return x
    return x.set_axis(names, axis="columns") if isinstance(x, pandas.DataFrame) else pandas.DataFrame(x, columns=names, copy=False)
