"""The implementations of `pymimic.ops`, selectable by name. Nothing here knows what is above."""

from __future__ import annotations

import importlib
from functools import cache
from typing import Literal, cast

from ..errors import BackendUnavailableError
from .interface import Backend

BackendName = Literal["cpu", "cuda", "numba", "reference"]
NAMES: tuple[BackendName, ...] = ("cpu", "cuda", "numba", "reference")
_HOST_ORDER: tuple[BackendName, ...] = ("cpu", "numba", "reference")  # fastest first


def get(name: str) -> Backend:
    """The backend of that name; BackendUnavailableError says why where it cannot run."""
    if not isinstance(name, str):
        raise TypeError(f"backend: expected a name, got {type(name).__name__}")
    return _load(name)


@cache
def _load(name: str) -> Backend:
    if name not in NAMES:
        raise ValueError(f"backend: expected one of {', '.join(NAMES)}, got {name!r}")
    if name == "cuda":
        raise BackendUnavailableError(f"backend: 'cuda' is not available: {why_no_cuda()}")
    try:
        return cast(Backend, importlib.import_module(f"{__name__}.{name}"))
    except ImportError as error:
        raise BackendUnavailableError(f"backend: {name!r} is not available: {error}") from error


@cache
def default_host() -> Backend:
    """The fastest backend for NumPy arrays that this installation can run."""
    for name in _HOST_ORDER:
        try:
            return get(name)
        except BackendUnavailableError:
            continue
    raise AssertionError("the reference backend needs NumPy alone")


def why_no_cuda() -> str:
    """One line: why the CUDA module is absent."""
    return "this version of pymimic has no CUDA module"
