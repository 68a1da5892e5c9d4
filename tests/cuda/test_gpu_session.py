"""What benchmarks/gpu_session.py runs on a device, in small sizes: its references agree with the kernels, its rows are whole."""

import importlib
import sys

import pytest
from gpu.session import BENCHMARKS

from pymimic.bench.shapes import SHAPES

NAMES = ("mnist-8k", "timit-dense")


def loaded():
    """What must not be met with another CuPy than it was imported with."""
    return [name for name in sys.modules if name.split(".")[0] in ("gpu", "peers", "ceilings_cuda")]


@pytest.fixture
def session(device, monkeypatch):
    """Imports a module of benchmarks/gpu anew, set to small sizes."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    for name in loaded():
        monkeypatch.delitem(sys.modules, name)
    for name in NAMES:
        monkeypatch.setitem(SHAPES, name, SHAPES[name].small())
    checks, measure = importlib.import_module("gpu.checks"), importlib.import_module("gpu.measure")
    for name, value in {"BATCHES": (1, 9), "RUNS": 3, "POISON_VALUES": 1 << 12}.items():
        monkeypatch.setattr(checks, name, value)
    for name, value in {"FLUSH_BYTES": 1 << 12, "MOST": 5}.items():
        monkeypatch.setattr(measure, name, value)
    yield lambda name: importlib.import_module(f"gpu.{name}")
    for name in loaded():
        sys.modules.pop(name)


@pytest.mark.parametrize("shape", NAMES)
def test_checks_against_float64(session, shape):
    rows = list(session("checks").accuracy(shape))
    assert len(rows) == 8
    assert all(row["ok"] for row in rows), rows


def test_checks_of_layers_and_bits(session):
    checks = session("checks")
    rows = list(checks.layers())
    assert len(rows) == 18
    assert all(row["ok"] for row in rows), rows
    assert all(row["ok"] for row in checks.bits("mnist-8k", 9, "bfloat16"))


def test_a_wrong_result_is_seen(session, monkeypatch):
    checks = session("checks")
    real = checks.ops.shallow_forward

    def slightly_off(*arguments, **keywords):
        y = real(*arguments, **keywords)
        y[0, 0] = y[0, 0] * 1.5 + 0.5
        return y

    monkeypatch.setattr(checks.ops, "shallow_forward", slightly_off)
    assert not any(row["ok"] for row in checks.accuracy("mnist-8k"))


@pytest.mark.slow
def test_small_calls(session):
    assert len(list(session("checks").small_calls())) == 49


def test_kernels_and_serving(session):
    kernels = session("kernels")
    rows = list(kernels.shallow("mnist-8k", [9], {"fp16": [9], "float32": [5]}))
    assert [row["kernel"] for row in rows] == ["forward", "rows", "units", "step", "forward", "forward", "rows", "units", "step"]
    assert all(row["seconds"] > 0 and row["gflops"] > 0 for row in rows)
    served = list(kernels.serving(["mnist-8k"]))
    assert [row["weights"] for row in served] == ["bf16", "bf16", "int8", "int8"]
    assert all(row["ok"] for row in served), served


def test_ways(session, monkeypatch):
    ways = session("ways")
    monkeypatch.setattr(ways, "H", 70)
    monkeypatch.setattr(ways, "SIZES", ((20, 9),))
    rows = list(ways.ways([9]))
    assert [row["way"] for row in rows] == list(ways.WAYS) * 3
    assert {row["dtype"] for row in rows} == set(ways.KINDS)
    assert all(row["ok"] and row["seconds"] > 0 for row in rows), rows


def test_steps(session):
    rows = list(session("steps").race("mnist-8k", "pymimic_cuda", [9], ["step", "adamw", "forward"]))
    assert [(row["B"], row["what"]) for row in rows] == [(9, what) for what in ("step", "adamw", "forward")]
    assert all(row["ok"] for row in rows), rows


@pytest.mark.slow
def test_training(session, monkeypatch):
    train = session("train")
    whole = train.generated
    monkeypatch.setattr(train, "generated", lambda: whole(300, 100))
    monkeypatch.setattr(train, "EPOCHS", 1)
    (row,) = train.student("cuda", "bfloat16", None)
    assert row["data"] == "generated"
    assert len(row["logits"]) == train.SHOWN
