"""Packages that not everyone has installed, imported when they are needed."""

from __future__ import annotations

import importlib
from typing import Any


def package(who: str, name: str, install: str | None = None, why: str = "") -> Any:
    """The module of that name.

    Parameters
    ----------
    who : needs it: what the message begins with
    name : of the module, such as "librosa.sequence"
    install : what pip knows it as; None: the first part of the name
    why : it is needed, for the message

    Raises
    ------
    ImportError
        It cannot be imported; the message says what to install.
    """
    try:
        return importlib.import_module(name)
    except ImportError:
        missing = install or name.partition(".")[0]
        because = why and f", {why}"
        raise ImportError(f"{who}: expected {missing} to be there{because}: pip install {missing}") from None
