"""Which module may import which, and how far it is from Trainer.fit to native code."""

import ast
import sys
from itertools import groupby
from pathlib import Path

import numpy as np
import pytest

import pymimic
from pymimic import SGD, Student, Trainer, TransferSet

ROOT = Path(__file__).parents[1]
PACKAGE = Path(pymimic.__file__).parent  # which is elsewhere where it is installed

# From the ground up: a module imports from its own floor and from those below. The longest name that fits says where a module lives.
FLOORS = (
    ("pymimic._core", "pymimic._cuda"),
    (
        "pymimic.differences",
        "pymimic.errors",
        "pymimic.foreign",
        "pymimic.formats",
        "pymimic.packages",
        "pymimic.plan",
        "pymimic.progress",
        "pymimic.tables",
        "pymimic.targets",
        "pymimic.version",
    ),
    ("pymimic.devices", "pymimic.numerics"),
    ("pymimic.backends.interface",),
    ("pymimic._check", "pymimic.arguments", "pymimic.callables", "pymimic.files"),
    ("pymimic.unit_files",),
    ("pymimic.threads",),
    ("pymimic.backends",),
    ("pymimic.ops", "pymimic.optimizer", "pymimic.weights"),
    ("pymimic.data",),
    ("pymimic.nets",),
    ("pymimic.distributed",),
    ("pymimic.training",),
    ("pymimic",),  # the public names
    ("pymimic.onnx", "pymimic.sklearn", "pymimic.speech", "pymimic.torch"),
    ("pymimic.bench", "pymimic.demo"),
    ("pymimic.paper",),
    ("pymimic.cli", "pymimic.commands", "pymimic.exits", "pymimic.__main__"),
)
SEAM = ("pymimic.backends", "pymimic.backends.interface")  # all of the backends that others ask; `pymimic` itself exports names of theirs
CALLS_NATIVE = (
    "pymimic.backends",
    "pymimic.threads",
    "pymimic.bench.machine",
    "pymimic.commands.info",
)  # the last two say what is compiled


def imports_of(tree, name, is_package, modules):
    """The modules that `tree` imports, wherever in it, but for type checkers alone."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node = ast.Module(node.orelse, [])
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name in modules)
        elif isinstance(node, ast.ImportFrom):
            home = name.split(".")[: len(name.split(".")) + is_package - node.level] if node.level else []
            source = ".".join([*home, *filter(None, [node.module])])
            for alias in node.names:
                yield from [m for m in (f"{source}.{alias.name}", source) if m in modules][:1]
        yield from imports_of(node, name, is_package, modules)


@pytest.fixture(scope="module")
def arrows():
    """(who, whom) of every import between modules of ours."""
    files = {}
    for root, prefix in ((ROOT / "pymimic", ("pymimic",)), (ROOT / "benchmarks", ())):
        for path in root.rglob("*.py"):
            parts = (*prefix, *path.relative_to(root).with_suffix("").parts)
            files[".".join(parts[:-1] if parts[-1] == "__init__" else parts)] = path
    modules = {*files, *FLOORS[0]}
    trees = {name: ast.parse(path.read_text()) for name, path in files.items()}
    return {(a, b) for a, tree in trees.items() for b in imports_of(tree, a, files[a].stem == "__init__", modules) if a != b}


def floor(module):
    """Its number; that of benchmarks is the highest."""
    fits = [(len(name), number) for number, names in enumerate(FLOORS) for name in names if within(module, [name])]
    return max(fits)[1] if fits else len(FLOORS)


def within(module, names):
    return any(f"{module}.".startswith(f"{name}.") for name in names)


def breaks_a_rule(who, whom):
    past_the_seam = within(whom, ["pymimic.backends"]) and whom not in SEAM and not within(who, ["pymimic.backends"])
    past_the_backends = whom in FLOORS[0] and not within(who, CALLS_NATIVE)
    ours = within(who, ["pymimic"]) and who != "pymimic"
    return floor(who) < floor(whom) or (ours and (past_the_seam or past_the_backends))


def reachable(start, arrows):
    seen, todo = set(), [start]
    while todo:
        new = {b for a, b in arrows if a == todo[-1]} - seen
        todo[-1:] = new
        seen |= new
    return seen


def test_imports_go_down_and_through_the_seam(arrows):
    assert sorted(arrow for arrow in arrows if breaks_a_rule(*arrow)) == []


def test_no_import_runs_in_a_circle(arrows):
    assert sorted(module for module in {a for a, _ in arrows} if module in reachable(module, arrows)) == []


def test_the_rules_see_what_they_forbid():
    modules = {"pymimic.nets.student", "pymimic.nets", "pymimic.ops", "pymimic"}
    code = "def f():\n    from ..nets.student import Student\nif TYPE_CHECKING:\n    from .. import ops\nfrom .. import ops, name"
    assert set(imports_of(ast.parse(code), "pymimic.data.cases", False, modules)) == {"pymimic.nets.student", "pymimic.ops", "pymimic"}
    assert breaks_a_rule("pymimic.data.cases", "pymimic.nets.student")
    assert not breaks_a_rule("pymimic.nets.student", "pymimic.data.cases")
    assert breaks_a_rule("pymimic.ops", "pymimic._core")
    assert breaks_a_rule("pymimic.ops", "pymimic.backends.reference")
    assert reachable("a", {("a", "b"), ("b", "c"), ("c", "a")}) == {"a", "b", "c"}


def test_from_fit_to_native_code_at_most_seven_files_each_entered_once():
    pytest.importorskip("pymimic._core")
    stacks = {}

    def note(frame, event, function):
        name = getattr(function, "__name__", "")
        if event == "c_call" and name.startswith("shallow_"):
            files = []
            while frame is not None:
                path = Path(frame.f_code.co_filename)
                if PACKAGE in path.parents:
                    files.append(path.relative_to(PACKAGE).as_posix())
                frame = frame.f_back
            stacks[name] = [file for file, _ in groupby(reversed(files))]

    x, t = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    trainer = Trainer(Student(3, 8, 2, 2), SGD(0.1), epochs=1, batch_size=4)
    sys.setprofile(note)
    try:
        trainer.fit(TransferSet(x, t))
    finally:
        sys.setprofile(None)
    assert any(name.startswith("shallow_step") for name in stacks)
    for files in stacks.values():
        assert files[0] == "training/trainer.py"
        assert len(files) == len(set(files)) <= 7, files
