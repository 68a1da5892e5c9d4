"""Lets mkdocstrings read this project's docstrings, whose parameters are one line each: `name : what it is`.

In numpydoc the part behind the colon is a type. Here the signature has the types, and that part is the description; what a function
returns is described, too, and not named.
"""

import re
from typing import Any

import griffe

_UNDERLINE = re.compile(r"^-{3,}$")
_ITEM = re.compile(r"^(\w+(?:, \w+)*) : (.+)$")


class OneLineParameters(griffe.Extension):
    """Rewrites each docstring before it is parsed."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = rewritten(obj.docstring.value, str(getattr(obj, "returns", "")))


def rewritten(text: str, returned: str) -> str:
    """The docstring as numpydoc has it; `returned` is the type that the signature says."""
    lines: list[str] = []
    section = ""
    names: list[str] = []  # of parameters that share a description, which begins at lines[start]
    start = 0
    for line in [*text.splitlines(), ""]:
        item = _ITEM.match(line) if section in ("Parameters", "Attributes") else None
        if names and not line.startswith(" "):
            description = lines[start:]
            for name in names[1:]:
                lines += [name, *description]
            names = []
        if _UNDERLINE.match(line) and lines:
            section = lines[-1]
            lines.append(line)
            if section in ("Returns", "Yields"):
                lines.append(returned if section == "Returns" else "Array")
        elif item is not None:
            names = item[1].split(", ")
            start = len(lines) + 1
            lines += [names[0], f"    {item[2]}"]
        elif section in ("Returns", "Yields") and line:
            lines.append(f"    {line}")
        else:
            lines.append(line)
    return "\n".join(lines)
