"""What strangers made: JSON with limits, text that can be printed, files that end."""

from __future__ import annotations

import errno
import json
import os
import stat
from typing import Any

_DEEPEST = 100  # levels of JSON: whatever walks through it stays far from Python's own limit
_LONGEST = 2000  # characters of a message


def parsed(text: bytes | str) -> Any:
    """The value of a JSON text; ValueError where it is none, or of more than 100 levels."""
    try:
        value = json.loads(text)
    except RecursionError:
        raise ValueError(f"expected JSON of at most {_DEEPEST} levels, got more") from None
    level, depth = [value], 0
    while level := [inner for inner in level if isinstance(inner, (dict, list))]:
        depth += 1
        if depth > _DEEPEST:
            raise ValueError(f"expected JSON of at most {_DEEPEST} levels, got more")
        level = [inner for outer in level for inner in (outer.values() if isinstance(outer, dict) else outer)]
    return value


def printable(text: object) -> str:
    """The text with what a terminal would obey escaped, and cut in the middle where it is long."""
    whole = str(text)
    if len(whole) > _LONGEST:
        whole = f"{whole[: _LONGEST // 2]} ... {whole[-_LONGEST // 2 :]}"
    return whole if whole.isprintable() else "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in whole)


def demand_plain(path: str | os.PathLike[str], name: str = "") -> None:
    """Demand a plain file, or a link to one: others may have no end, or wait for a writer; `name` is of the argument.

    OSError begins with the name and ends with the path; where nothing is there, it is FileNotFoundError.
    """
    before = f"{name}: " if name else ""
    try:
        plain = stat.S_ISREG(os.stat(path).st_mode)
    except OSError as error:
        raise OSError(error.errno, f"{before}{error.strerror}", os.fspath(path)) from None
    if not plain:
        raise OSError(errno.EINVAL, f"{before}expected a plain file, got something else", os.fspath(path))
