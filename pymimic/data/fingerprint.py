"""A digest and a text of what an object holds, the same in every process: without addresses in memory, whatever the order of sets."""

from __future__ import annotations

import hashlib
import random
import re
from types import BuiltinFunctionType, FunctionType
from typing import Any

import numpy as np

from .answers import on_host

# attributes of scikit-learn's estimators that do not change predictions: times, how to run, versions, addresses in memory
UNIMPORTANT = ("cv_results_", "refit_time_", "n_jobs", "verbose", "memory", "_sklearn_version", "_stop_words_id")
_RANDOM = (np.random.RandomState, np.random.Generator, np.random.BitGenerator, random.Random)  # each use changes their state
_GLOBAL = (type, FunctionType, BuiltinFunctionType)


def digest(value: Any) -> str | None:
    """sha256 of the values that `value` is made of, as pickle would find them; None where they are nested too deep.

    What pickle cannot take, and generators of random numbers, count by their type.
    """
    try:
        return _digest(value, {}).hex()
    except RecursionError:
        return None


def text(value: Any) -> str:
    """`repr`, made the same in every process. Estimators and other objects that have parameters are named by their class."""
    if isinstance(value, (set, frozenset)):
        return f"{{{', '.join(sorted(map(text, value)))}}}"
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(text, value))}]"
    if isinstance(value, dict):
        return f"{{{', '.join(sorted(f'{text(key)}: {text(item)}' for key, item in value.items()))}}}"
    if isinstance(value, _GLOBAL) or hasattr(value, "get_params"):
        return _name(value if isinstance(value, _GLOBAL) else type(value))
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value.item() if isinstance(value, np.generic) else value))


def _digest(value: Any, seen: dict[int, tuple[Any, bytes]]) -> bytes:
    """The digest of a value; `seen` has those of the objects so far, and keeps them alive."""
    if value is None or isinstance(value, (bool, int, float, complex, str, bytes)):
        return _hash(type(value).__name__, repr(value).encode())
    if isinstance(value, _GLOBAL):
        return _hash("global", _name(value).encode())
    if id(value) in seen:
        return seen[id(value)][1]
    seen[id(value)] = value, b"a circle"
    kind = _name(type(value))
    result = _hash(kind, *_parts(value, kind, seen))
    seen[id(value)] = value, result
    return result


def _parts(value: Any, kind: str, seen: dict[int, tuple[Any, bytes]]) -> list[bytes]:
    """The digests of what an object holds."""
    if isinstance(value, _RANDOM):
        return []
    if isinstance(value, (np.ndarray, np.generic)):
        return _array(np.asarray(value), seen)
    if kind.startswith("torch.") and hasattr(value, "detach"):
        return _array(on_host("estimator", value, kind), seen)
    if kind.startswith("sklearn.") and kind.rstrip("3264").endswith(("KDTree", "BallTree")):  # whose other state counts queries
        return _array(np.asarray(value.data), seen)
    if isinstance(value, dict):
        return sorted(_hash("", _digest(key, seen), _digest(item, seen)) for key, item in value.items() if key not in UNIMPORTANT)
    if isinstance(value, (list, tuple)):
        return [_digest(item, seen) for item in value]
    if isinstance(value, (set, frozenset)):
        return sorted(_digest(item, seen) for item in value)
    try:
        reduced = value.__reduce_ex__(4)
    except Exception:  # locks, files, generators and what else cannot be pickled
        return []
    if isinstance(reduced, str):
        return [reduced.encode()]
    return [_digest(list(part) if hasattr(part, "__next__") else part, seen) for part in reduced]


def _array(array: np.ndarray[Any, Any], seen: dict[int, tuple[Any, bytes]]) -> list[bytes]:
    """Type, shape and values; a structured array field by field, as there may be anything between them."""
    if array.dtype.names is not None:
        return [part for name in array.dtype.names for part in (name.encode(), *_array(array[name], seen))]
    if array.dtype.hasobject:
        return [repr(array.shape).encode(), *(_digest(item, seen) for item in array.ravel().tolist())]
    return [array.dtype.str.encode(), repr(array.shape).encode(), array.tobytes()]


def _hash(kind: str, *parts: bytes) -> bytes:
    """Of a kind and parts, each with its length."""
    sha256 = hashlib.sha256(kind.encode())
    for part in parts:
        sha256.update(len(part).to_bytes(8, "little"))
        sha256.update(part)
    return sha256.digest()


def _name(value: Any) -> str:
    return f"{value.__module__}.{value.__qualname__}"
