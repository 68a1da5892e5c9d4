"""Means and deviations, also of columns that float32 can hardly hold: what is divided by can be divided by."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slope_teacher import rows, says

import pymimic as pm
from pymimic import _check
from pymimic.data.cases import demand_values, finite_in_order, in_order
from pymimic.data.moments import TINY, mean_and_spread, moments, standardisation

KINDS = {
    "constant": lambda n: np.full(n, 0.3),
    "zero": np.zeros,
    "below float32's normal numbers": lambda n: 1e-40 * (1 + np.arange(n) % 7),
    "just above them": lambda n: 1e-37 * (1 + np.arange(n) % 7),
    "large": lambda n: 1e37 * (1 + np.arange(n) % 7),
    "a tiny spread about a huge mean": lambda n: np.float32(1e6) + np.spacing(np.float32(1e6)) * (np.arange(n) % 2),
    "ordinary": lambda n: np.sin(np.arange(n)),
}


@given(st.sampled_from(sorted(KINDS)), st.integers(1, 40), st.integers(1, 9), st.sampled_from(["each", "all"]))
def test_a_standardised_column_is_finite_and_no_longer_than_it_should_be(kind, n, block, how):
    x = KINDS[kind](n).astype(np.float32)[:, None] * np.ones(3, np.float32)
    mean, scale = standardisation((x[i : i + block] for i in range(0, n, block)), 3, how)
    assert mean.dtype == scale.dtype == np.float32
    assert (np.isfinite(scale) & (scale > 0)).all()
    z = (x - mean) * scale
    assert np.isfinite(z).all()
    assert np.square(z.astype(np.float64)).mean() < 1.01
    deviation = moments([x])[1]
    assert ((deviation == 1) | (deviation >= TINY)).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_student_learns_beside_such_a_column(kind):
    x = rows(64)
    t = says(x)
    x[:, 2] = KINDS[kind](64)
    student = pm.Student(5, 32, 3)
    history = pm.Trainer(student, pm.AdamW(1e-2), epochs=8, batch_size=16, standardise_inputs=True, progress=False).fit(
        pm.TransferSet(x, t)
    )
    assert history[-1].train_loss < history[0].train_loss
    assert np.isfinite(student.predict(x)).all()


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "large"])
def test_logits_of_such_a_column_are_standardised_and_folded_back(kind):
    x = rows(64)
    t = says(x)
    t[:, 1] = KINDS[kind](64)
    ts = pm.TransferSet(x, t)
    standard, mean, scale = ts.standardised()
    assert np.isfinite(standard.batch(np.arange(64))[1]).all()
    assert (scale >= TINY).all()
    student = pm.Student(5, 32, 3)
    pm.Trainer(student, pm.AdamW(1e-2), epochs=2, batch_size=16, standardise_targets=True, progress=False).fit(ts)
    assert np.isfinite(student.predict(x)).all()
    with pytest.raises(ValueError, match=r"^scale: expected finite means and scales above 0, 1.2e-38 and more, got others"):
        ts.standardised(mean, np.array([1, 1e-40, 1]))
    ts.standardised(mean, np.array([1, TINY, 1]))  # the least


def test_in_order_gives_every_row_once():
    """More than one slab of 4 Mi values, and a last one that is not whole."""
    n, columns = 5300 * 2 + 17, 784
    x = np.zeros((n, columns), np.float32)
    x[:, 0] = np.arange(n)
    cases = pm.LabelledSet(x, np.arange(n) % 7, 8)
    slabs = list(in_order("data", cases))
    assert [len(slab[0]) for slab in slabs] == [5295, 5295, n - 2 * 5295]
    assert np.array_equal(np.concatenate([slab[0][:, 0] for slab in slabs]), np.arange(n))
    assert np.array_equal(np.concatenate([slab[1] for slab in slabs]), np.arange(n) % 7)


def test_a_covariance_can_be_inverted_whatever_the_rows():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((3000, 4)).astype(np.float32) * np.float32([1, 2, 3, 0]) + 5  # three blocks
    mean, spread = mean_and_spread(x, 0.25)
    want = np.cov(x.astype(np.float64).T, bias=True)
    np.testing.assert_allclose(mean, x.mean(axis=0, dtype=np.float64))
    np.testing.assert_allclose(spread, want + 0.25 * np.trace(want) / 4 * np.eye(4), atol=1e-12)
    assert np.array_equal(mean_and_spread(np.ones((3, 4), np.float32), 0.25)[1], np.eye(4))  # of rows that don't vary


class Wide:
    """Seven rows of 2^20 inputs, three to a slab; one part of one row is not finite."""

    inputs, outputs = 1 << 20, 1

    def __init__(self, bad, part):
        self.column, self.part = np.zeros((7, 1), np.float32), part
        self.column[bad] = np.nan

    def __len__(self):
        return 7

    def batch(self, indices):
        n = len(indices)
        given = {name: np.zeros(shape, np.float32) for name, shape in (("x", (n, self.inputs)), ("logits", (n, 1)), ("weights", (n,)))}
        bad = self.column[indices]
        given[self.part] += bad if given[self.part].ndim == 2 else bad[:, 0]
        return tuple(given.values())


@pytest.mark.parametrize("row", [0, 2, 3, 6])
@pytest.mark.parametrize("part", ["x", "logits", "weights"])
def test_a_value_that_is_not_finite_is_named_by_its_row_in_whichever_slab(row, part):
    cases = Wide(row, part)
    with pytest.raises(ValueError, match=f"^data: {part}: expected finite values, got nan in row {row}$"):
        list(finite_in_order("data", cases, ruled_out=False))
    if part == "x":
        x = np.broadcast_to(cases.column, (7, 1 << 21))  # two rows to a slab
        for demand in (_check.finite, demand_values):
            with pytest.raises(ValueError, match=f"^x: expected finite values, got nan in row {10 + row}$"):
                demand("x", x, 10)


@pytest.mark.parametrize("n", [16_384, 16_385, 40_001])
def test_moments_of_logits_count_every_row(tmp_path, n):
    logits = np.arange(2 * n, dtype=np.float64).reshape(n, 2) % 1013
    logits[16_383:16_386] = 1e6  # where one slab ends and the next begins
    logits[-1] = -1e6
    x = np.arange(n, dtype=np.float32)[:, None]
    teacher = pm.from_callable(lambda rows: logits[rows[:, 0].astype(np.int64)])
    on_disk = pm.TransferSet.create(tmp_path, teacher, x, rows_per_shard=n, standardise=True, progress=False)
    assert sum(len(slab) for slab in on_disk._rows.slabs("logits")) == n
    for ts in (pm.TransferSet(x, logits), on_disk):
        _, mean, scale = ts.standardised()
        assert np.allclose(mean, logits.mean(0), rtol=1e-6)
        assert np.allclose(scale, logits.std(0), rtol=1e-6)
