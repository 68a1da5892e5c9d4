"""The fuzzer finds faults that are put in, keeps the input, and says where it is."""

import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "tools" / "fuzz"
PUT_IN = """
import os, signal
from pymimic.errors import FileFormatError
from pymimic.nets.student import Student
real = Student._fill
def fill(self, path, arrays, metadata):
    configuration = metadata.get("configuration")
    if isinstance(configuration, dict) and configuration.get("seed", 0) != 0:
        {fault}
    real(self, path, arrays, metadata)
Student._fill = fill
"""
FAULTS = {  # what a file of another seed does, and what is said of it
    "an exception": ("raise ZeroDivisionError('x')", "not a documented exception: ZeroDivisionError: x"),
    "a dead process": ("os.kill(os.getpid(), signal.SIGSEGV)", "the process ended with -11 in this input"),
    "no end": ("while True: pass", "the process ended with -14 in this input"),  # SIGALRM
    "memory": ("bytearray(1 << 28)", "not a documented exception: MemoryError"),
    "another file": ("open('{elsewhere}', 'w').close()", "open outside of the folder: {elsewhere}"),
    "a folder": ("os.path.isdir('{elsewhere}') or os.mkdir('{elsewhere}')", "os.mkdir outside of the folder: {elsewhere}"),
    "a program": ("os.system('true')", "os.system"),
    "no reason": ("raise FileFormatError('path: no')", "a message that does not say what was expected"),
    "no file": ("raise FileFormatError('path: expected another')", "a message that names no file"),
}
FAST = ("an exception", "a dead process")


def fuzz(folder, *options, put_in="", target="nets"):
    (first := folder / "first.py").write_text(put_in)
    command = [sys.executable, FUZZ, f"--target={target}", "--runs=300", "--seconds=2", f"--keep={folder / 'kept'}", f"--first={first}"]
    return subprocess.run([*command, *options], capture_output=True, text=True)


@pytest.mark.parametrize("engine", ["plain", pytest.param("coverage", marks=pytest.mark.slow)])
@pytest.mark.parametrize("fault", [pytest.param(name, marks=[] if name in FAST else pytest.mark.slow) for name in FAULTS])
def test_a_fault_that_is_put_in_is_found(tmp_path, fault, engine):
    if engine == "coverage" and importlib.util.find_spec("atheris") is None:
        pytest.skip("atheris is not installed")
    does, said = (text.replace("{elsewhere}", str(tmp_path / "elsewhere")) for text in FAULTS[fault])
    ended = fuzz(tmp_path, *(["--plain"] if engine == "plain" else []), put_in=PUT_IN.format(fault=does))
    assert ended.returncode == 1, ended.stderr
    assert said in ended.stdout
    (kept,) = {Path(found) for found in re.findall(r"^    input (.*)$", ended.stdout, re.MULTILINE)}
    again = fuzz(tmp_path, f"--replay={kept}", put_in=PUT_IN.format(fault="raise ArithmeticError"))
    assert "ArithmeticError" in again.stderr


@pytest.mark.parametrize("target", ["nets", "checkpoints", "labelling", "ops"])  # .ci/full has all of them
def test_the_library_as_it_is_has_none_of_them(tmp_path, target):
    ended = fuzz(tmp_path, "--plain", "--seconds=60", target=target)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    assert re.search(rf"{target}: \d+ inputs in \d+ s, 0 kinds of failure", ended.stdout)
    assert "without coverage: as asked" in ended.stdout
    assert not (tmp_path / "kept").exists()


def test_without_atheris_it_says_so():
    arguments = ["fuzz", "--target=idx", "--runs=5"]
    code = f"import runpy, sys; sys.modules['atheris'] = None; sys.argv = {arguments}; runpy.run_path({str(FUZZ)!r}, run_name='__main__')"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert "without coverage: atheris is not installed\nidx: 5 inputs" in ended.stdout
    assert ended.returncode == 0, ended.stderr
