"""What files and messages say of a function that a user passes."""

from __future__ import annotations

import functools
import inspect
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np


def describe(value: Any) -> str:
    """A function's qualified name, with the arguments that a partial or a dataclass brings; of other values their repr.

    It is the same in every process: no addresses.
    """
    if isinstance(value, functools.partial):
        return _call(describe(value.func), dict(enumerate(value.args)) | value.keywords)
    if is_dataclass(value) and not isinstance(value, type):
        return _call(type(value).__qualname__, {field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, np.generic):
        return repr(value.item())
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return name
    own_repr: Any = type(value).__repr__
    return type(value).__qualname__ if own_repr is object.__repr__ else repr(value)


def demand_arguments(name: str, function: Any, *arguments: str) -> None:
    """Demand a function that takes these arguments by position, as far as its signature can be told."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):
        return
    try:
        signature.bind(*arguments)
    except TypeError:
        raise TypeError(f"{name}: expected a function of ({', '.join(arguments)}), got {describe(function)}{signature}") from None


def _call(name: str, arguments: dict[Any, Any]) -> str:
    given = (f"{key}={describe(value)}" if isinstance(key, str) else describe(value) for key, value in arguments.items())
    return f"{name}({', '.join(given)})"
