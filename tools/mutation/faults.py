"""A fault: one change of a file's text."""

from __future__ import annotations

import re
from typing import NamedTuple

_AROUND = 36  # characters that a fault's name shows to each side


class Fault(NamedTuple):
    """`text[start:stop]` becomes `new`."""

    path: str
    function: str  # around it, "" outside of any
    kind: str
    start: int
    stop: int
    new: str
    lines: tuple[int, ...]  # those whose tests concern it; of a default, those of the function's body
    name: str = ""  # of the fault among all others; no line numbers, so that it holds while code moves

    def applied(self, text: str) -> str:
        return text[: self.start] + self.new + text[self.stop :]


def named(faults: list[Fault], text: str) -> list[Fault]:
    """The same, in order of their place, with names."""
    seen: dict[str, int] = {}
    result = []
    for fault in sorted(set(faults), key=lambda fault: (fault.start, fault.stop, fault.kind, fault.new)):
        before = text[max(text.rfind("\n", 0, fault.start) + 1, fault.start - _AROUND) : fault.start]
        end = text.find("\n", fault.stop)
        after = text[fault.stop : min(len(text) if end < 0 else end, fault.stop + _AROUND)]
        old, new = (re.sub(r"\s+", " ", before + part + after).strip() for part in (text[fault.start : fault.stop], fault.new))
        name = f"{fault.path} | {fault.function or '-'} | {old} => {new}"
        seen[name] = seen.get(name, 0) + 1
        result.append(fault._replace(name=name if seen[name] == 1 else f"{name} (#{seen[name]})"))
    return result
