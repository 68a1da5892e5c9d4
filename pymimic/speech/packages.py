"""What the extra `speech` installs."""

from __future__ import annotations

import importlib
from typing import Any


def package(name: str) -> Any:
    """The module of that name; ImportError says what to install."""
    try:
        return importlib.import_module(name)
    except ImportError:
        missing = name.partition(".")[0]
        raise ImportError(f"speech: expected {missing} to be there: pip install {missing}") from None
