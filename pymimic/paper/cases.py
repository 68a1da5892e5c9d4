"""Cases that experiments share, as functions of a setting."""

from __future__ import annotations

from collections.abc import Callable

from ..data.cases import Cases
from ..demo.setting import Setting


def named(name: str) -> Callable[[Setting], Cases]:
    """Those that `Setting.cases` knows by that name."""
    return lambda setting: setting.cases(name)


def copies_of(count: int) -> Callable[[Setting], Cases]:
    """The labelled rows and so many generated versions of them."""
    return lambda setting: setting.part(count)


def copies_named(count: int) -> str:
    """So many copies, in words."""
    return f"{count} cop{'y' if count == 1 else 'ies'}"
