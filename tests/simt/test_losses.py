"""The losses in the emulator, against the reference in float64."""

import cases
import numpy as np
import pytest
from emulator import INVALID_VALUE, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends import get

SEEDS = range(6)
LOSSES = ("mimic_loss", "cross_entropy", "distillation_loss")
EPS = 2.0**-23


class Loss:
    """One call and what is right for it."""

    def __init__(self, name, B, C, weighted=False, temperature=1.0, start=0, seed=0, spread=3.0):
        rng = np.random.default_rng(seed)
        self.name, self.shape, self.start, self.temperature = name, (B, C), start, temperature
        self.y, self.t = (self.buffer(rng.standard_normal((B, C)) * spread) for _ in range(2))
        self.labels = rng.integers(0, max(1, C), B)
        self.weights = rng.uniform(0.5, 2, B).astype(np.float32) if weighted else None

    def buffer(self, values=np.nan):
        """`start` elements off alignment."""
        array = guarded((int(np.prod(self.shape)) + self.start,)).array[self.start :].reshape(self.shape)
        array[...] = values
        return array

    def arguments(self):
        if self.name == "distillation_loss":
            return self.y, self.t, self.temperature, self.weights
        return self.y, self.t if self.name == "mimic_loss" else self.labels, self.weights

    def run(self, simt, seed=0):
        simt.seed(seed)
        loss, dy, workspace = guarded((1,)), self.buffer(), simt.workspace("pymimic_loss_workspace", *self.shape)
        simt.call(f"pymimic_{self.name}", *self.arguments(), *self.shape, loss.array, dy, workspace, None)
        assert loss.intact
        return float(loss.array[0]), dy

    def expected(self):
        wide = [a.astype(np.float64) if isinstance(a, np.ndarray) and a.dtype == np.float32 else a for a in self.arguments()]
        return getattr(get("reference"), self.name)(*wide)

    def bounds(self):
        """Of the loss and of dy: roundings of what is subtracted, weighted as the results are, and some more for the functions."""
        y, t, T = self.y.astype(np.float64), self.t.astype(np.float64), self.temperature
        weight = (np.ones(len(y)) if self.weights is None else self.weights)[:, None] / max(1, len(y))
        if self.name == "mimic_loss":
            dy = 4 * EPS * weight * np.abs(y - t)
            return 8 * EPS * float((weight * (y - t) ** 2).sum()), dy
        t = np.where(np.isneginf(t), 0, t)
        reach = {"cross_entropy": np.abs(y), "distillation_loss": (np.abs(y) + np.abs(t)) / T}[self.name]
        rows = 8 * EPS * (4 + self.shape[1] ** 0.5 + 3 * reach.max(axis=1, keepdims=True, initial=0))
        if self.name == "cross_entropy":
            return float((weight * rows).sum()), weight * rows
        return T * T * float((weight * rows).sum()), T * weight * rows

    def holds(self, result):
        (loss, dy), (want, want_dy), (bound, bound_dy) = result, self.expected(), self.bounds()
        return abs(loss - want) <= bound and bool((np.abs(dy - want_dy) <= bound_dy).all())


@given(
    name=st.sampled_from(LOSSES), B=st.sampled_from((0, *cases.SIZES, 300)), C=st.sampled_from((*cases.SIZES, 183, 1000)),
    weighted=st.booleans(), temperature=st.sampled_from([1.0, 0.5, 4.0]), start=st.integers(0, 3), seed=st.integers(0, 99),
    spread=st.sampled_from([0.1, 3.0, 50.0]),
)  # fmt: skip
@settings(max_examples=60)
def test_any_shape(simt, name, B, C, weighted, temperature, start, seed, spread):
    loss = Loss(name, B, C, weighted, temperature, start, seed, spread)
    assert loss.holds(loss.run(simt, seed))


@pytest.mark.parametrize("name", LOSSES)
def test_schedules_give_the_same_bits(simt, name):
    loss = Loss(name, 3000, 10)
    first = loss.run(simt)
    assert loss.holds(first)
    for seed in SEEDS:
        again = loss.run(simt, seed)
        assert again[0] == first[0]
        np.testing.assert_array_equal(again[1], first[1])


@pytest.mark.parametrize("name", LOSSES)
def test_more_rows_than_the_grid_takes_at_once(simt, name):
    loss = Loss(name, 9000, 130)
    assert loss.holds(loss.run(simt))


@pytest.mark.parametrize("name", LOSSES)
def test_nan_propagates_in_its_row(simt, name):
    loss = Loss(name, 40, 17)
    loss.y[5, 3] = np.nan
    value, dy = loss.run(simt)
    assert np.isnan(value)
    assert np.argwhere(np.isnan(dy)).tolist() == ([[5, 3]] if name == "mimic_loss" else [[5, c] for c in range(17)])


def test_infinite_logits(simt):
    """A class that is ruled out has gradient 0; one of infinite logit makes NaN, as in the reference."""
    loss = Loss("cross_entropy", 3, 9)
    loss.labels[:] = 0
    loss.y[0, 4], loss.y[1, 4] = -np.inf, np.inf
    value, dy = loss.run(simt)
    assert np.isnan(value)
    assert dy[0, 4] == 0
    assert np.isnan(dy[1]).all()
    assert np.isfinite(dy[[0, 2]]).all()


@pytest.mark.parametrize("spread", [1.0, 50.0])
def test_a_teacher_may_rule_classes_out(simt, spread):
    """0 log 0 = 0; but a row of nothing but -inf, +inf and NaN make NaN, of loss and gradient alike."""
    loss = Loss("distillation_loss", 9, 70, weighted=True, spread=spread)
    loss.t[np.random.default_rng(1).random((9, 70)) < 0.5] = -np.inf
    loss.t[4, 0], loss.t[4, 1:] = 1, -np.inf
    assert np.isfinite(loss.expected()[0])
    assert loss.holds(loss.run(simt))
    loss.y[5, np.isneginf(loss.t[5])] = -np.inf  # the student may do so too
    value, dy = loss.run(simt)
    assert value == pytest.approx(loss.expected()[0], rel=1e-4)
    assert np.isfinite(dy).all()
    for bad in (-np.inf, np.inf, np.nan):
        loss.t[3, :] = bad
        value, dy = loss.run(simt)
        assert np.isnan(value)
        assert np.isnan(dy[3]).all()
        assert np.isfinite(np.delete(dy, 3, axis=0)).all()


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_nothing(simt, name, shape):
    assert Loss(name, *shape).run(simt)[0] == 0


@pytest.mark.parametrize("name", LOSSES)
def test_beyond_the_limits(simt, name):
    loss, out = Loss(name, 4, 5), np.zeros(64, np.float32)
    for shape in ((-1, 5), (4, -1)):
        assert simt.status(f"pymimic_{name}", *loss.arguments(), *shape, out, loss.y, out, None) == INVALID_VALUE
    for temperature in (0.0, -1.0, float("nan"), float("inf")):
        arguments = (loss.y, loss.t, temperature, None, 4, 5, out, loss.y, out, None)
        assert simt.status("pymimic_distillation_loss", *arguments) == INVALID_VALUE


def test_mutants(simt):
    """The sums and maxima over lanes, the block's barrier. Of a maximum any value in reach gives the same softmax: spread 50."""
    losses = [Loss(name, 300, 70, spread=spread) for name in LOSSES for spread in (1.0, 50.0)]
    simt.forget_visits()
    assert all(loss.holds(loss.run(simt, seed)) for loss in losses for seed in SEEDS)
    mutants = list(simt.visited("losses.cu"))
    assert len(mutants) == 4
    alive = simt.survivors(mutants, lambda: all(loss.holds(loss.run(simt, seed)) for loss in losses for seed in SEEDS))
    assert alive == []
