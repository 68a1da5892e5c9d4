"""Faults in C++, found by regular expressions in what is neither a comment, a string nor a directive of the preprocessor."""

from __future__ import annotations

import re

from .faults import Fault, named

_SILENT = re.compile(
    r"""
    //[^\n]* | /\*.*?\*/ | "(?:\\.|[^"\\\n])*"
    | ^[\ \t]*\#(?:\\\n|[^\n])*  # a directive, and the lines that go on with it
    | static_assert\([^;]*; | template\ <[^\n]*>
    """,
    re.DOTALL | re.MULTILINE | re.VERBOSE,
)
_OPERATORS = {
    "<": "<=", "<=": "<", ">": ">=", ">=": ">", "==": "!=", "!=": "==", "&&": "||", "||": "&&", "+": "-", "-": "+", "*": "+", "/": "*",
    "%": "/", "+=": "-=", "-=": "+=", "<<": ">>", ">>": "<<",
}  # fmt: skip
_OPERATOR = re.compile(r"(?<= )(?:[<>=!]=|&&|\|\||<<|>>|[-+]=|[-<>+*/%])(?= )")
_NUMBER = re.compile(r"(?<![\w.])\d+(?![\w.'])")
_STATEMENT = re.compile(  # an assignment to what is declared elsewhere, or a call
    r"""
    ^[\ \t]+(?!(?:return|if|for|while|using|else|break|do)\b)
    (?:[\w.\[\]()>:-]+\ [-+*]?=\ [^;{}]* | [\w.>:-]+\([^;{}]*\));$
    """,
    re.MULTILINE | re.VERBOSE,
)
_TWINS = {"min": "max", "max": "min"}
_TWIN = re.compile(r"\b(?:min|max)(?=\()")
_NO_FUNCTIONS = {"if", "for", "while", "switch", "__attribute__"}
_WIDE = re.compile(r"\bint64_t\b")
_FUNCTION = re.compile(r"\b(\w+)\([^;{}]*\)(?: const)?(?: noexcept)?(?: override)? \{$", re.MULTILINE)


_OTHER_SET = re.compile(r"^#if[^\n]*__(?:AVX|aarch64)[^\n]*\n.*?(?=^#el|^#endif)", re.DOTALL | re.MULTILINE)  # of instructions


def cpp_faults(path: str, text: str) -> list[Fault]:
    """All faults of a file, in order of their place. Some of them do not compile."""
    silent = text
    for pattern in (_OTHER_SET, _SILENT):  # what is compiled for one instruction set alone
        silent = pattern.sub(lambda found: re.sub(r"[^\n]", "\0", found[0]), silent)
    functions = [(found.start(), found[1]) for found in _FUNCTION.finditer(silent) if found[1] not in _NO_FUNCTIONS]
    faults = []

    def add(kind: str, start: int, stop: int, new: str) -> None:
        function = next((name for at, name in reversed(functions) if at <= start), "")
        faults.append(Fault(path, function, kind, start, stop, new, (text.count("\n", 0, start) + 1,)))

    for found in _OPERATOR.finditer(silent):
        line = silent[silent.rfind("\n", 0, found.start()) + 1 : found.start()]
        if not (found[0] == "*" and re.fullmatch(r"\s*(?:const |static )*[\w:<>]+ ", line)):  # a pointer's declaration
            add("operator", found.start(), found.end(), _OPERATORS[found[0]])
    for found in _NUMBER.finditer(silent):
        add("constant", found.start(), found.end(), str(int(found[0]) + 1))
    for found in _STATEMENT.finditer(silent):
        start = found.end() - len(found[0].lstrip())
        add("statement", start, found.end(), ";")
    for found in _TWIN.finditer(silent):
        add("twin", found.start(), found.end(), _TWINS[found[0]])
    for found in _WIDE.finditer(silent):
        add("int64_t", found.start(), found.end(), "int")
    return named(faults, text)
