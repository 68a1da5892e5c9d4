"""pymimic.sklearn: rows, their weights and their numbers, on the way to the student and to its teacher."""

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")
from mimics import BODY, GROWTH, IRIS, KIND, QUICK, Noted, logistic
from sklearn.compose import TransformedTargetRegressor
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, Ridge
from sklearn.preprocessing import StandardScaler

from pymimic.sklearn import MimicClassifier, MimicRegressor
from pymimic.sklearn.rows import held_out, merged


def test_a_row_of_weight_two_is_a_row_that_stands_twice():
    weights = np.random.default_rng(0).integers(0, 4, len(IRIS))
    order = np.random.default_rng(1).permutation(int(weights.sum()))
    again, kinds = np.repeat(IRIS, weights, axis=0)[order], np.repeat(KIND, weights)[order]
    for teacher in (None, logistic().fit(IRIS, KIND)):
        weighted = MimicClassifier(teacher, **QUICK).fit(IRIS, KIND, sample_weight=weights)
        repeated = MimicClassifier(teacher, **QUICK).fit(again, kinds)
        assert np.array_equal(weighted.decision_function(IRIS), repeated.decision_function(IRIS))
    heavy = np.where(KIND == 1, 50.0, 1.0)
    assert np.mean(MimicClassifier(**QUICK).fit(IRIS, KIND, heavy).predict(IRIS) == 1) > np.mean(KIND == 1)


@pytest.mark.parametrize("teacher", [None, Ridge()])
def test_minus_zero_is_zero(teacher):
    random = np.random.default_rng(0)
    x = random.standard_normal((60, 3)) * random.integers(-1, 2, (60, 3))  # 0.0 and -0.0
    y = x[:, 0] * random.integers(-1, 2, 60)
    assert np.signbit(x[x == 0]).any()
    assert np.signbit(y[y == 0]).any()
    mimic, other = MimicRegressor(teacher, **QUICK).fit(x, y), MimicRegressor(teacher, **QUICK).fit(x + 0.0, y + 0.0)
    assert np.array_equal(mimic.predict(x), other.predict(x))


def test_rows_of_weight_zero_are_left_out():
    weights = np.where(KIND == 2, 0.0, 1.0)
    mimic = MimicClassifier(Noted(3), **QUICK).fit(IRIS, KIND, sample_weight=weights)
    alone = MimicClassifier(Noted(3), **QUICK).fit(IRIS[KIND < 2], KIND[KIND < 2])
    assert list(mimic.classes_) == list(mimic.teacher_.classes_) == [0, 1]
    assert mimic.teacher_.n_samples_fit_ == 100
    assert np.array_equal(mimic.decision_function(IRIS), alone.decision_function(IRIS))


def test_a_teacher_without_weights_is_not_fitted_on_rows_that_have_some():
    with pytest.raises(ValueError, match="sample_weight: expected a teacher whose fit takes it, or None, got weights and Noted"):
        MimicClassifier(Noted(3), **QUICK).fit(IRIS, KIND, sample_weight=np.arange(150))


def test_discrete_columns_keep_their_values_in_new_rows():
    class Asked(LinearRegression):
        seen: list = []  # noqa: RUF012

        def predict(self, X):
            Asked.seen.append(np.unique(X[:, [0, 2]]).tolist())
            return super().predict(X)

    x = np.random.default_rng(0).integers(3, 6, (90, 3))
    MimicRegressor(Asked(), **QUICK | {"p": 1.0}, discrete=np.array([2, 0, 2])).fit(x, x.sum(axis=1))
    assert len(Asked.seen) >= 3
    assert all(values == [3, 4, 5] for values in Asked.seen)


def test_rows_are_merged_and_held_out_by_class():
    x = np.array([[1, 2], [0, 5], [1, 2], [1, 2]], np.float32)
    y = np.array([1, 0, 1, 0])
    rows, numbers = merged(x, y, np.array([1.0, 2, 3, 4]))
    found = {(tuple(a.tolist()), int(b)): w for a, b, w in zip(*rows)}
    assert found == {((0, 5), 0): 2, ((1, 2), 0): 4, ((1, 2), 1): 4}
    assert np.array_equal(rows.x[numbers], x)
    assert np.array_equal(rows.y[numbers], y)
    strata = np.repeat([0, 1, 2], [100, 9, 20])
    assert np.array_equal(np.bincount(strata[held_out(strata, 129, 0.1, 0)], minlength=3), [10, 0, 2])
    assert held_out(None, 129, 0.1, 0).sum() == 12


# Numbers that float32 does not hold


def test_columns_that_float32_cannot_tell_apart_are_pointed_out():
    late = BODY + np.array([1.7e9] + [0.0] * (BODY.shape[1] - 1))
    with pytest.warns(UserWarning, match=r"^X: expected values that float32 can tell apart, got others: in column 0, "):
        MimicRegressor(**QUICK).fit(late, GROWTH)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        MimicRegressor(**QUICK).fit(late.astype(np.float32), GROWTH)
        MimicRegressor(**QUICK).fit(BODY, GROWTH)


@pytest.mark.parametrize("teacher", [None, FrozenEstimator(LinearRegression().fit(BODY, GROWTH * 1e-3))])
def test_targets_that_float32_cannot_tell_apart_are_pointed_out(teacher):
    mimic = MimicRegressor(teacher, **QUICK)
    with pytest.warns(UserWarning, match=r"^y: expected values that float32 can tell apart, got others: in column 0, "):
        mimic.fit(BODY, GROWTH * 1e-3 + 1e8)
    with pytest.warns(UserWarning, match=r"^y: expected values that float32 can tell apart, got a range of .*e-40 in column 1: scale them"):
        MimicRegressor(**QUICK).fit(BODY, np.stack([GROWTH, GROWTH * 1e-42], axis=1))
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        MimicRegressor(**QUICK).fit(BODY, np.stack([GROWTH + 1e3, 0 * GROWTH, 1e-30 * GROWTH, 0 * GROWTH + 1e8], axis=1))


def test_an_offset_of_the_target_is_taken_off_and_added_again_outside():
    y = 1e8 + GROWTH * 1e-2
    mimic = TransformedTargetRegressor(MimicRegressor(LinearRegression(), **QUICK), transformer=StandardScaler())
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        assert mimic.fit(BODY, y).score(BODY, y) > 0.3


@pytest.mark.parametrize("teacher", [None, Ridge()])
def test_targets_beyond_float32_are_refused_before_any_fit(teacher):
    y = GROWTH.copy()
    y[[7, 9]] = -3.2e39
    with pytest.raises(ValueError, match=r"^y: expected values in \[-1e\+37, 1e\+37\], for a float32 net, got -3.2e\+39 in row 7: scale"):
        MimicRegressor(teacher, **QUICK).fit(BODY, y)
    largest = MimicRegressor(**QUICK).fit(BODY, GROWTH * (1e37 / GROWTH.max()))
    assert np.isfinite(largest.predict(BODY)).all()
