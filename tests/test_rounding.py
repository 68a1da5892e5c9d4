"""float64 inputs whose values fall together as float32 are pointed out; ordinary ones are not."""

import warnings

import numpy as np
import pytest

import pymimic as pm
from pymimic.data.rounding import warn_of_merged_values

RNG = np.random.default_rng(0)
N = 600


def beside(column):
    """As column 1 of three."""
    return np.stack([np.linspace(0, 1, len(column)), column, RNG.random(len(column))], axis=1)


MERGED = {
    "seconds": 1.7e9 + np.arange(N),
    "seconds in any order": RNG.permutation(1.7e9 + np.arange(N)),
    "seconds of four days": 1.7e9 + np.arange(350_000),
    "milliseconds": 1.7e9 + np.arange(N) / 1e3,
    "nanoseconds": 1.7e18 + 1e9 * np.arange(N),
    "negative": -1.7e9 - np.arange(N),
    "numbers of rows": 3e8 + np.arange(N),
    "half of them missing": np.where(np.arange(2 * N) % 2, 0, 1.7e9 + np.arange(2 * N)),
    "below float32": 1e-60 * (1 + np.arange(N)),
    "an offset": 1e6 + 1e-3 * RNG.standard_normal(N),
}
ORDINARY = {
    "normal": RNG.standard_normal(300_000),
    "uniform": RNG.random(300_000),
    "few values": RNG.integers(0, 3, N).astype(float),
    "constant": np.full(N, 0.1),
    "noise about a constant": 0.1 + 1e-16 * RNG.integers(-3, 4, N),
    "sums in another order": np.array([sum(RNG.permutation([0.1, 0.2, 0.3, 0.4, 0.7])) for _ in range(N)]),
    "tails of a softmax": np.exp(-300 * RNG.random(N)),
    "kelvin": 300 + 10 * RNG.standard_normal(300_000),
    "pascal": 101325 + 1000 * RNG.standard_normal(300_000),
    "years": 2000 + np.arange(N) / 365,
    "zeros": np.zeros(N),
    "integers below 2^24": np.arange(300_000) * 50.0,
    "log-normal": np.exp(5 * RNG.standard_normal(N)),
    "squares of zero": RNG.standard_normal(N) * 1e-200 * (np.arange(N) == 0),
}


@pytest.mark.parametrize("name", MERGED)
def test_a_column_whose_values_fall_together_is_named(name):
    with pytest.warns(UserWarning, match=r"^x: expected values that float32 can tell apart, got .*: in column 1, \d+ .* become \d+\. "):
        assert warn_of_merged_values("x", beside(MERGED[name]))


@pytest.mark.parametrize("name", ORDINARY)
def test_ordinary_columns_are_none_of_them(name):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not warn_of_merged_values("x", beside(ORDINARY[name]))
        assert not warn_of_merged_values("x", beside(ORDINARY[name]).astype(np.float32))


def test_many_columns_are_named_by_a_few():
    x = 1.7e9 + np.arange(N)[:, None] + np.zeros(200)
    with pytest.warns(UserWarning, match=r"in column 4, 600 distinct values become \d+; and in 195 more\."):
        warn_of_merged_values("x", x)


def test_whoever_takes_float64_inputs_to_train_on_warns_once_where_it_was_called(tmp_path):
    x = beside(MERGED["seconds"])
    t, labels = np.zeros((N, 2)), np.zeros(N, int)
    teacher = pm.from_callable(lambda rows: rows[:, :2])
    for name, call in (
        ("x", lambda: pm.TransferSet(x, t)),
        ("x", lambda: pm.LabelledSet(x, labels, 2)),
        ("inputs", lambda: pm.TransferSet.create(tmp_path / "array", teacher, x, rows_per_shard=50, progress=False)),
        ("inputs", lambda: pm.TransferSet.create(tmp_path / "pieces", teacher, iter([x[:300], x[300:]]), progress=False)),
        ("x", lambda: pm.out_of_fold(lambda a, b: teacher, x, labels, 2)),
        ("inputs", lambda: pm.TransferSet.from_teacher(teacher, x)),
        ("inputs", lambda: pm.TransferSet.from_teacher(teacher, iter([x[:300], x[300:]]))),
        ("x", lambda: pm.munge(x, 1, 0.5, 1.0, 0)),
        ("x", lambda: pm.Munge(x)),
        ("x", lambda: pm.copies(pm.Noise(0.1), x, 1)),
        ("x", lambda: pm.gaussian_noise(x, 1, 0.5, 0)),
    ):
        with pytest.warns(UserWarning, match=rf"^{name}: expected values that float32 can tell apart") as caught:
            call()
        assert len(caught) == 1
        assert caught[0].filename == __file__


def test_values_that_float32_cannot_hold_are_refused_wherever_they_become_float32():
    x = np.ones((5, 2))
    x[3, 1] = 1e39
    for call in (lambda: pm.LabelledSet(x, np.zeros(5, int), 2), lambda: pm.TransferSet(x, x), lambda: pm.munge(x, 1, 0.5, 1.0, 0)):
        with pytest.raises(ValueError, match=r"^x: expected finite values, got inf in row 3"):
            call()
    for make in (lambda w: pm.LabelledSet(np.ones((5, 2)), np.zeros(5, int), 2, w), lambda w: pm.TransferSet(x[:3], x[:3], w[:3])):
        for weights, message in (
            (np.full(5, 1e39), "finite values, got inf in row 0"),
            (np.array([1, -2.0, 1, 1, 1]), "0, got -2.0 in row 1"),
        ):
            with pytest.raises(ValueError, match=f"^weights: expected .*{message}"):
                make(weights)
    with pytest.raises(TypeError, match=r"^weights: expected numbers, got <U1"):
        pm.LabelledSet(np.ones((2, 2)), np.zeros(2, int), 2, np.array(["a", "b"]))
