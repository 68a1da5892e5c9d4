"""Teachers: what they say of a row, and which classes they know."""

import json
import pickle
import warnings

import numpy as np
import pytest
from roundings import assert_within_roundings

import pymimic as pm
from pymimic.data.classifier import from_sklearn
from pymimic.data.teacher import Ensemble, from_callable, label


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
    assert_within_roundings(got, x * (2.5 / 3), 4)  # three products, their sum, its third
    assert Ensemble(members).describe()["members"] == [{"kind": "callable", "name": f"times {a}"} for a in (1.0, 2.0, -0.5)]


def test_an_ensemble_needs_members_that_agree_in_their_outputs():
    with pytest.raises(ValueError, match="members: expected at least one teacher, got none"):
        Ensemble([])
    with pytest.raises(ValueError, match=r"members: expected logits of one shape, got \(4, 3\) and \(4, 2\)"):
        Ensemble([from_callable(lambda x: x), from_callable(lambda x: x[:, :2])]).logits(rows(4))


def fixed(classes):
    return from_callable(lambda x: np.zeros((len(x), len(classes))), classes=classes)


def test_an_ensemble_compares_the_classes_that_its_members_know():
    unknown = from_callable(lambda x: x)
    assert Ensemble([unknown]).classes is None
    assert Ensemble([unknown, fixed("abc"), unknown, fixed(np.array(["a", "b", "c"]))]).classes == ["a", "b", "c"]
    for other, message in (
        ("acd", r"member 1 lacks \['d'\] and member 3 lacks \['b'\]"),
        ("ab", r"member 3 lacks \['c'\]"),
        ("abcd", r"member 1 lacks \['d'\]"),
        ("cab", r"member 1 has \['a', 'b', 'c'\] and member 3 has \['c', 'a', 'b'\]"),
    ):
        with pytest.raises(ValueError, match=f"^members: expected teachers of the same classes in the same order, got {message}$"):
            Ensemble([unknown, fixed("abc"), unknown, fixed(other)])
    with pytest.raises(ValueError, match="members: expected teachers of the same classes"):
        Ensemble([fixed("ab"), Ensemble([unknown, fixed("ac")])])


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


class Says:
    """A classifier of two classes that says whatever it is told to."""

    classes_ = np.array([0, 1])

    def __init__(self, answer):
        self.answer = answer

    def predict_proba(self, x):
        return self.answer(x)


HALF = np.full((4, 2), 0.5)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (HALF[:, :1], r"expected shape \(B, len\(classes_\)\) = \(4, 2\) from Says, got \(4, 1\)"),
        (HALF[:, 0], r"= \(4, 2\) from Says, got \(4,\)"),
        (HALF[:3], r"= \(4, 2\) from Says, got \(3, 2\)"),
        (np.hstack([HALF, HALF]), r"= \(4, 2\) from Says, got \(4, 4\)"),
        (HALF * np.array([[1], [1], [1.2], [1]]), r"rows of probabilities with sum 1 from Says, got .* \[0.6, 0.6\] with sum 1.2 in row 2"),
        (HALF + np.array([-0.6, 0.6]), r"got values in \[-0.1, 1.1\] with sum 1 in row 0"),
        (np.where(np.arange(4)[:, None] == 3, np.nan, HALF), r"got values in \[nan, nan\] with sum nan in row 3"),
        (np.log(HALF), r"got values in \[-0.69"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("classes", [None, range(3)])
def test_what_is_no_table_of_probabilities_is_refused(answer, message, classes):
    with pytest.raises(ValueError, match=f"^predict_proba: .*{message}"):
        from_sklearn(Says(lambda x: answer), classes=classes).logits(rows(4))


def test_probabilities_of_low_precision_and_sparse_ones_are_taken():
    p = np.array([[1 / 3, 2 / 3], [1e-5, 1]], np.float16)
    want = np.log(p.astype(float) + 0.01)
    assert_within_roundings(from_sklearn(Says(lambda x: p)).logits(rows(2)), want - want.mean(1, keepdims=True), 2)
    nearly = from_sklearn(Says(lambda x: np.array([[-1e-4, 1 + 1e-4]])), floor=1e-6).logits(rows(1))
    assert np.isfinite(nearly).all()
    sparse = pytest.importorskip("scipy.sparse")
    assert np.array_equal(from_sklearn(Says(lambda x: sparse.csr_matrix(HALF))).logits(rows(4)), np.zeros((4, 2)))


def test_several_outputs_and_decisions_without_probabilities_say_what_to_do():
    with pytest.raises(TypeError, match="predict_proba: expected one array from Says, got 3, as classifiers with several outputs give"):
        from_sklearn(Says(lambda x: [HALF] * 3)).logits(rows(4))
    svm = pytest.importorskip("sklearn.svm")
    fitted = svm.LinearSVC().fit(rows(20), np.arange(20) % 2)
    with pytest.raises(TypeError, match=r"got LinearSVC with decision_function alone: calibrate it \(CalibratedClassifierCV\), or use"):
        from_sklearn(fitted)


def test_a_teacher_knows_its_classes():
    assert from_sklearn(Forest()).classes == ["c", "a", "d"]
    assert from_sklearn(Forest(), classes=np.array(["a", "b", "c", "d"])).classes == ["a", "b", "c", "d"]
    assert all(type(value) is int for value in from_sklearn(Says(len), classes=np.arange(3)).classes)
    with pytest.raises(ValueError, match=r"classes: expected each class once, got \['a'\] again"):
        from_sklearn(Forest(), classes=["a", "c", "a", "d"])
    one, other = (from_sklearn(Forest(), classes=classes).describe() for classes in ("acd", "cad"))
    assert one != other


@pytest.mark.parametrize("floor", [0.01, 1e-6])
def test_a_classifier_says_log_p_with_a_floor_less_the_rows_mean(floor):
    x = rows(9) * 10
    want = np.log(Forest().predict_proba(x) + floor)
    got = from_sklearn(Forest(), floor).logits(x)
    assert got.dtype == np.float32
    assert_within_roundings(got, want - want.mean(1, keepdims=True), 2)  # log and mean are float64's
    assert_within_roundings(got.sum(1), np.zeros(9), 6, least=np.abs(want).max())  # a rounding of each of three, and their sum's


def test_columns_are_the_classes_asked_for_and_unseen_ones_have_probability_0():
    x = rows(9)
    p = Forest().predict_proba(x)
    want = np.log(np.stack([p[:, 1], np.zeros(9), p[:, 0], p[:, 2]], axis=1) + 0.01)
    got = from_sklearn(Forest(), classes=["a", "b", "c", "d"]).logits(x)
    assert_within_roundings(got, want - want.mean(1, keepdims=True), 2)
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


def test_label_asks_in_slabs_of_float32_and_gives_what_one_call_would():
    sizes = []

    def teach(x):
        assert x.dtype == np.float32
        sizes.append(len(x))
        x *= 2  # a copy, which it may change
        return x[:, :3]

    x = rows(50)
    kept = x.copy()
    for workers in (1, 3):
        sizes.clear()
        assert np.array_equal(pm.label(from_callable(teach), x, rows=16, workers=workers), 2 * kept[:, :3])
        assert sorted(sizes) == [2, 16, 16, 16]
    assert np.array_equal(pm.label(from_callable(teach), x.astype(np.float64)), 2 * kept[:, :3])
    assert pm.label(from_callable(teach), x[:0]).shape == (0, 3)
    assert np.array_equal(x, kept)


@pytest.mark.parametrize(
    ("function", "keywords", "error", "message"),
    [
        (lambda x: np.where(x[:, :1] == rows(10)[6, 0], np.inf, x), {"rows": 4}, ValueError, "logits: expected finite .* inf in row 6"),
        (lambda x: x[:, : len(x)], {"rows": 3}, ValueError, "logits: expected 3 columns from the teacher, got 1"),
        (lambda x: x, {"rows": 0}, ValueError, "rows: expected an int"),
        (lambda x: x, {"workers": 0}, ValueError, "workers: expected an int"),
    ],
)
def test_label_refuses(function, keywords, error, message):
    with pytest.raises(error, match=message):
        pm.label(from_callable(function), rows(10), **keywords)
    with pytest.raises(TypeError, match="teacher: expected a teacher"):
        pm.label(function, rows(10), **keywords)


def test_a_centred_teachers_rows_have_mean_0_and_are_its_own_otherwise():
    teacher = from_callable(lambda x: x[:, :3] + 5, "moved", classes="abc")
    x = rows(20)
    logits = pm.label(teacher, x)
    centred = pm.centred(teacher)
    assert np.allclose(pm.label(centred, x), logits - logits.mean(axis=1, keepdims=True), atol=1e-6)
    assert centred.describe() == {"kind": "centred", "of": teacher.describe()}
    assert centred.classes == ["a", "b", "c"]
    with pytest.raises(TypeError, match="teacher: expected a teacher"):
        pm.centred(lambda x: x)


@pytest.mark.parametrize("columns", [1, 2])
def test_one_output_has_nothing_to_be_centred_against(columns):
    x, function = rows(20), from_callable(lambda x: 100 + np.abs(x[:, :columns]), "height")
    net = pm.Student(3, 4, columns)
    net.fresh = False
    for teacher, name in ((function, "'height'"), (net, "Student"), (pm.Ensemble([function]), "Ensemble")):
        centred = pm.centred(teacher)
        if columns == 2:
            assert np.abs(pm.label(centred, x)).max() > 0
            continue
        for ask in (pm.label, lambda teacher, x: teacher.logits(x), pm.TransferSet.from_teacher):
            said = f"^teacher: expected at least two outputs, as one has nothing to be centred against, got one from {name}: "
            with pytest.raises(ValueError, match=said):
                ask(centred, x)


@pytest.mark.parametrize("make", [lambda: pm.Student(4, 8, 3), lambda: pm.DeepNet([4, 3]), lambda: pm.ConvNet((1, 4), [(2, 2)], 3)])
def test_a_net_that_has_learned_nothing_is_pointed_out_as_a_teacher(make, tmp_path):
    x, net = np.ones((5, 4), np.float32), make()
    for teacher in (net, pm.centred(net), pm.Ensemble([net])):
        with pytest.warns(
            UserWarning, match=f"teacher: expected a net that has learned, got a {type(net).__name__} with its first, random"
        ):
            pm.TransferSet.from_teacher(teacher, x)
    net.save(tmp_path / "f")
    given, fitted = make(), make()
    given.set_arrays(**net.arrays())
    data = pm.LabelledSet(x, np.zeros(5, int), 3)
    pm.Trainer(fitted, pm.SGD(0.1), epochs=1, loss="cross_entropy", progress=False).fit(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for good in (type(net).load(tmp_path / "f"), given, fitted, pickle.loads(pickle.dumps(fitted))):
            pm.TransferSet.from_teacher(good, x)
