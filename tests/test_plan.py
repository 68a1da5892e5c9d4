"""plan(): how an op will run, as a pure function of the shape."""

import dataclasses

import pytest

import pymimic
from pymimic import Plan
from pymimic.plan import PANEL

PAPER = [
    (512, 1845, 250, 8_000, 183),
    (1024, 1845, 250, 50_000, 183),
    (8192, 1845, 250, 400_000, 183),
    (512, 1845, 1845, 8_000, 183),
    (128, 8192, 1200, 30_000, 10),
    (1, 16, 16, 4096, 26),
    (512, 784, 64, 8192, 10),
    (2048, 512, 64, 100_000, 10),
]


@pytest.mark.parametrize("shape", PAPER, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_papers_shapes(shape, dtype):
    plan = pymimic.plan(*shape, dtype)
    assert (plan.B, plan.D, plan.k, plan.H, plan.C, plan.dtype) == (*shape, dtype)
    assert plan.slab % PANEL == plan.row_block % PANEL == 0
    assert plan.slab > 0
    assert plan.row_block > 0
    itemsize = 4 if dtype == "float32" else 8
    B, _, k, H, C = shape
    assert plan.saved_bytes >= B * H * itemsize
    assert plan.h == ("keep" if plan.saved_bytes <= 256 << 20 else "recompute")
    inputs_and_gradients = 2 * (B * (k + C) + H * (k + C + 1)) * itemsize
    assert plan.workspace_bytes < (64 << 20) + inputs_and_gradients
    assert str(plan).startswith(f"B={B} D={shape[1]} k={k} H={H} C={C} {dtype}: ")


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
def test_the_workspace_is_what_the_passes_hold(dtype):
    """Part by part, k and C being whole panels or not."""
    for k, C in ((64, 32), (70, 10)):
        plan = pymimic.plan(1000, k, k, 5000, C, dtype)
        rows, k32, C32 = 1024, -(-k // 32) * 32, -(-C // 32) * 32
        if dtype == "bfloat16":
            z_and_dy, dz = 2 * 2 * rows * (k32 + C32), 4 * 4 * rows * k32
            h_and_da, weights, gradients = 2 * 2 * 2 * plan.slab * plan.row_block, 3 * 2 * 2, 2 * 4
            assert plan.workspace_bytes == z_and_dy + dz + h_and_da + (weights + gradients) * plan.slab * (k32 + C32)
        else:
            z_and_dy, dz, tiles = rows * (k + k32 + C + C32), rows * k, 2 * 2 * plan.slab * plan.row_block
            assert plan.workspace_bytes == (z_and_dy + dz + tiles + plan.slab * (k + C)) * (4 if dtype == "float32" else 8)


def test_it_depends_on_its_arguments_alone():
    shape = PAPER[1]
    before = pymimic.plan(*shape)
    threads = pymimic.get_num_threads()
    try:
        pymimic.set_num_threads(5)
        assert pymimic.plan(*shape) == before
    finally:
        pymimic.set_num_threads(threads)
    assert hash(pymimic.plan(*shape)) == hash(before)
    with pytest.raises(dataclasses.FrozenInstanceError):
        before.slab = 64


def test_partial_sums_over_units_do_not_depend_on_the_rows():
    """Else a row's prediction would depend on the batch that it came in."""
    slabs = {pymimic.plan(B, 784, 64, 8192, 10).slab for B in (0, 1, 2, 31, 512, 100_000)}
    assert len(slabs) == 1


def test_the_budget_decides_whether_h_is_kept():
    sizes = (100, 5, 5, 1000, 3)
    need = pymimic.plan(*sizes).saved_bytes
    assert pymimic.plan(*sizes, memory_budget=need).h == "keep"
    assert pymimic.plan(*sizes, memory_budget=need - 1).h == "recompute"
    assert pymimic.plan(*sizes, memory_budget=0).h == "recompute"
    assert pymimic.plan(*sizes, "float64").saved_bytes == 2 * need


def test_how_h_is_kept_can_be_asked_for():
    sizes = (100, 5, 5, 1000, 3)
    for h in ("recompute", "keep", "keep-bf16"):
        assert pymimic.plan(*sizes, h=h).h == pymimic.plan(*sizes, memory_budget=0, h=h).h == h
    assert 2 * pymimic.plan(*sizes, h="keep-bf16").saved_bytes == pymimic.plan(*sizes).saved_bytes
    assert "bfloat16" in str(pymimic.plan(*sizes, h="keep-bf16"))
    assert pymimic.plan(*sizes).h == "keep"  # bfloat16 is never chosen unasked
    with pytest.raises(ValueError, match=r"^h: expected .*, got 'bf16'"):
        pymimic.plan(*sizes, h="bf16")
    with pytest.raises(ValueError, match=r"^h: expected .*, got 'float64'"):
        pymimic.plan(*sizes, "float64", h="keep-bf16")


def test_sizes_past_two_to_the_31_are_computed_in_full():
    plan = pymimic.plan(2**20, 2**16, 2**10, 2**32, 2**10)
    assert plan.saved_bytes == 2**54
    assert plan.h == "recompute"
    assert plan.workspace_bytes > 2**31


@pytest.mark.parametrize("zero", ["B", "D", "k", "H", "C"])
def test_zero_sizes(zero):
    plan = pymimic.plan(**{**dict.fromkeys("BDkHC", 7), zero: 0})
    assert isinstance(plan, Plan)
    assert plan.slab >= PANEL
    assert plan.row_block >= PANEL


@pytest.mark.parametrize("name", ["B", "D", "k", "H", "C", "memory_budget"])
def test_negative_sizes_are_refused(name):
    with pytest.raises(ValueError, match=rf"^{name}: expected .*, got -1"):
        pymimic.plan(**{**dict.fromkeys("BDkHC", 7), name: -1})


def test_unknown_dtype_is_refused():
    with pytest.raises(ValueError, match=r"^dtype: expected .*, got 'float16'"):
        pymimic.plan(1, 1, 1, 1, 1, "float16")
