"""Sections of a cubin, and the functions of a library: both are ELF files of 64 bits."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path

NO_BYTES = 8  # a section that takes no room in the file


def sections(path: Path) -> dict[str, bytes]:
    """The bytes of each section, by its name."""
    data = path.read_bytes()
    (at,) = struct.unpack_from("<Q", data, 0x28)
    size, count, names = struct.unpack_from("<HHH", data, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", data, at + number * size) for number in range(count)]
    texts = headers[names][4]
    found = {}
    for name, kind, _, _, offset, length in headers:
        start = texts + name
        found[data[start : data.index(b"\0", start)].decode()] = b"" if kind == NO_BYTES else data[offset : offset + length]
    return found


def constant_banks(path: Path) -> dict[str, dict[int, bytes]]:
    """By the kernel's mangled name: bank 0 as long as it is, with zeros; bank 2 with tables of branches; and others."""
    banks: dict[str, dict[int, bytes]] = {}
    for name, data in sections(path).items():
        kind, _, function = name.removeprefix(".nv.constant").partition(".")
        if name.startswith(".nv.constant") and kind.isdigit():
            banks.setdefault(function, {})[int(kind)] = data
    return banks


def functions(path: Path) -> dict[int, str]:
    """A library's functions, those of its own too: offset -> mangled name."""
    listed = subprocess.run(["nm", "--defined-only", path], check=True, capture_output=True, text=True).stdout
    lines = (line.split() for line in listed.splitlines())
    return {int(line[0], 16): line[2] for line in lines if len(line) == 3 and line[1] in "tTwW"}
