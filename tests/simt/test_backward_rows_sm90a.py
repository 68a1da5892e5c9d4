"""dz on an emulated sm_90a device: shapes that fit no tile, against float64, under many schedules, and every mutant."""

import cases
import emulated_shallow
import numpy as np
import pytest
from emulator import guarded, operand, shallow
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends.interface import ACTIVATIONS, Mask


@pytest.fixture
def simt(simt):
    simt.compute_capability(90)
    return simt


class Problem:
    """Arguments of one backward pass for the rows, as the kernel takes them."""

    def __init__(self, B, k, H, C, activation="relu", mask=None, splits=0, more=0, seed=0):
        self.size, self.activation, self.mask, self.splits = {"B": B, "k": k, "H": H, "C": C}, activation, mask or Mask(), splits
        arrays = cases.shallow(self.size, "float32", seed)
        dy = np.random.default_rng(seed).standard_normal((B, C))
        self.z, self.U, self.W, self.dy = (operand(x, "bf16", more) for x in (arrays.z, arrays.U, arrays.W, dy))
        self.b = guarded(arrays.b.shape).array
        self.b[:] = arrays.b

    def status(self, simt, seed=0):
        """What the launcher returns, and dz."""
        simt.seed(seed)
        problem = shallow(self.z, self.U, self.b, self.W, "bf16", self.activation, self.mask, self.size, self.splits)
        dz = guarded((self.size["B"], self.size["k"]))
        workspace = simt.workspace("pymimic_shallow_backward_rows_plan", problem)
        status = simt.status("pymimic_shallow_backward_rows", problem, self.dy, self.dy.shape[1], dz.array, workspace, None)
        assert dz.intact
        return status, dz.array

    def is_right(self, simt, seed=0):
        """Whether it succeeds within the bound; NaN does not."""
        status, dz = self.status(simt, seed)
        k, C = self.size["k"], self.size["C"]
        operands = (self.dy[:, :C], self.z[:, :k], self.U[:, :k], self.b, self.W[:, :C])
        expected, bound = emulated_shallow.backward(*operands, self.activation, self.mask, "bf16").dz
        return status == 0 and bool((np.abs(dz - expected) <= bound).all())


@given(
    size=cases.sizes(work=3_000_000),
    activation=st.sampled_from(ACTIVATIONS),
    mask=cases.masks(),
    splits=st.sampled_from([0, 0, 1, 3]),
    more=st.sampled_from([0, 16, 48]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30)
def test_any_shape(simt, size, activation, mask, splits, more, seed):
    size["k"], size["C"] = min(size["k"], 256), min(size["C"], 192)
    assert Problem(**size, activation=activation, mask=cases.checked(mask), splits=splits, more=more, seed=seed).is_right(simt, seed)
    assert any(simt.visited("backward_rows_sm90a.cu"))


@pytest.mark.parametrize("size", [(130, 250, 400, 183), (33, 256, 130, 65), (5, 12, 1300, 10)])
def test_schedules_give_the_same_bits(simt, size):
    _schedules_give_the_same_bits(simt, Problem(*size, "gelu", Mask(200, 2**63 + 5, 7, 32, 64)))


@pytest.mark.parametrize("mask", [Mask(), Mask(200, 2**63 + 5, 7, 32, 64)], ids=["all kept", "dropout"])
@pytest.mark.parametrize("size", [(130, 250, 400, 183), (33, 120, 330, 128), (5, 12, 1300, 10)])
def test_kernels_for_known_columns(simt, size, mask):
    """Of relu: schedules give the same bits."""
    _schedules_give_the_same_bits(simt, Problem(*size, mask=mask))


def _schedules_give_the_same_bits(simt, problem):
    assert problem.is_right(simt)
    first = problem.status(simt)[1]
    for seed in range(1, 6):
        np.testing.assert_array_equal(problem.status(simt, seed)[1], first)


@pytest.mark.parametrize("size", [(20, 257, 100, 20), (20, 30, 100, 193), (20, 30, 0, 10), (20, 30, 50, 0)])
def test_other_shapes_take_the_other_kernel(simt, size):
    assert Problem(*size).is_right(simt)
    assert not any(simt.visited("backward_rows_sm90a.cu"))


def test_nan_propagates(simt):
    for activation in ACTIVATIONS:
        problem = Problem(20, 9, 70, 5, activation, Mask(128))
        problem.dy[4, 2] = np.nan
        np.testing.assert_array_equal(np.flatnonzero(np.isnan(problem.status(simt)[1]).any(axis=1)), [4])


@pytest.mark.slow
def test_mutants(simt):
    problems = [
        Problem(130, 250, 500, 183, "gelu", Mask(), 1), Problem(70, 130, 700, 20, "tanh", Mask(128), 2), Problem(140, 64, 1100, 20),
        Problem(130, 250, 500, 183), Problem(70, 128, 900, 120), Problem(140, 64, 1100, 10),
    ]  # fmt: skip
    assert all(problem.is_right(simt) for problem in problems)
    mutants = list(simt.visited("backward_rows_sm90a.cu", "ring_sm90a.cuh"))
    assert len(mutants) > 20
    alive = simt.survivors(mutants, lambda: all(problem.is_right(simt, seed) for seed in range(12) for problem in problems))
    assert alive == []
