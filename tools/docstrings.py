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
    source = text.splitlines()
    lines: list[str] = []
    section = ""
    names: list[str] = []  # of parameters that share a description, which begins at lines[start]
    start = 0
    for line, following in zip([*source, ""], [*source[1:], "", ""]):
        item = _ITEM.match(line) if section in ("Parameters", "Attributes") else None
        if names and not line.startswith(" "):
            description = lines[start:]
            for name in names[1:]:
                lines += [name, *description]
            names = []
        if _UNDERLINE.match(following):
            section = line
            lines.append(line)
        elif _UNDERLINE.match(line):
            lines += [line, *({"Returns": [returned], "Yields": ["Array"]}.get(section, []))]
        elif item is not None:
            names, start = item[1].split(", "), len(lines) + 1
            lines += [names[0], f"    {item[2]}"]
        else:
            lines.append(f"    {line}" if section in ("Returns", "Yields") and line else line)
    return "\n".join(lines)
