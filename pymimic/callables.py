"""What files and messages say of a function that a user passes."""

from __future__ import annotations

import functools
import hashlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from reprlib import recursive_repr
from types import FunctionType, MethodType
from typing import Any

import numpy as np

from . import _check
from .devices import Array, to

_BRACKETS = {list: "[]", tuple: "()", set: "{}", frozenset: "{}", dict: "{}"}
_PLAIN = (type(None), bool, int, float, complex, str, bytes, np.generic, functools.partial, FunctionType, MethodType)
_ARRAYS = ("__array__", "__array_interface__", "__dlpack__", "__cuda_array_interface__")  # by which arrays of all libraries are known


@recursive_repr("...")
def describe(value: Any) -> str:
    """A function's qualified name, with what it holds; of arrays their dtype, shape and a digest; of other values their repr.

    What is held are the arguments of a partial and the fields of a dataclass. Of a function's defaults and the variables around it, and of
    the attributes of an object without a repr of its own, those that are numbers, texts, arrays, functions, tuples of these, or lists,
    dicts and sets with arrays: others may be notes that it takes. The text is the same in every process: no addresses, and sets are sorted.
    """
    if isinstance(value, functools.partial):
        return _call(describe(value.func), dict(enumerate(value.args)) | value.keywords)
    if is_dataclass(value) and not isinstance(value, type):
        return _call(type(value).__qualname__, {field.name: getattr(value, field.name) for field in fields(value)})
    if isinstance(value, FunctionType):
        held = _told(dict(_bound(value)))
        return _call(value.__qualname__, held) if held else value.__qualname__
    if isinstance(value, MethodType) and not isinstance(value.__self__, type):
        return f"{describe(value.__self__)}.{value.__name__}"
    if isinstance(value, np.generic):
        return repr(value.item())
    if isinstance(value, np.ma.MaskedArray):
        return _call("masked_array", {"data": np.where(np.ma.getmaskarray(value), 0, value.data), "mask": np.ma.getmaskarray(value)})
    if (array := _array(value)) is not None:
        return f"<{array.dtype} {array.shape}, sha256 {_digest(array)}>"
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return _call(type(value).__qualname__, value._asdict())
    if isinstance(value, tuple(_BRACKETS)):
        return _container(value)
    name = getattr(value, "__qualname__", None)
    if isinstance(name, str):
        return name
    own_repr: Any = type(value).__repr__
    if own_repr is not object.__repr__:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))
    held = _told(getattr(value, "__dict__", {}))
    return _call(type(value).__qualname__, held) if held else type(value).__qualname__


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


def _bound(function: FunctionType) -> Iterator[tuple[str, Any]]:
    """A function's defaults and the variables around it, by name."""
    code = function.__code__
    defaults = function.__defaults__ or ()
    yield from zip(code.co_varnames[code.co_argcount - len(defaults) : code.co_argcount], defaults)
    yield from (function.__kwdefaults__ or {}).items()
    for name, cell in zip(code.co_freevars, function.__closure__ or ()):
        try:
            yield name, cell.cell_contents
        except ValueError:  # it has no value yet
            continue


def _told(held: dict[str, Any]) -> dict[str, Any]:
    """Those of which a text says all: others may be anything, with a state that changes as it is used."""
    return {name: value for name, value in held.items() if _is_plain(value)}


def _is_plain(value: Any) -> bool:
    """Whether its text says all of it, and no notes. Lists, dicts and sets count where they hold arrays."""
    try:
        if isinstance(value, tuple(_BRACKETS)):
            container: Any = value
            items = [*container, *(container.values() if isinstance(container, dict) else ())]
            notes = isinstance(value, (list, dict, set)) and not any(
                _is_array(item) or isinstance(item, tuple(_BRACKETS)) for item in items
            )
            return not notes and all(_is_plain(item) for item in items)
    except RecursionError:  # it holds itself
        return False
    return isinstance(value, _PLAIN) or _is_array(value) or (is_dataclass(value) and not isinstance(value, type))


def _is_array(value: Any) -> bool:
    return not isinstance(value, np.generic) and any(hasattr(type(value), name) for name in _ARRAYS)


def _array(value: Any) -> Array | None:
    """An array of any library as NumPy's; None of other values, and of arrays that cannot be read."""
    if not _is_array(value):
        return None
    try:
        plain = value.detach().cpu().to_dense().resolve_conj() if hasattr(value, "detach") else value  # torch's
        return to("cpu", _check.any_array("value", plain))
    except Exception:  # each library has errors of its own
        try:
            return np.asarray(value)
        except Exception:
            return None


def _digest(array: Array) -> str:
    """Of its bytes; of what an array of objects or of records holds, which may have addresses or gaps in them."""
    if array.dtype.hasobject or array.dtype.names:
        return hashlib.sha256(describe(array.tolist()).encode()).hexdigest()[:16]
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).hexdigest()[:16]


def _container(value: Any) -> str:
    """As its repr, by `describe` of each item."""
    kind = next(kind for kind in _BRACKETS if isinstance(value, kind))
    if kind is dict:
        items = [f"{describe(key)}: {describe(item)}" for key, item in value.items()]
    else:
        items = sorted(map(describe, value)) if kind in (set, frozenset) else list(map(describe, value))
    comma = "," if kind is tuple and len(items) == 1 else ""
    text = f"{_BRACKETS[kind][0]}{', '.join(items)}{comma}{_BRACKETS[kind][1]}"
    return text if type(value) in (list, tuple, dict, set) else f"{type(value).__qualname__}({text})"


def _call(name: str, arguments: dict[Any, Any]) -> str:
    given = (f"{key}={describe(value)}" if isinstance(key, str) else describe(value) for key, value in arguments.items())
    return f"{name}({', '.join(given)})"
