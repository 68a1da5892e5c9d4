"""What benchmarks/gpu_session.py runs on a device, in small sizes: its references agree with the kernels, its rows are whole."""

import importlib
import importlib.util
import sys
from itertools import product

import pytest
from gpu.session import BENCHMARKS
from gpu_checkout import Checkout

import pymimic
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
    small = {
        "checks": {"BATCHES": (1, 9), "RUNS": 3},
        "problems": {"POISON_VALUES": 1 << 12},
        "measure": {"FLUSH_BYTES": 1 << 12, "MOST": 5},
    }
    for module, values in small.items():
        for name, value in values.items():
            monkeypatch.setattr(importlib.import_module(f"gpu.{module}"), name, value)
    yield lambda name: importlib.import_module(f"gpu.{name}")
    for name in loaded():
        sys.modules.pop(name)


@pytest.mark.parametrize("shape", NAMES)
def test_checks_against_float64(session, shape):
    rows = list(session("checks").accuracy(shape))
    assert len(rows) == 8
    assert all(row["ok"] for row in rows), rows


@pytest.mark.slow
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
    assert len(list(session("smoke").small_calls("memcheck"))) == 87


def test_kernels_and_serving(session):
    kernels = session("kernels")
    rows = list(kernels.shallow("mnist-8k", {"bf16": [9], "fp16": [9], "float32": [5]}))
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


@pytest.fixture
def checkout(emulated, tmp_path):
    """For gpu_session.py, run as a program by a Python that has no pymimic and no metadata of it."""
    core = importlib.util.find_spec("pymimic._core")
    if emulated is None or core is None:
        pytest.skip("this needs the emulated kernels and the compiled core")
    return Checkout(tmp_path, [emulated.__file__, core.origin])


def test_a_task_from_an_in_place_build_without_metadata(checkout):
    status, records, _, said = checkout.call("--call", "A", "--task", "ceilings")
    assert [(record["task"], record["status"]) for record in records] == [(name, "ok") for name in ("build", "smoke", "ceilings")], records
    assert records[-1]["rows"][0]["machine"]["pymimic"] == pymimic.__version__
    assert said == ""
    assert status == 0


def test_call_a_and_the_same_tree_sent_again(checkout):
    status, records, table, said = checkout.call("--call", "A")
    names = [
        "build",
        "smoke",
        "accuracy, mnist-8k",
        "kernels, k = C = 128",
        "kernels, timit-400k",
        "ceilings",
        "Nsight Compute",
        "memcheck",
    ]
    assert [(record["task"], record["status"]) for record in records] == [(name, "ok") for name in names], records
    assert status == 0, said
    assert "PYMIMIC_ISAS=" in checkout.cmake_log.read_text()
    assert "CMAKE_CUDA_ARCHITECTURES=90a-real" in checkout.cmake_log.read_text()
    smoke = {row["call"]: row for row in records[1]["rows"] if "call" in row}
    assert {"bf16 forward", "bf16 rows", "bf16 units", "bf16 step", "serve int8"} <= smoke.keys()
    assert all(kernel.keys() == {"name", "ptxVersion", "binaryVersion", "numRegs"} for kernel in smoke["bf16 forward"]["kernels"])
    assert [(row["B"], row["kernel"]) for row in records[4]["rows"]] == [*product((9, 5), ("forward", "rows", "units", "step"))]
    assert [row["skipped"] for row in (*records[6]["rows"], *records[7]["rows"])] == [
        "no ncu on this machine",
        "no compute-sanitizer on this machine",
    ]
    assert "left for the next time, rest: racecheck; pytest; ways; serving; training" in table
    assert "next time, A" not in table

    built = checkout.cmake_log.read_text()
    checkout.send_again()
    status, records, _, _ = checkout.call("--call", "A")
    assert [(record["task"], record["rows"]) for record in records] == [("build", [{"built": False}])]
    assert (status, checkout.cmake_log.read_text()) == (0, built)


@pytest.mark.slow
def test_call_b(checkout):
    status, records, table, said = checkout.call("--call", "B")
    ours, rival = "pymimic_cuda_bf16", "torch_compile_cuda_bf16"
    steps = [
        f"step, {of}" for of in (f"wide-100k, {ours}", f"mnist-8k, {ours}", "mnist-8k, pymimic_cuda_graph_bf16", f"timit-400k, {ours}")
    ]
    compiled = [f"step, {shape}, {rival}, {B}" for shape, B in product(("wide-100k", "mnist-8k", "timit-400k"), (9, 5))]
    bits = ["same bits, mnist-8k, bfloat16", "same bits, wide-100k, bfloat16"]
    names = ["build", "smoke", *steps, compiled[0], *bits, *compiled[1:]]
    assert [(record["task"], record["status"]) for record in records] == [(name, "ok") for name in names], records
    assert [(row["B"], row["what"]) for row in records[2]["rows"]] == [(9, "adamw"), (5, "adamw")]
    assert status == 0, said
    assert "left for the next time, A: accuracy; kernels; ceilings; Nsight Compute; memcheck\n" in table


def test_nothing_runs_after_a_wrong_result_of_the_first_try(checkout):
    checkout.replace("benchmarks/gpu/smoke.py", r'"bf16": 2e-2', '"bf16": 1e-9')
    for _ in range(2):
        status, records, _, said = checkout.call("--call", "B")
        assert [record["task"] for record in records] == ["build", "smoke"]
        assert (status, said) == (1, "smoke failed: nothing after it was run\n")


@pytest.mark.slow
def test_a_kernel_that_hangs_is_not_tried_again(checkout):
    checkout.replace("benchmarks/gpu/kernels.py", r'yield "units", lambda: ', 'yield "units", lambda: __import__("time").sleep(100) or ')
    checkout.replace("benchmarks/gpu/watch.py", r"within: float = 30\.0", "within: float = 8.0")
    status, records, table, _ = checkout.call("--call", "A", "--task", "^kernels")
    first, second = "kernels, k = C = 128", "kernels, timit-400k"
    assert [(record["task"], record["status"]) for record in records[2:]] == [(first, "hung"), (second, "ok"), (first, "ok")]
    assert records[2]["error"] == "nothing came back from bf16 units"
    assert all(record["left out"] == ["bf16 units"] * 2 for record in records[3:])
    assert [row["kernel"] for row in records[4]["rows"]] == ["forward", "rows", "step"] * 2
    assert f"LEFT OUT of {second}, as such calls hung: bf16 units" in table
    assert status == 1
