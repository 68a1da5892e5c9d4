"""Calls of the system fail, one after the other: the old state or the new is there, the error says why, and the next run goes on.

After each fault support/faults.py demands: files are whole, the old ones or the new ones, and none is left over; the error is an OSError
with the file's name, or a MemoryError; no file is left open; and the same work, done again, ends with the bits of a run without faults.
"""

import json
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SUPPORT = Path(__file__).parent / "support"
CSRC = Path(__file__).parents[1] / "csrc"
COMPILER = next(filter(shutil.which, ("g++", "c++", "clang++")), None)
FLAGS = ("-std=c++17", "-O1")
FILES = ("open", "read", "write", "fsync", "close", "rename", "mmap")
READ = ("open", "read", "close", "mmap")
ALL = {
    **{f"save {net}": FILES for net in ("student", "student of 4 bits", "deep net", "convolutional net")},
    "save a first student": FILES,
    **{f"load {net}": READ for net in ("student", "student of 4 bits", "deep net", "convolutional net")},
    "train": FILES,
    "train on": FILES,
    "train on threads": ("allocate", "thread"),
    "train bfloat16": ("allocate",),
    "create": FILES,
    "create compressed": FILES,
    "create in parts": FILES,
    "distill": FILES,
    "distill with a set": FILES,
}
SAMPLE = {
    "save student": ("open:1,3", "read:1,2", "write:1", "fsync:1", "close:2", "rename:1", "mmap:1"),
    "train on threads": ("allocate:1,2,5,9", "thread:2"),
    "train on": ("open:3,9", "write:2", "fsync:2", "rename:2"),
    "create": ("open:7,12", "read:3", "write:2", "fsync:5", "close:9", "rename:3", "mmap:2"),
}


@pytest.fixture(scope="module")
def preload(tmp_path_factory):
    """The library that makes calls fail."""
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc" or COMPILER is None:
        pytest.skip("calls of the system are made to fail by a library that takes Linux, glibc and a C++ compiler")
    library = tmp_path_factory.mktemp("faults") / "libfaults.so"
    subprocess.run([COMPILER, *FLAGS, "-shared", "-fPIC", "-o", library, SUPPORT / "faults.cpp", "-ldl"], check=True)
    return library


def test_an_exception_of_any_member_of_a_team_reaches_the_caller(tmp_path):
    if COMPILER is None:
        pytest.skip("this takes a C++ compiler")
    parallel = CSRC / "cpu" / "parallel.cpp"
    subprocess.run([COMPILER, *FLAGS, f"-I{CSRC}", SUPPORT / "team.cpp", parallel, "-pthread", "-o", tmp_path / "team"], check=True)
    assert subprocess.run([tmp_path / "team"], check=True, capture_output=True, text=True, timeout=100).stdout == "whole\n"


def results_of(preload, scenario, kinds):
    if scenario.startswith("distill"):
        pytest.importorskip("typer")
    environment = {**os.environ, "LD_PRELOAD": os.fspath(preload), "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": os.fspath(SUPPORT)}
    command = [sys.executable, SUPPORT / "faults.py", scenario, *kinds]
    return json.loads(subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout)


@pytest.mark.parametrize("scenario", SAMPLE)
def test_a_sample_of_faults(preload, scenario):
    for kind, result in results_of(preload, scenario, SAMPLE[scenario]).items():
        assert result["problems"] == []
        assert result["faults"] == 2 * len(next(given for given in SAMPLE[scenario] if given.startswith(kind)).split(","))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize(("scenario", "kind"), [(scenario, kind) for scenario, kinds in ALL.items() for kind in kinds])
def test_every_fault(preload, scenario, kind):
    result = results_of(preload, scenario, [kind])[kind]
    assert result["problems"] == []
    assert result["faults"] > 0
