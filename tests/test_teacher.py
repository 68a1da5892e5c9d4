"""Teachers: what they say of a row, and that out of fold none speaks of rows that it saw."""

import json

import numpy as np
import pytest

from pymimic.data.teacher import Ensemble, from_callable, from_sklearn, label, out_of_fold


def rows(n, columns=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, columns), np.float32)


class Forest:
    """A classifier that has seen classes "c", "a", "d", in that order of columns."""

    classes_ = np.array(["c", "a", "d"])

    def predict_proba(self, x):
        p = np.exp(np.asarray(x, np.float64))
        return p / p.sum(axis=1, keepdims=True)

    def get_params(self):
        return {"depth": 3, "inner": object}


# Ensemble


def test_an_ensemble_says_the_mean_of_its_members_logits():
    members = [from_callable(lambda x, a=a: a * x, f"times {a}") for a in (1.0, 2.0, -0.5)]
    x = rows(7)
    got = Ensemble(members).logits(x)
    assert got.dtype == np.float32
    assert np.allclose(got, x * (2.5 / 3), rtol=1e-6)
    assert Ensemble(members).describe()["members"] == [{"kind": "callable", "name": f"times {a}"} for a in (1.0, 2.0, -0.5)]


def test_an_ensemble_needs_members_that_agree_in_their_outputs():
    with pytest.raises(ValueError, match="members: expected at least one teacher, got none"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"members: expected logits of one shape, got \(4, 3\) and \(4, 2\)"):
        Ensemble([from_callable(lambda x: x), from_callable(lambda x: x[:, :2])]).logits(rows(4))


# Functions


def test_a_function_is_a_teacher():
    def twice(x):
        return (2 * x).tolist()

    teacher = from_callable(twice)
    x = rows(4)
    assert np.array_equal(teacher.logits(x), 2 * x)
    assert teacher.logits(x).dtype == np.float32
    assert teacher.describe()["name"].endswith("twice")
    assert from_callable(twice, "mine").describe() == {"kind": "callable", "name": "mine"}
    with pytest.raises(TypeError, match="function: expected a callable, got int"):
        from_callable(3)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda x: x[:2], r"logits: expected shape \(4, C\) from the teacher, got \(2, 3\)"),
        (lambda x: x[:, 0], r"logits: expected shape \(4, C\) from the teacher, got \(4,\)"),
        (lambda x: np.where(np.arange(4)[:, None] == 2, np.inf, x), "logits: expected finite values, got inf in row 102"),
    ],
)
def test_logits_that_are_none_are_refused(function, message):
    with pytest.raises(ValueError, match=message):
        label(from_callable(function), rows(4), first_row=100)


# scikit-learn


@pytest.mark.parametrize("floor", [0.01, 1e-6])
def test_a_classifier_says_log_p_with_a_floor_less_the_rows_mean(floor):
    x = rows(9) * 10
    want = np.log(Forest().predict_proba(x) + floor)
    got = from_sklearn(Forest(), floor).logits(x)
    assert got.dtype == np.float32
    assert np.allclose(got, want - want.mean(1, keepdims=True), atol=1e-5)
    assert np.allclose(got.sum(1), 0, atol=1e-4)


def test_columns_are_the_classes_asked_for_and_unseen_ones_have_probability_0():
    x = rows(9)
    p = Forest().predict_proba(x)
    want = np.log(np.stack([p[:, 1], np.zeros(9), p[:, 0], p[:, 2]], axis=1) + 0.01)
    got = from_sklearn(Forest(), classes=["a", "b", "c", "d"]).logits(x)
    assert np.allclose(got, want - want.mean(1, keepdims=True), atol=1e-5)
    with pytest.raises(ValueError, match=r"classes: expected all that the estimator knows, got none of \['d'\]"):
        from_sklearn(Forest(), classes=["a", "b", "c"])


def test_a_classifiers_description_tells_settings_apart_and_fits_json():
    described = from_sklearn(Forest()).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["class"].endswith("Forest")
    assert described["parameters"]["depth"] == "3"
    assert described != from_sklearn(Forest(), 0.02).describe()


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ((object(),), TypeError, "estimator: expected a fitted classifier with predict_proba, got object"),
        ((Forest(), 0.0), ValueError, "floor: expected a number above 0, got 0.0"),
        ((Forest(), np.nan), ValueError, "floor: expected a number above 0"),
    ],
)
def test_what_is_no_classifier_is_refused(arguments, error, message):
    with pytest.raises(error, match=message):
        from_sklearn(*arguments)


def test_a_fitted_forest_and_an_unfitted_one():
    ensemble = pytest.importorskip("sklearn.ensemble")
    x = rows(60)
    labels = (x[:, 0] > 0).astype(int) * 2  # classes 0 and 2
    forest = ensemble.ExtraTreesClassifier(5, random_state=0)
    with pytest.raises(TypeError, match="estimator: expected a fitted classifier"):
        from_sklearn(forest)
    teacher = from_sklearn(forest.fit(x, labels), classes=range(3))
    assert np.array_equal(teacher.logits(x).argmax(1), labels)
    assert np.allclose(teacher.logits(x)[:, 1], teacher.logits(x).min(1))
    with pytest.raises(TypeError, match="one output, got one with several"):
        from_sklearn(forest.fit(x, np.stack([labels, labels], axis=1)))


# Out of fold


class Spy:
    """Remembers the rows that it was fitted on and that it was asked about; column 0 of a row is its number."""

    fitted: list["Spy"] = []  # noqa: RUF012

    def __init__(self, x, labels):
        self.saw, self.labels, self.asked = set(x[:, 0]), labels, []
        Spy.fitted.append(self)

    def logits(self, x):
        self.asked.append(x[:, 0])
        return np.stack([x[:, 0], np.full(len(x), Spy.fitted.index(self), np.float32)], axis=1)

    def describe(self):
        return {}


@pytest.fixture
def spies():
    Spy.fitted = []
    return Spy.fitted


@pytest.mark.parametrize("folds", [2, 3, 7])
def test_no_row_is_labelled_by_a_teacher_that_saw_it(spies, folds):
    x = np.arange(100, dtype=np.float32)[:, None]
    labels = np.repeat([0, 1, 2], [10, 30, 60])
    logits = out_of_fold(Spy, x, labels, folds, seed=3)
    assert np.array_equal(logits[:, 0], np.arange(100))  # each row has its own logits
    assert len(spies) == folds
    for number, spy in enumerate(spies):
        (asked,) = spy.asked
        assert not spy.saw & set(asked)
        assert spy.saw | set(asked) == set(range(100))
        assert np.array_equal(np.flatnonzero(logits[:, 1] == number), np.sort(asked))
        counts = np.bincount(labels[asked.astype(int)], minlength=3)
        assert (abs(counts - np.array([10, 30, 60]) / folds) < 1).all()  # stratified


def test_folds_follow_from_the_seed(spies):
    x, labels = np.arange(40, dtype=np.float32)[:, None], np.arange(40) % 4
    for seed in (0, 0, 1):
        out_of_fold(Spy, x, labels, 4, seed)
    first, again, other = (tuple(frozenset(spy.saw) for spy in spies[i : i + 4]) for i in (0, 4, 8))
    assert first == again
    assert set(first) != set(other)


def test_a_class_that_a_fold_lacks_is_said_or_filled_in():
    neighbors = pytest.importorskip("sklearn.neighbors")
    x, labels = rows(21), np.array(["a", "b"] * 10 + ["rare"])

    def fit(x, y):
        return neighbors.KNeighborsClassifier(3).fit(x, y)

    with pytest.raises(ValueError, match=r"make_teacher: expected teachers with \d outputs as the first has, got \d in fold \d"):
        out_of_fold(lambda x, y: from_sklearn(fit(x, y)), x, labels, 3)
    logits = out_of_fold(lambda x, y: from_sklearn(fit(x, y), classes=["a", "b", "rare"]), x, labels, 3)
    assert logits.shape == (21, 3)
    assert logits[20, 2] == logits[20].min()  # the rare row's teacher has never seen its class


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"folds": 1}, ValueError, r"folds: expected an int in \[2, 7\), got 1"),
        ({"folds": 7}, ValueError, "folds: expected an int in"),
        ({"labels": np.zeros(5, int)}, ValueError, r"labels: expected shape \(N,\) = \(6,\), got \(5,\)"),
        ({"labels": [0] * 6}, TypeError, "labels: expected a NumPy array"),
        ({"x": np.zeros((6, 1), np.int32)}, TypeError, "x: expected dtype float32 or float64, got int32"),
        ({"seed": -1}, ValueError, "seed: expected an int in"),
        ({"make_teacher": lambda x, y: from_callable(lambda x: x * np.nan)}, ValueError, "logits: expected finite values"),
    ],
)
def test_out_of_fold_refuses_bad_arguments(change, error, message):
    arguments = {"make_teacher": lambda x, y: from_callable(lambda x: x), "x": rows(6, 1), "labels": np.zeros(6, int), "folds": 2}
    with pytest.raises(error, match=message):
        out_of_fold(**{**arguments, **change})
