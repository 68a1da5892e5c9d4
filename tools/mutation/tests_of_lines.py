"""Which tests run which lines, and how long they take: recorded once, so that a fault meets those alone that could notice it."""

from __future__ import annotations

import ast
import itertools
import json
import math
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path

from coverage import Coverage, CoverageData

from .faults import Fault
from .python_faults import statements
from .tree import Tree

# Not recorded: what tests no Python of ours, or measures, or trains for minutes.
_LEFT_OUT = ("simt", "cuda", "bench", "torch", "test_paper.py", "test_demo.py", "test_examples.py", "test_documents.py")
# What coverage cannot see: the tests of files that are compiled, by the first beginning that fits.
_COMPILED = {
    "csrc/cpu/serving/": ("predictor", "compressed"),
    "csrc/cpu/amx/": ("bf16x3", "bfloat16", "core_plan"),
    "csrc/cpu/vector/mask.h": ("dropout", "linear", "shallow"),
    "csrc/cpu/vector/elementwise.h": ("optimizer", "shallow", "linear"),
    "csrc/cpu/linear.h": ("linear", "factorized", "layers"),
    "csrc/cpu/shallow.h": ("shallow", "optimizer", "determinism"),
    "csrc/cpu/": (
        "core_plan", "dropout", "shallow", "linear", "factorized", "layers", "losses", "optimizer", "rounding", "bf16x3", "bfloat16",
        "determinism", "dispatch", "threads", "memory", "predictor", "convolution",
    ),
    "pymimic/backends/_numba_kernels.py": ("shallow", "linear", "factorized", "layers", "dropout", "determinism", "numba", "memory"),
}  # fmt: skip
_OF_DEFAULTS = "tests/test_defaults.py"  # which reads them, and runs none of the lines behind them
_NEAR = 3  # files


def files_of_tests(names: Sequence[str] = _COMPILED["csrc/cpu/"]) -> list[str]:
    """The files of those subjects; by default those that try all of `csrc/cpu/`."""
    return [f"tests/test_{name}.py" for name in names]


class Map:
    """What was recorded, in a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._files = folder, {}
        self.seconds: dict[str, float] = {}
        if (folder / "seconds.json").exists():
            self.seconds = json.loads((folder / "seconds.json").read_text())

    def record(self, tree: Tree, tests: list[str]) -> None:
        """Run the tests, all of them where none are named, and add what they run."""
        if not tests:
            for old in self.folder.glob("lines*"):
                old.unlink()
            self.seconds = {}
        raw, seconds = self.folder / "raw", self.folder / "raw.json"
        names = {"MUTANTS_DATA": raw, "MUTANTS_SECONDS": seconds, "MUTANTS_SOURCE": tree.folder / "pymimic"}
        environment = tree.environment() | {name: str(value) for name, value in names.items()}
        environment["PYTHONPATH"] += os.pathsep + str(Path(__file__).resolve().parent)
        chosen = tests or ["tests", *(f"--ignore=tests/{name}" for name in _LEFT_OUT)]
        command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "-p", "recorder", "--tb=line", *chosen]
        subprocess.run(command, cwd=tree.folder, env=environment)
        lines = Coverage(data_file=str(self.folder / "lines"))
        if tests:
            lines.load()
        lines.combine([str(path) for path in self.folder.glob("raw.*.*")])
        lines.save()
        self.seconds |= json.loads(seconds.read_text())
        (self.folder / "seconds.json").write_text(json.dumps(self.seconds))

    def tests(self, tree: Tree, fault: Fault) -> list[str]:
        """The tests that concern a fault."""
        compiled = next((names for path, names in _COMPILED.items() if fault.path.startswith(path)), None)
        if compiled is not None:
            files = files_of_tests(compiled)
            chosen = {test for test in self.seconds if test.partition("::")[0] in files}
        else:
            by_line = self._by_line(fault.path)
            static = {line for statement in statements((tree.folder / fault.path).read_text()) for line in _lines(statement)}
            lines = set(by_line) if static.issuperset(fault.lines) else fault.lines
            chosen = {test for line in lines for test in by_line.get(line, ())}
        if fault.kind == "default":
            chosen |= {test for test in self.seconds if test.startswith(_OF_DEFAULTS)}
        return sorted(test for test in chosen if self.seconds.get(test, math.inf) != math.inf)

    def within(self, tests: list[str], budget: float) -> list[str]:
        """As many of the tests as take so many seconds, and one at least.

        Half of the time goes to the files that have most of them, which are about what is wrong: the quickest there. Then come, of all
        files, those that run the fewest lines, which come by it for its own sake.
        """
        near = [file for file, _ in Counter(test.partition("::")[0] for test in tests).most_common(_NEAR)]
        first = sorted((test for test in tests if test.partition("::")[0] in near), key=lambda test: self.seconds[test])
        chosen = self._first(first, budget / 2)
        others = sorted(set(tests) - set(chosen), key=lambda test: (self.lines.get(test, 0), self.seconds[test], test))
        return chosen + self._first(others, budget - sum(self.seconds[test] for test in chosen))

    def _first(self, tests: list[str], budget: float) -> list[str]:
        """Those of the tests that come first, as long as they fit."""
        ends = itertools.accumulate(self.seconds[test] for test in tests)
        return [test for i, (test, end) in enumerate(zip(tests, ends)) if end <= budget or i == 0]

    @cached_property
    def _data(self) -> CoverageData:
        data = CoverageData(str(self.folder / "lines"))
        data.read()
        return data

    @cached_property
    def lines(self) -> Counter[str]:
        """How many lines each test runs."""
        files = (self._data.contexts_by_lineno(file) for file in self._data.measured_files())
        return Counter(test for by_line in files for tests in by_line.values() for test in tests)

    def _by_line(self, path: str) -> dict[int, list[str]]:
        if path not in self._files:
            recorded = [file for file in self._data.measured_files() if file.endswith(f"/tree/{path}")]
            self._files[path] = self._data.contexts_by_lineno(recorded[0]) if recorded else {}
        return self._files[path]


def _lines(statement: ast.stmt) -> range:
    return range(statement.lineno, statement.end_lineno + 1)
