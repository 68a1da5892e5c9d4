"""Files that are to be written where one stands: none of another kind is replaced."""

from __future__ import annotations

import os
from collections.abc import Callable

from .errors import FileFormatError
from .foreign import demand_plain, parsed
from .targets import Path, expanded, naming

_PNG = b"\x89PNG\r\n\x1a\n"


def demand_replaceable(name: str, path: Path, kind: str, is_one: Callable[[str], bool]) -> None:
    """Demand that a file that is to be written takes the place of none, of another of its kind, or of an empty file.

    Parameters
    ----------
    name : of the argument that the path came by
    kind : in words, with its article
    is_one : whether the file of that path is of that kind

    Raises
    ------
    FileFormatError
        It is of another kind.
    OSError
        It is no plain file, and may have no end, or is a link to nothing.
    """
    where = expanded(path, name)
    if not os.path.lexists(where):
        return
    with naming(where, f"{name}: "):
        demand_plain(where)
    if os.path.getsize(where) and not is_one(where):
        what = f"expected no file, or {kind} to be replaced, got another: {where!r}: remove it, or give another name"
        raise FileFormatError(f"{name}: {what}")


def begins_with(start: bytes) -> Callable[[str], bool]:
    """Whether a file's first bytes are those."""

    def begins(path: str) -> bool:
        with open(path, "rb") as file:
            return file.read(len(start)) == start

    return begins


def demand_png_or_none(name: str, path: Path) -> None:
    """As `demand_replaceable`, of a picture."""
    demand_replaceable(name, path, "a PNG file", begins_with(_PNG))


def demand_json_or_none(name: str, path: Path) -> None:
    """As `demand_replaceable`, of what JSON holds."""
    demand_replaceable(name, path, "a JSON file", _is_json)


def _is_json(path: str) -> bool:
    with open(path, "rb") as file:
        if file.read(64).lstrip()[:1] not in (b"{", b"["):  # so no large file is read in vain
            return False
        file.seek(0)
        try:
            parsed(file.read())
        except ValueError:
            return False
    return True
