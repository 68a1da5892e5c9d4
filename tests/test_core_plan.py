"""How the compiled core runs a shallow op: one C++ function says it (csrc/cpu/plan.h), and the kernels do it."""

import numpy as np
import pytest
from instruction_sets import use_backend

import pymimic
from pymimic import ops
from pymimic.backends import get
from pymimic.plan import FEW_ROWS

SHAPES = [(1, 7, 40, 3), (8, 64, 700, 10), (9, 64, 700, 10), (100, 700, 450, 33), (1300, 20, 300, 10), (300, 250, 513, 183), (5, 3, 0, 2)]
# instruction set, backend, what multiplies, bfloat16 values that stand for a number
WAYS = [
    ("cpu-baseline", "cpu", "vectors", 0), ("cpu-avx512", "cpu", "vectors", 0), ("cpu-baseline", "cpu-bf16", "pairs", 1),
    ("cpu-avx512", "cpu-bf16", "pairs", 1), ("cpu-amx_model", "cpu-bf16", "tiles", 1), ("cpu-amx_model", "cpu-bf16x3", "tiles_x3", 3),
    ("cpu-amx", "cpu-bf16", "tiles", 1), ("cpu-amx", "cpu-bf16x3", "tiles_x3", 3),
]  # fmt: skip


@pytest.fixture
def one_thread():
    """So that the calling thread counts all that is done."""
    before = pymimic.get_num_threads()
    pymimic.set_num_threads(1)
    yield
    pymimic.set_num_threads(before)


def test_few_rows_are_as_many_in_python():
    from pymimic import _core

    assert _core.FEW_ROWS == FEW_ROWS


def ceil_div(a, b):
    return -(-a // b)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("isa", "backend", "by", "terms"), WAYS, ids=lambda value: str(value))
@pytest.mark.parametrize("saves", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_the_kernels_do_what_the_plan_says(isa, backend, by, terms, shape, saves, dropout):
    from pymimic import _core

    if saves and backend == "cpu-bf16":
        pytest.skip("h is not kept")
    B, k, H, C = shape
    if by == "tiles_x3" and B <= _core.FEW_ROWS:
        by, terms = "vectors", 0
    r = np.random.default_rng(0)
    z, U, b, W, c, dy = (r.standard_normal(size, dtype=np.float32) for size in ((B, k), (H, k), H, (H, C), C, (B, C)))
    how = pymimic.plan(B, k, k, H, C, h="keep" if saves else "recompute")

    def expected(backward, dz, makes_h):
        plan = _core.shallow_plan(B, k, H, C, how.slab, how.row_block, True, terms, backward, dz, saves and not backward, dropout > 0)
        assert plan["by"] == by
        slabs, blocks = ceil_div(H, plan["slab"]), ceil_div(32 * ceil_div(B, 32), plan["row_block"])
        tiles, runs = by.startswith("tiles"), ceil_div(k, plan["k_run"]) if plan["k_run"] and makes_h else 0
        return {
            "by": by, "few_rows": plan["few_rows"], "slabs": slabs, "row_blocks": slabs * blocks if backward else 0,
            "parts": plan["parts"] if tiles else 0, "k_runs": slabs * blocks * runs,
        }  # fmt: skip

    with use_backend(isa):
        settings = {"dropout": dropout, "seed": 3, "plan": how, "backend": backend}
        done = ops.shallow_forward(z, U, b, W, c, save=saves, **settings)
        assert _core.last_shallow_run() == expected(False, False, True)
        assert _core.last_shallow_run()["few_rows"] == (by == "vectors" and B <= _core.FEW_ROWS and not saves and not dropout)
        saved = done[1] if saves else None
        for needs in (("z", "U", "b", "W", "c"), ("U", "W"), ("z",)):
            ops.shallow_backward(dy, z, U, b, W, saved=saved, needs=needs, **(settings | {"plan": None if saves else how}))
            assert _core.last_shallow_run() == expected(True, "z" in needs, not saves)


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize(("isa", "backend", "by", "terms"), WAYS, ids=lambda value: str(value))
def test_what_info_says_is_what_runs(isa, backend, by, terms, shape):
    """`pymimic info --plan` prints these words."""
    from pymimic import _core

    B, k, H, C = shape
    r = np.random.default_rng(0)
    z, U, b, W, c, dy = (r.standard_normal(size, dtype=np.float32) for size in ((B, k), (H, k), H, (H, C), C, (B, C)))
    with use_backend(isa):
        planned = pymimic.plan(B, k, k, H, C, h="recompute")
        words = get(backend).passes(planned)
        ops.shallow_forward(z, U, b, W, c, backend=backend, plan=planned)
        check_words(words["forward"], _core.last_shallow_run(), H)
        ops.shallow_backward(dy, z, U, b, W, backend=backend, plan=planned)
        check_words(words["backward"], _core.last_shallow_run(), H)


def check_words(words, run, H):
    kinds = {"vectors": "vectors of float32", "pairs": "pairs of bfloat16", "tiles": "tiles of bfloat16", "tiles_x3": "tiles of 3 bfloat16"}
    kind, slab, *_ = words.split(", ")
    assert kind == kinds[run["by"]]
    assert ceil_div(H, int(slab.removeprefix("slabs of ").removesuffix(" units"))) == run["slabs"]
    assert ("rows are few" in words) == run["few_rows"]
    assert (f"H in {run['parts']} parts" in words) == (run["parts"] > 1)
