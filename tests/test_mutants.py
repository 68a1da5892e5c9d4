"""tools/mutants.py: which faults it makes, and what it counts."""

import ast
import sys
from pathlib import Path

import pytest

TOOLS = Path(__file__).parents[1] / "tools"
if not TOOLS.exists():
    pytest.skip("the tools are in a checkout alone", allow_module_level=True)
sys.path.append(str(TOOLS))

pytest.importorskip("coverage")
import mutants  # noqa: E402
from mutation.cpp_faults import cpp_faults  # noqa: E402
from mutation.python_faults import python_faults  # noqa: E402

PYTHON = '''"""Says 1 < 2."""

def mean(x: "int < 3", rows=7, *, keep=True):
    """The mean of 4 < 5."""
    if not keep and len(x) < rows:
        raise ValueError(f"x: expected {rows + 1} rows, got {len(x)}")
    total = 0.5
    for value in x:
        total += value
    return scaled(total / len(x), by=2 * rows)
'''
WANTED = {
    ("default", "(7 + 1)"), ("default", "False"), ("condition", "keep"), ("condition", "or"), ("comparison", "<="), ("statement", "pass"),
    ("constant", "1.0"), ("arithmetic", "-="), ("arithmetic", "*"), ("argument", ""), ("constant", "(2 + 1)"), ("arithmetic", "/"),
}  # fmt: skip


def changed(faults, text):
    return {fault.name: fault.applied(text) for fault in faults}


def test_faults_of_python():
    faults = python_faults("a.py", PYTHON)
    kinds = {(fault.kind, fault.new) for fault in faults}
    assert kinds >= WANTED
    assert len({fault.name for fault in faults}) == len(faults) == len({*changed(faults, PYTHON).values()})
    for fault in faults:
        ast.parse(fault.applied(PYTHON))  # it is Python still
        assert fault.function == "mean"
        assert fault.applied(PYTHON) != PYTHON


def test_nothing_that_only_says_something_is_changed():
    """Documentation, annotations and messages stay: whatever is changed, they can be found."""
    for text in changed(python_faults("a.py", PYTHON), PYTHON).values():
        for kept in ('"""Says 1 < 2."""', 'x: "int < 3"', '"""The mean of 4 < 5."""'):
            assert kept in text
        assert 'f"x: expected {rows + 1} rows, got {len(x)}"' in text or "raise" not in text


def test_a_default_concerns_the_tests_of_the_body():
    lines = {fault.lines for fault in python_faults("a.py", PYTHON) if fault.kind == "default"}
    assert lines == {tuple(range(4, 11))}


@pytest.mark.parametrize("path", ["data/cases.py", "training/loop.py", "ops/shallow.py", "optimizer.py"])
def test_every_fault_of_the_package_can_be_parsed_and_named(path):
    text = (TOOLS.parent / "pymimic" / path).read_text()
    faults = python_faults(path, text)
    assert len(faults) > 30
    assert len({fault.name for fault in faults}) == len(faults)
    for fault in faults if len(faults) < 500 else faults[::5]:
        ast.parse(fault.applied(text))


CPP = """// a < b
#if defined(__AVX512F__)
int wide = 1 < 2;
#else
#endif
#define LESS 1 < 2
void sum(const float* x, int64_t n, float* to) {
  for (int64_t i = 0; i < n; ++i) to[i] = x[i] * 2 + 1;
  clear(to, n);
  static_assert(1 < 2, "1 < 2");
}
"""


def test_faults_of_cpp():
    faults = cpp_faults("a.h", CPP)
    kinds = {(fault.kind, fault.new) for fault in faults}
    assert kinds == {
        ("operator", "<="), ("operator", "+"), ("operator", "-"), ("constant", "1"), ("constant", "3"), ("constant", "2"),
        ("statement", ";"), ("int64_t", "int"),
    }  # fmt: skip
    for text in changed(faults, CPP).values():
        for kept in ("// a < b", "#define LESS 1 < 2", 'static_assert(1 < 2, "1 < 2");', "const float* x"):
            assert kept in text
    assert {fault.function for fault in faults} == {"sum"}
    assert len(faults) == len({fault.name for fault in faults})


def test_a_report_leaves_out_what_changes_nothing():
    results = {
        "pymimic/data/a.py | f | 1": {"status": "killed", "test": ""},
        "pymimic/data/a.py | f | 2": {"status": "timed out", "test": ""},
        "pymimic/data/a.py | f | 3": {"status": "lived", "test": "no test runs it"},
        "pymimic/data/a.py | f | 4": {"status": "lived", "test": "3 of 3 tests run"},
        "csrc/cpu/a.h | f | 5": {"status": "not compiled", "test": ""},
    }
    said = mutants.report(results, {"pymimic/data/a.py | f | 4": "the same"})
    assert "2 of 3 died (66.7 %); 1 more change nothing, 1 do not compile" in said
    assert "lived: pymimic/data/a.py | f | 3  [no test runs it]" in said
    assert "f | 4" not in said


@pytest.mark.parametrize("file", [mutants.EQUIVALENT, mutants.LIVED], ids=lambda file: file.name)
def test_what_has_a_reason_is_there(file):
    """A reason is of no use once its line has changed."""
    texts, names, listed = {}, set(), mutants.reasons_in(file)
    for name in listed:
        path = name.partition(" | ")[0]
        if path not in texts:
            texts[path] = (TOOLS.parent / path).read_text()
            make = python_faults if path.endswith(".py") else cpp_faults
            names |= {fault.name for fault in make(path, texts[path])}
    assert set(listed) <= names
