"""What a plan says is what the launch does: its kernel, its grid, its splits and its workspace."""

import itertools

import numpy as np
import pytest
from emulator import CServing, guarded, operand, shallow
from hypothesis import given
from hypothesis import strategies as st

from pymimic.backends.interface import Mask

SIZES = (  # B, k, H, C
    (130, 20, 700, 10), (5, 300, 900, 20), (3, 64, 1100, 200), (140, 70, 70, 400), (20, 9, 4200, 5), (7, 257, 700, 70),
)  # fmt: skip


@pytest.fixture(params=[80, 90], ids="sm_{}".format)
def simt(simt, request):
    simt.compute_capability(request.param)
    return simt


class Problem:
    """Zeros of a size, as the launchers take them."""

    def __init__(self, size, precision, splits=0):
        B, k, H, C = size
        self.arrays = [operand(np.zeros(shape), precision) for shape in ((B, k), (H, k), (H, C), (B, C))]
        self.b = np.zeros(H, np.float32)
        z, U, W, self.dy = self.arrays
        self.struct = shallow(z, U, self.b, W, precision, "relu", Mask(), dict(zip("BkHC", size)), splits)
        self.size = size


def launched(simt, plan, name, *arguments):
    """The grids of a launcher's kernels, once it has run the kernel of its plan and no other one."""
    simt.seed(0)
    simt.forget_visits()
    simt.call(name, *arguments, None)
    op = plan.kernel.decode().rsplit("_", 1)[0]
    ran = {f"{op}_{chip}" for chip in ("sm80", "sm90a") if any(simt.visited(f"{op}_{chip}.cu"))}
    assert ran == {plan.kernel.decode()}
    return simt.grids()


def ceil_div(a, b):
    return -(-a // b)


def assert_parts_of_H(plan, grids, B, H, columns, splits, workspace):
    """One grid that makes the plan's parts of a (B, columns) result, and, where they are several, one that sums them."""
    first, *rest = grids
    assert first == (ceil_div(B, plan.row_block), plan.splits, plan.column_chunks)
    assert len(rest) == (plan.splits > 1)
    assert plan.splits <= ceil_div(H, plan.slab)
    assert not splits or plan.splits == min(splits, ceil_div(H, plan.slab))
    assert plan.workspace == (plan.splits * B * columns * 4 if rest else 0)
    assert workspace.intact
    assert not np.isnan(workspace.array).any()


@pytest.mark.parametrize("size", SIZES)
def test_forward(simt, size):
    B, _, H, C = size
    for precision, splits in (("bf16", 0), ("bf16", 3), ("fp16", 0), ("fp32", 0)):
        problem, y = Problem(size, precision, splits), guarded((B, C))
        plan = simt.plan("pymimic_shallow_forward_plan", problem.struct)
        workspace = guarded((plan.workspace // 4,))
        arguments = (problem.struct, np.zeros(C, np.float32), y.array, workspace.array)
        grids = launched(simt, plan, "pymimic_shallow_forward", *arguments)
        assert_parts_of_H(plan, grids, B, H, C, splits, workspace)
        assert y.intact


@pytest.mark.parametrize(("multiprocessors", "B", "parts"), [(132, 512, 33), (132, 8192, 2), (108, 512, 27), (108, 6912, 2)])
def test_parts_of_H_fill_the_multiprocessors(simt, multiprocessors, B, parts):
    """Each block has one to itself."""
    problem = Problem((1, 64, 1, 10), "bf16")
    problem.struct.B, problem.struct.H = B, 100_000
    simt.multiprocessors(multiprocessors)
    for op in ("forward", "backward_rows"):
        plan = simt.plan(f"pymimic_shallow_{op}_plan", problem.struct)
        blocks = ceil_div(B, plan.row_block) * plan.splits
        assert plan.splits == parts
        assert blocks > 0.95 * multiprocessors * ceil_div(blocks, multiprocessors)


@given(B=st.integers(1, 100_000), slabs=st.integers(64, 4000), multiprocessors=st.integers(1, 200))
def test_few_parts_of_H_suffice(simt, B, slabs, multiprocessors):
    """The parts take memory for at most eight blocks a multiprocessor, and no part is shorter than eight slabs."""
    problem = Problem((1, 64, 1, 10), "bf16")
    problem.struct.B = B
    simt.multiprocessors(multiprocessors)
    for op in ("forward", "backward_rows"):
        slab = simt.plan(f"pymimic_shallow_{op}_plan", problem.struct).slab
        problem.struct.H = slabs * slab
        plan = simt.plan(f"pymimic_shallow_{op}_plan", problem.struct)
        assert plan.splits == 1 or plan.splits * ceil_div(B, plan.row_block) <= 8 * multiprocessors
        assert plan.splits == 1 or slabs // plan.splits >= 8


@pytest.mark.parametrize("size", SIZES)
def test_backward_rows(simt, size):
    B, k, H, _ = size
    for precision, splits in (("bf16", 0), ("bf16", 3), ("fp32", 0)):
        problem, dz = Problem(size, precision, splits), guarded((B, k))
        plan = simt.plan("pymimic_shallow_backward_rows_plan", problem.struct)
        workspace = guarded((plan.workspace // 4,))
        arguments = (problem.struct, problem.dy, problem.dy.shape[1], dz.array, workspace.array)
        grids = launched(simt, plan, "pymimic_shallow_backward_rows", *arguments)
        assert_parts_of_H(plan, grids, B, H, k, splits, workspace)


# all but the first and the last take the emulator long
@pytest.mark.parametrize("size", [*SIZES[::5], *(pytest.param(size, marks=pytest.mark.slow) for size in SIZES[1:5])])
def test_backward_units(simt, size):
    _, k, H, C = size
    for precision, dU, dW in (("bf16", True, True), ("bf16", True, False), ("bf16", False, True), ("fp32", True, True)):
        problem = Problem(size, precision)
        plan = simt.plan("pymimic_shallow_backward_units_plan", problem.struct, int(dU), int(dW))
        outputs = (guarded((H, k)).array if dU else None, guarded((H,)).array, guarded((H, C)).array if dW else None)
        grids = launched(simt, plan, "pymimic_shallow_backward_units", problem.struct, problem.dy, problem.dy.shape[1], *outputs)
        assert grids == [(ceil_div(H, plan.slab), plan.column_chunks, 1)]
        assert plan.in_place == (plan.column_chunks == 1)
        assert plan.workspace == 0


def test_both_kernels_of_each_op_are_planned(simt):
    kernels = {
        simt.plan(f"pymimic_shallow_{op}_plan", Problem(size, precision).struct, *needs).kernel.decode()
        for op, needs in (("forward", ()), ("backward_rows", ()), ("backward_units", (1, 1)))
        for size, precision in itertools.product(SIZES, ("bf16", "fp32"))
    }
    chips = ("sm80", "sm90a") if simt.capability == 90 else ("sm80",)
    assert kernels == {f"{op}_{chip}" for op in ("forward", "backward_rows", "backward_units") for chip in chips}


@pytest.mark.parametrize(("shared", "row_block"), [(227 * 1024, 8), (80 * 1024, 4)])
def test_serve(simt, shared, row_block):
    """As many rows at a time as shared memory has room for."""
    simt.limit_shared(shared)
    B, k, H, C = 19, 1500, 300, 20
    x, y, b, c = (guarded(shape, fill=0.0).array for shape in ((B, k), (B, C), (H,), (C,)))
    U, W = (operand(np.zeros(shape), "fp32") for shape in ((H, k), (H, C)))
    struct = CServing(
        B, k, k, H, C, 2, 0, x.ctypes.data, None, None, None, 0, U.ctypes.data, U.shape[1], W.ctypes.data, W.shape[1], None, None, None,
        b.ctypes.data, c.ctypes.data,
    )  # fmt: skip
    plan = simt.plan("pymimic_serve_plan", struct)
    assert (plan.kernel, plan.row_block, plan.splits) == (b"serve", row_block, ceil_div(H, plan.slab))
    assert plan.workspace == plan.splits * row_block * C * 4
    simt.seed(0)
    workspace = guarded((plan.workspace // 4,))
    simt.call("pymimic_serve", struct, y, workspace.array, None)
    assert simt.grids()[::2] == [(plan.splits, 1, 1)] * ceil_div(B, row_block)
    assert len(simt.grids()) == 2 * ceil_div(B, row_block)
    assert workspace.intact


@pytest.mark.parametrize(("multiprocessors", "k", "blocks"), [(132, 64, 528), (132, 250, 396), (132, 1200, 264), (108, 250, 324)])
def test_a_served_net_is_one_wave(simt, multiprocessors, k, blocks):
    """As many blocks as shared memory lets run at once: 48 + 4 KiB, eight rows of z, what the device reserves. For any number of rows."""
    simt.multiprocessors(multiprocessors)
    assert blocks == multiprocessors * (228 // (48 + 4 + 8 * k * 4 / 1024 + 1))
    struct = CServing()
    struct.k = struct.D = k
    struct.C = 10
    for H, splits in ((100_000, blocks), (10_000, ceil_div(10_000, 128))):
        for B in (1, 8, 100):
            struct.B, struct.H = B, H
            assert simt.plan("pymimic_serve_plan", struct).splits == splits
