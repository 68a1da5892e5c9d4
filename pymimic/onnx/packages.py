"""The packages of the extra `onnx`, imported when they are needed."""

from __future__ import annotations

import importlib
import re
from typing import Any

LEAST = {"onnx": "1.16", "onnxruntime": "1.18"}  # as pyproject.toml has them


def package(name: str) -> Any:
    """The module of that name in `LEAST`; ImportError says what to install where it is missing, broken or too old."""
    wanted, cure = f"{name}: expected version {LEAST[name]} or later", f'pip install -U "{name}>={LEAST[name]}"'
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise ImportError(f"{wanted}, got none ({error}): {cure}", name=name) from error
    have, least = ([int(part) for part in re.findall(r"\d+", text)[:2]] for text in (module.__version__, LEAST[name]))
    if have < least:
        raise ImportError(f"{wanted}, got {module.__version__}: {cure}", name=name)
    return module
