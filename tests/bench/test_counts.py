"""What `pymimic bench` counts: operations, bytes, and the machine's ceilings."""

import numpy as np
import pytest
from bench_cases import DENSE, TINY

from pymimic.bench import machine, suite
from pymimic.bench.shapes import SHAPES, WHATS, arrays


def count_products(shape, what):
    """Multiplications and additions of every matrix product of the reference, written down one by one."""
    B, D, k, H, C = shape.B, shape.D, shape.rank, shape.H, shape.C
    bottleneck = [(B, D, k)] if shape.k else []
    products = [*bottleneck, (B, k, H), (B, H, C)]  # z, a, y
    if what in ("step", "adamw"):
        products += [(B, C, H), (H, B, C), (H, B, k)]  # dh, dW, dU
        products += [(B, H, k), (k, B, D)] if shape.k else []  # dz, dV
    return sum(2 * m * n * p for m, n, p in products)


@pytest.mark.parametrize("what", WHATS)
@pytest.mark.parametrize("shape", [TINY, DENSE, *SHAPES.values()], ids=lambda shape: shape.name)
def test_operations(shape, what):
    assert shape.operations(what) == count_products(shape, what)
    again = shape.operations(what, recompute=True) - shape.operations(what)
    assert again == (2 * shape.B * shape.H * shape.rank if what in ("step", "adamw") else 0)


@pytest.mark.parametrize("shape", [TINY, DENSE], ids=lambda shape: shape.name)
def test_least_bytes(shape):
    a = arrays(shape)
    rows, weights = a["x"].nbytes + a["t"].nbytes, sum(a[name].nbytes for name in "VUbWc" if name in a)
    assert shape.parameters * 4 == weights
    assert shape.least_bytes("forward") == rows + weights
    assert shape.least_bytes("step") == rows + 2 * weights  # weights in, gradients out
    assert shape.least_bytes("adamw") == rows + 6 * weights  # weights, mean and square in and out
    assert shape.least_bytes("forward", weight_bytes=2) == rows + weights / 2


def test_timit_400k_has_the_parameters_of_the_paper():
    assert SHAPES["timit-400k"].parameters == 174_061_433


def test_bounds_take_the_ceilings_of_the_precision_and_of_the_nearest_size():
    ceilings = {"float32": 100.0, "float64": 50.0, "bfloat16": 0.0, "read": {"1048576": 40.0, "67108864": 10.0}}
    assert suite.bounds(ceilings, "float32", 1e9, 1e6) == pytest.approx((0.01, 1e6 / 40e9))
    assert suite.bounds(ceilings, "float64", 1e9, 1e9) == pytest.approx((0.02, 0.1))
    assert suite.bounds(ceilings, "bfloat16", 1e9, 1e9)[0] == pytest.approx(0.01)  # no such unit: float32's


def test_ceilings_are_measured(ceilings):
    assert ceilings["float32"] > ceilings["float64"] / 2 > 0  # twice as much where nothing else runs, but other programs do
    assert ceilings["copy"] > 0
    assert all(rate > 0 for rate in ceilings["read"].values())


def test_of_several_measurements_of_the_ceilings_the_highest_counts():
    first, later = {"float32": 10.0, "copy": 4.0, "read": {"1": 3.0, "2": 1.0}}, {"float32": 20.0, "read": {"1": 2.0, "2": 5.0}}
    assert machine.highest(first, {"float32": 15.0}, later) == {"float32": 20.0, "copy": 4.0, "read": {"1": 3.0, "2": 5.0}}


@pytest.mark.parametrize("rises", ["beside the turns", "after the race"])
def test_shares_are_those_of_the_highest_ceiling(monkeypatch, rises):
    """A machine that was busy at the start, when its ceilings looked low, shows no more than 100 % of them later."""
    low = {"float32": 1.0, "float64": 1.0, "bfloat16": 0.0, "read": {"1048576": 1e6}, "copy": 1.0}
    measured = {False: low, True: low | {"float32": 4.0} if rises == "after the race" else low}
    speed = type("Speed", (), {"best": {"float32": 4e9 if rises == "beside the turns" else 1e9}})
    row = {"precision": "float32", "executed": 2e9, "least_bytes": 1.0, "seconds": 1.0}
    monkeypatch.setattr(machine, "ceilings", lambda folder, again=False, **more: measured[again])
    monkeypatch.setattr(machine, "CoreSpeed", speed)
    monkeypatch.setattr(suite, "_run_case", lambda *args: [([row], [])])
    shown = []
    result = suite.run(["mnist-8k"], ["forward"], ["numpy"], done=lambda head, rows: shown.append((head["ceilings"]["float32"], rows)))
    assert [(ceiling, row["bound"], row["of_ceiling"]) for ceiling, (row,) in shown] == [(4.0, "FMA", 0.5)]
    assert [row["of_ceiling"] for row in result["results"]] == [0.5]
    assert result["ceilings"]["float32"] == 4.0


def test_the_core_counts_what_it_did():
    from pymimic import _core

    for dtype in ("float32", "float64"):
        assert _core.multiply_adds(dtype, 20) == 2 * _core.multiply_adds(dtype, 10) > 0
    assert _core.multiply_adds("float16", 10) == 0
    for size in (0, 1, 1000, 100_003):
        assert _core.sum_all(np.ones(size, np.float32)) == size
        assert _core.sum_all(np.arange(size, dtype=np.float64)) == size * (size - 1) / 2
