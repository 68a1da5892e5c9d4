"""Out of fold no teacher speaks of rows that it saw, and all speak of the same classes."""

import numpy as np
import pytest

from pymimic.data.classifier import from_sklearn
from pymimic.data.folds import out_of_fold
from pymimic.data.teacher import from_callable


def rows(n, columns=3, seed=0):
    return np.random.default_rng(seed).standard_normal((n, columns), np.float32)


def fixed(classes):
    return from_callable(lambda x: np.zeros((len(x), len(classes))), classes=classes)


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

    with pytest.raises(ValueError, match=r"with \d outputs as the first has, got \d in fold (\d), .* fold \d's teacher lacks \['rare'\]$"):
        out_of_fold(lambda x, y: from_sklearn(fit(x, y)), x, labels, 3)
    logits = out_of_fold(lambda x, y: from_sklearn(fit(x, y), classes=["a", "b", "rare"]), x, labels, 3)
    assert logits.shape == (21, 3)
    assert logits[20, 2] == logits[20].min()  # the rare row's teacher has never seen its class


@pytest.mark.parametrize("single", [2, 3, 5])
def test_folds_that_lack_as_many_classes_but_others_are_told_apart(single):
    """Classes of a single row each: every fold's teacher lacks some."""
    tree = pytest.importorskip("sklearn.tree")
    x, labels = rows(30), np.array([0] * (30 - single) + list(range(1, single + 1)))

    def fit(x, y):
        return tree.DecisionTreeClassifier(random_state=0).fit(x, y)

    with pytest.raises(ValueError, match=r"^make_teacher: expected teachers .*fold \d's teacher lacks \["):
        out_of_fold(lambda x, y: from_sklearn(fit(x, y)), x, labels, 2)
    assert out_of_fold(lambda x, y: from_sklearn(fit(x, y), classes=range(single + 1)), x, labels, 2).shape == (30, single + 1)


def test_folds_whose_teachers_know_no_classes_or_order_them_otherwise():
    x, labels = rows(8), np.zeros(8, int)
    orders = iter([["a", "b"], ["b", "a"]])
    with pytest.raises(ValueError, match=r"fold 0's teacher has \['a', 'b'\] and fold 1's teacher has \['b', 'a'\]"):
        out_of_fold(lambda x, y: fixed(next(orders)), x, labels, 2)
    some = iter([from_callable(lambda x: x[:, :2]), fixed("ab"), fixed("ba")])
    with pytest.raises(ValueError, match=r"fold 1's teacher has .* and fold 2's teacher has"):
        out_of_fold(lambda x, y: next(some), x, labels, 3)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"folds": 1}, ValueError, r"folds: expected an int in \[2, 7\), got 1"),
        ({"folds": 7}, ValueError, "folds: expected an int in"),
        ({"labels": np.zeros(5, int)}, ValueError, r"labels: expected shape \(N,\) = \(6,\), got \(5,\)"),
        ({"labels": (0,) * 6}, TypeError, "labels: expected a NumPy array"),
        ({"x": np.zeros((6, 1), np.int32)}, TypeError, "x: expected dtype float32 or float64, got int32"),
        ({"seed": -1}, ValueError, "seed: expected an int in"),
        ({"make_teacher": lambda x, y: from_callable(lambda x: x * np.nan)}, ValueError, "logits: expected finite values"),
    ],
)
def test_out_of_fold_refuses_bad_arguments(change, error, message):
    arguments = {"make_teacher": lambda x, y: from_callable(lambda x: x), "x": rows(6, 1), "labels": np.zeros(6, int), "folds": 2}
    with pytest.raises(error, match=message):
        out_of_fold(**{**arguments, **change})
