"""Faults in Python, found in the syntax tree. None in what says something only: messages, documentation, annotations, `__repr__`."""

from __future__ import annotations

import ast
import itertools
import re
from collections.abc import Iterator

from .faults import Fault, named

_COMPARISONS = {
    ast.Lt: "<=", ast.LtE: "<", ast.Gt: ">=", ast.GtE: ">", ast.Eq: "!=", ast.NotEq: "==", ast.Is: "is not", ast.IsNot: "is",
    ast.In: "not in", ast.NotIn: "in",
}  # fmt: skip
_ARITHMETIC = {
    ast.Add: ("+", "-"), ast.Sub: ("-", "+"), ast.Mult: ("*", "/"), ast.Div: ("/", "*"), ast.FloorDiv: ("//", "*"), ast.Mod: ("%", "//"),
    ast.Pow: ("**", "*"), ast.LShift: ("<<", ">>"), ast.RShift: (">>", "<<"), ast.BitAnd: ("&", "|"), ast.BitOr: ("|", "&"),
}  # fmt: skip
_TWINS = {"min": "max", "max": "min", "any": "all", "all": "any", "floor": "ceil", "ceil": "floor"}
# calls whose arguments are text
_SAYS_ONLY = {"warn", "print", "repr", "describe", "Progress", "echo", "set_postfix", "TypeVar"}
_OUT_OF_REACH = 31  # 1 << 31 and more are bounds that no array reaches
_QUIET = {"__repr__", "__str__", "__dir__"}


def python_faults(path: str, text: str) -> list[Fault]:
    """All faults of a file, in order of their place."""
    tree = ast.parse(text)
    finder = _Finder(path, text)
    finder.visit(tree)
    return named(finder.faults, text)


class _Finder(ast.NodeVisitor):
    def __init__(self, path: str, text: str) -> None:
        self.path, self.text, self.faults = path, text, []
        self.functions: list[str] = []
        lines = text.splitlines(keepends=True)
        self.starts = list(itertools.accumulate((len(line) for line in lines), initial=0))
        self.lines = lines
        self.concerned: tuple[int, ...] | None = None  # the lines of a function's body, while its defaults are visited

    # Places

    def at(self, line: int, column: int) -> int:
        return self.starts[line - 1] + len(self.lines[line - 1].encode()[:column].decode())

    def start(self, node: ast.AST) -> int:
        return self.at(node.lineno, node.col_offset)

    def stop(self, node: ast.AST) -> int:
        return self.at(node.end_lineno, node.end_col_offset)

    def add(self, kind: str, node: ast.AST, start: int, stop: int, new: str) -> None:
        lines = self.concerned or tuple(range(node.lineno, node.end_lineno + 1))
        self.faults.append(Fault(self.path, ".".join(self.functions), kind, start, stop, new, lines))

    def swap(self, kind: str, node: ast.AST, left: ast.AST, right: ast.AST, old: str, new: str) -> None:
        """Another operator between the two."""
        start = self.stop(left)
        found = re.search(re.escape(old).replace("\\ ", r"\s+"), self.text[start : self.start(right)])
        if found:
            self.add(kind, node, start + found.start(), start + found.end(), new)

    def around(self, kind: str, node: ast.expr, before: str, after: str) -> None:
        start, stop = self.start(node), self.stop(node)
        self.add(kind, node, start, stop, before + self.text[start:stop] + after)

    # What is left alone

    def visit(self, node: ast.AST) -> None:
        if isinstance(node, (ast.JoinedStr, ast.Import, ast.ImportFrom, ast.Assert)):
            return
        super().visit(node)

    def visit_Raise(self, node: ast.Raise) -> None:
        self.add("statement", node, self.start(node), self.stop(node), "pass")

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        if node.value is not None:
            self.visit(node.value)

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self.functions.append(node.name)
        for child in node.body:
            self.visit(child)
        self.functions.pop()

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        if node.name in _QUIET or any("overload" in ast.dump(one) or "abstract" in ast.dump(one) for one in node.decorator_list):
            return
        self.functions.append(node.name)
        outer, self.concerned = self.concerned, tuple(range(node.body[0].lineno, node.end_lineno + 1))
        for default in (*node.args.defaults, *filter(None, node.args.kw_defaults)):
            self.visit(default)
        self.concerned = outer
        for child in node.body:
            self.visit(child)
        self.functions.pop()

    def visit_If(self, node: ast.If) -> None:
        if isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            return
        self.negate(node.test)
        self.generic_visit(node)

    # Faults

    def negate(self, test: ast.expr) -> None:
        if isinstance(test, ast.Compare) and len(test.ops) == 1:
            return  # its operator is exchanged
        if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
            self.add("condition", test, self.start(test), self.stop(test), self.text[self.start(test.operand) : self.stop(test.operand)])
        else:
            self.around("condition", test, "not (", ")")

    def visit_IfExp(self, node: ast.IfExp) -> None:
        self.negate(node.test)
        self.generic_visit(node)

    def visit_comprehension(self, node: ast.comprehension) -> None:
        for test in node.ifs:
            self.negate(test)
        self.generic_visit(node)

    def visit_Compare(self, node: ast.Compare) -> None:
        operands = [node.left, *node.comparators]
        for left, right, operator in zip(operands, operands[1:], node.ops):
            old = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=", ast.Is: "is"}.get(type(operator))
            old = old or {ast.IsNot: "is not", ast.In: "in", ast.NotIn: "not in"}[type(operator)]
            self.swap("comparison", node, left, right, old, _COMPARISONS[type(operator)])
        self.generic_visit(node)

    def visit_BoolOp(self, node: ast.BoolOp) -> None:
        old, new = ("and", "or") if isinstance(node.op, ast.And) else ("or", "and")
        for left, right in zip(node.values, node.values[1:]):
            self.swap("condition", node, left, right, f"{old}", new)
        self.generic_visit(node)

    def visit_BinOp(self, node: ast.BinOp) -> None:
        if isinstance(node.op, ast.LShift) and isinstance(node.right, ast.Constant) and node.right.value >= _OUT_OF_REACH:
            return
        if type(node.op) in _ARITHMETIC and not any(_is_text(side) for side in (node.left, node.right)):
            self.swap("arithmetic", node, node.left, node.right, *_ARITHMETIC[type(node.op)])
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        if type(node.op) in _ARITHMETIC:
            old, new = _ARITHMETIC[type(node.op)]
            self.swap("arithmetic", node, node.target, node.value, f"{old}=", f"{new}=")
        self.add("statement", node, self.start(node), self.stop(node), "pass")
        self.generic_visit(node)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> None:
        if isinstance(node.op, ast.USub) and not isinstance(node.operand, ast.Constant):
            self.add("arithmetic", node, self.start(node), self.start(node) + 1, "")
        elif isinstance(node.op, ast.Not):
            self.negate(node)
        self.generic_visit(node)

    def visit_Constant(self, node: ast.Constant) -> None:
        kind = "constant" if self.concerned is None else "default"
        start, stop = self.start(node), self.stop(node)
        if isinstance(node.value, bool):
            self.add(kind, node, start, stop, str(not node.value))
        elif isinstance(node.value, int):
            self.add(kind, node, start, stop, f"({self.text[start:stop]} + 1)" if node.value else "1")
        elif isinstance(node.value, float):
            self.add(kind, node, start, stop, repr(node.value * 2 if node.value else 1.0))

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if called in _SAYS_ONLY or called.endswith(("Error", "Warning")):
            return
        if called in _TWINS:
            stop = self.stop(node.func)
            self.add("twin", node, stop - len(called), stop, _TWINS[called])
        given = sorted([*node.args, *node.keywords], key=self.start)
        for before, argument, after in zip([None, *given], given, [*given[1:], None]):
            last = after is None and before is not None and not isinstance(argument, ast.Starred)
            if isinstance(argument, ast.keyword) or last:
                start = self.start(argument) if before is None else self.stop(before)
                stop = self.start(after) if before is None and after is not None else self.stop(argument)
                self.add("argument", argument, start, stop, "")
        self.generic_visit(node)

    def visit_Expr(self, node: ast.Expr) -> None:
        if isinstance(node.value, ast.Constant):
            return
        if isinstance(node.value, ast.Call):
            called = node.value.func.attr if isinstance(node.value.func, ast.Attribute) else getattr(node.value.func, "id", "")
            if called in _SAYS_ONLY - {"warn"}:
                return
            self.add("statement", node, self.start(node), self.stop(node), "pass")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        if all(isinstance(target, (ast.Attribute, ast.Subscript)) for target in node.targets):
            self.add("statement", node, self.start(node), self.stop(node), "pass")
        if [getattr(target, "id", "") for target in node.targets] != ["__all__"]:
            self.generic_visit(node)

    def visit_Continue(self, node: ast.Continue) -> None:
        self.add("statement", node, self.start(node), self.stop(node), "pass")

    def visit_Break(self, node: ast.Break) -> None:
        self.add("statement", node, self.start(node), self.stop(node), "pass")


def _is_text(node: ast.expr) -> bool:
    return isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str))


def statements(text: str) -> Iterator[ast.stmt]:
    """The statements of a module's top level and of its classes: they run once, at import."""
    pending = list(ast.parse(text).body)
    while pending:
        node = pending.pop()
        if isinstance(node, ast.ClassDef):
            pending.extend(node.body)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            yield node
