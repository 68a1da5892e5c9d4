"""The labels that a teacher's columns stand for: what may be one, and in what two teachers differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .. import _check


def classes_of(teacher: Any) -> list[Any] | None:
    """The labels that a teacher's columns stand for, if it knows them."""
    classes = getattr(teacher, "classes", None)
    return None if classes is None else _plain(f"{type(teacher).__name__}.classes", classes)


def distinct(classes: Sequence[Any]) -> list[Any]:
    """Demand labels of which none stands twice, and give those of NumPy as Python's."""
    values = _plain("classes", classes)
    twice = [value for i, value in enumerate(values) if value in values[:i]]
    if twice:
        raise ValueError(f"classes: expected each class once, got {twice} again")
    return values


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


def _plain(name: str, classes: Any) -> list[Any]:
    """Demand a sequence of labels, NumPy's as Python's; a text is one of letters."""
    given = classes if isinstance(classes, str) else _check.sequence(name, classes, "labels")
    values = [value.item() if isinstance(value, np.generic) else value for value in given]
    if arrays := [value for value in values if hasattr(value, "__array__")]:
        raise TypeError(f"{name}: expected a label for each column, got an array of shape {np.shape(arrays[0])} among them")
    return values
