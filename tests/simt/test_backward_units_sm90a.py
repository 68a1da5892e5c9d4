"""dU, db and dW on an emulated sm_90a device: shapes that fit no tile, against float64, under many schedules, and every mutant."""

import cases
import emulated_shallow
import numpy as np
import pytest
from emulator import guarded, operand, shallow
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends.interface import ACTIVATIONS, Mask

FILES = (
    "backward_units_sm90a.cu",
    "backward_units_sm90a.cuh",
    "backward_units_sm90a_alternating.cuh",
    "backward_units_sm90a_trading.cuh",
    "ring_sm90a.cuh",
)

# B, k, H, C with which a kernel of their own multiplies: kernels/shallow/columns.cuh
KNOWN_COLUMNS = [(130, 250, 70, 183), (330, 120, 130, 128), (900, 12, 200, 10), (70, 64, 64, 16)]


@pytest.fixture
def simt(simt):
    simt.compute_capability(90)
    return simt


class Problem:
    """Arguments of one backward pass for the units, as the kernel takes them."""

    def __init__(self, B, k, H, C, activation="relu", mask=None, more=0, seed=0):
        self.size, self.activation, self.mask = {"B": B, "k": k, "H": H, "C": C}, activation, mask or Mask()
        arrays = cases.shallow(self.size, "float32", seed)
        dy = np.random.default_rng(seed).standard_normal((B, C))
        self.z, self.U, self.W, self.dy = (operand(x, "bf16", more) for x in (arrays.z, arrays.U, arrays.W, dy))
        self.b = guarded(arrays.b.shape).array
        self.b[:] = arrays.b

    def status(self, simt, seed=0, needs=("dU", "db", "dW"), launcher="probe_backward_units_sm90a"):
        """What a launcher returns, and dU, db, dW."""
        simt.seed(seed)
        problem = shallow(self.z, self.U, self.b, self.W, "bf16", self.activation, self.mask, self.size)
        shapes = {"dU": self.U[:, : self.size["k"]].shape, "db": self.b.shape, "dW": self.W[:, : self.size["C"]].shape}
        gradients = {name: guarded(shape) for name, shape in shapes.items()}
        outputs = [gradients[name].array if name in needs else None for name in shapes]
        status = simt.status(launcher, problem, self.dy, self.dy.shape[1], *outputs, None)
        assert all(gradient.intact for gradient in gradients.values())
        return status, {name: gradients[name].array for name in needs}

    def expected(self):
        k, C = self.size["k"], self.size["C"]
        operands = (self.dy[:, :C], self.z[:, :k], self.U[:, :k], self.b, self.W[:, :C])
        return emulated_shallow.backward(*operands, self.activation, self.mask, "bf16")

    def is_right(self, simt, expected, seed=0, **launch):
        """Whether it succeeds within the bounds; NaN does not."""
        status, gradients = self.status(simt, seed, **launch)
        if status != 0:
            return False
        checks = ((gradient, *getattr(expected, name)) for name, gradient in gradients.items())
        return all(bool((np.abs(gradient - value) <= bound).all()) for gradient, value, bound in checks)


@given(
    size=cases.sizes(work=3_000_000),
    activation=st.sampled_from(ACTIVATIONS),
    mask=cases.masks(),
    more=st.sampled_from([0, 16, 48]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30)
def test_any_shape(simt, size, activation, mask, more, seed):
    size["k"], size["C"] = min(size["k"], 256), min(size["C"], 256)
    problem = Problem(**size, activation=activation, mask=cases.checked(mask), more=more, seed=seed)
    assert problem.is_right(simt, problem.expected(), seed)


@pytest.mark.parametrize("size", [
    (130, 250, 70, 183), (330, 256, 70, 256), (900, 12, 200, 10), (64, 100, 70, 30), (200, 20, 70, 100), (700, 130, 70, 70),
])  # fmt: skip
def test_schedules_give_the_same_bits(simt, size):
    _schedules_give_the_same_bits(simt, Problem(*size, "gelu", Mask(200, 2**63 + 5, 7, 32, 64)))


@pytest.mark.parametrize("mask", [Mask(), Mask(200, 2**63 + 5, 7, 32, 64)], ids=["all kept", "dropout"])
@pytest.mark.parametrize("size", KNOWN_COLUMNS)
def test_kernels_for_known_columns(simt, size, mask):
    """Of relu: schedules give the same bits."""
    _schedules_give_the_same_bits(simt, Problem(*size, mask=mask))


def _schedules_give_the_same_bits(simt, problem):
    assert problem.is_right(simt, problem.expected())
    first = problem.status(simt)[1]
    for seed in range(1, 6):
        for name, gradient in problem.status(simt, seed)[1].items():
            np.testing.assert_array_equal(gradient, first[name])


LONG_SIZES = ((1500, 100, 64, 20), (1500, 20, 64, 100), (800, 20, 64, 200), (800, 20, 64, 250))


@pytest.mark.parametrize(
    "size", [(1500, 20, 64, 20), (1500, 20, 64, 10), *(pytest.param(size, marks=pytest.mark.slow) for size in LONG_SIZES)]
)
def test_a_late_copy_is_waited_for(simt, size):
    """A warpgroup does not wait for all phases of a slot of the ring: it must not take an older one for its own."""
    problem = Problem(*size)
    expected = problem.expected()
    assert all(problem.is_right(simt, expected, seed) for seed in range(90))


def test_choice(simt):
    """Only where every block has units of its own, and both dU and dW are needed."""
    launcher, many = "pymimic_shallow_backward_units", 64 * 64 + 1  # what 65 blocks share
    for size, needs, newer in (
        ((20, 9, many, 5), ("dU", "db", "dW"), True),
        ((20, 9, many, 5), ("dU", "dW"), True),
        ((20, 9, many, 5), ("dU", "db"), False),
        ((20, 9, many - 1, 5), ("dU", "db", "dW"), False),
        ((20, 257, many, 5), ("dU", "db", "dW"), False),
        ((20, 9, many, 0), ("dU", "db"), False),
    ):
        problem = Problem(*size)
        simt.forget_visits()
        assert problem.is_right(simt, problem.expected(), needs=needs, launcher=launcher)
        assert any(simt.visited("backward_units_sm90a.cu")) == newer


def test_nan_propagates(simt):
    for activation in ACTIVATIONS:
        problem = Problem(20, 9, 150, 5, activation)
        problem.W[140, 2] = np.nan
        for name, gradient in problem.status(simt)[1].items():
            wrong = np.isnan(gradient.reshape(150, -1)).any(axis=1)
            np.testing.assert_array_equal(np.flatnonzero(wrong), [] if name == "dW" else [140])


@pytest.mark.slow
def test_mutants(simt):
    problems = [
        Problem(500, 250, 64, 183, "gelu"), Problem(700, 130, 100, 70, "tanh", Mask(128)), Problem(1500, 64, 64, 20),
        Problem(700, 20, 64, 190, "tanh", Mask(128)), Problem(500, 250, 64, 183), Problem(700, 128, 64, 120), Problem(1500, 64, 64, 10),
    ]  # fmt: skip
    expected = [problem.expected() for problem in problems]
    assert all(problem.is_right(simt, right) for problem, right in zip(problems, expected))
    mutants = list(simt.visited(*FILES))
    assert len(mutants) > 25
    alive = simt.survivors(
        mutants, lambda: all(problem.is_right(simt, right, seed) for seed in range(12) for problem, right in zip(problems, expected))
    )
    assert alive == []
