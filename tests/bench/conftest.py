"""Fixtures of the tests of `pymimic bench`."""

import json
import sys

import pytest
from bench_cases import TINY

from pymimic.bench import machine, verify, worker
from pymimic.bench.shapes import WHATS


@pytest.fixture(scope="session")
def ceilings():
    """Rough ones, in no time."""
    return machine.ceilings(worker.peers_folder(), fast=True)


@pytest.fixture
def case(tmp_path):
    """A folder with a tiny case, all results expected."""
    verify.write_case(TINY, tmp_path, set(WHATS))
    return tmp_path


@pytest.fixture
def peers(tmp_path_factory, monkeypatch):
    """Writes a contestant's file into a folder of its own, in place of the real ones."""
    folder = tmp_path_factory.mktemp("benchmarks")
    (folder / "peers").mkdir()
    monkeypatch.setattr(worker, "peers_folder", lambda: folder)
    monkeypatch.syspath_prepend(str(folder))
    yield lambda name, text: (folder / "peers" / f"{name}.py").write_text(text)
    for module in [name for name in sys.modules if name == "peers" or name.startswith("peers.")]:
        del sys.modules[module]


@pytest.fixture(scope="session")
def result(ceilings, tmp_path_factory):
    """What a fast run of the command writes."""
    from pymimic.bench import command

    file = tmp_path_factory.mktemp("bench") / "result.json"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine, "ceilings", lambda folder, **more: ceilings)
        command.bench(shapes="mnist-8k", peers="numpy", what="all", json=file, fast=True)
    return json.loads(file.read_text())
