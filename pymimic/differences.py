"""Where two nested values differ, for messages: the keys that do, and their values alone."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

_LONGEST = 200  # characters of a value


def differences(name: str, a: Any, b: Any) -> Iterator[tuple[str, str, str]]:
    """The innermost keys at which `a` and `b` differ, as "name.key" or "name[0]", each with both values as text.

    "nothing" stands for a value that is not there.
    """
    if isinstance(a, Mapping) and isinstance(b, Mapping):
        for key in [*a, *(key for key in b if key not in a)]:
            inner = f"{name}.{key}" if name else str(key)
            if key in a and key in b:
                yield from differences(inner, a[key], b[key])
            else:
                yield inner, short(a[key]) if key in a else "nothing", short(b[key]) if key in b else "nothing"
    elif isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
        for i, (one, other) in enumerate(zip(a, b)):
            yield from differences(f"{name}[{i}]", one, other)
    elif a != b and not (a != a and b != b):  # NaN is NaN
        yield name, short(a), short(b)


def short(value: Any) -> str:
    """`repr`, cut in the middle where it is long."""
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
