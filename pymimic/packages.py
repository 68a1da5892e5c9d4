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
        It is missing, and the message says what to install; or it is there and cannot be imported, and the message says why.
    """
    try:
        return importlib.import_module(name)
    except (ImportError, OSError) as error:  # OSError where a library in C is not there
        missing = install or name.partition(".")[0]
        because = why and f", {why}"
        if isinstance(error, ModuleNotFoundError) and error.name == name.partition(".")[0]:
            raise ImportError(f"{who}: expected {missing} to be there{because}: pip install {missing}") from None
        raise ImportError(f"{who}: expected {missing} to work{because}, got {type(error).__name__}: {error}") from error
