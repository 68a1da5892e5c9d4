"""pymimic.sklearn: teachers of all kinds."""

import pickle
import warnings
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")
from mimics import BODY, GROWTH, IRIS, KIND, QUICK, Noted, logistic
from sklearn.base import clone
from sklearn.ensemble import StackingClassifier, StackingRegressor
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeRegressor

import pymimic as pm
from pymimic.data.teacher import ordered
from pymimic.sklearn import MimicClassifier, MimicRegressor
from pymimic.sklearn.compression import size


def test_a_fitted_teacher_is_asked_and_one_that_is_not_is_fitted_out_of_fold():
    teacher = logistic().fit(IRIS, KIND)
    given = MimicClassifier(teacher, **QUICK).fit(IRIS, KIND)
    assert given.teacher_ is teacher
    fitted = MimicClassifier(logistic(), **QUICK).fit(IRIS, KIND)
    assert np.allclose(fitted.teacher_.coef_, teacher.coef_, atol=0.05)
    for mimic in (given, fitted):
        assert mimic.score(IRIS, KIND) > 0.9
        assert mimic.teacher_agreement_ > 0.8
        assert mimic.student_.configuration()["outputs"] == 3


def test_no_labelled_row_has_logits_of_a_teacher_that_saw_it():
    Noted.log = []
    MimicClassifier(Noted(3), **QUICK).fit(IRIS, KIND)
    *folds, new = Noted.log
    assert len(folds) == 2
    assert all(not saw & asked for saw, asked in folds)
    assert len(set.union(*(asked for _, asked in folds))) == len(np.unique(IRIS, axis=0))
    assert len(new[0]) == len(np.unique(IRIS, axis=0))  # munged rows: by a teacher of all


class Diary(DecisionTreeRegressor):
    """Writes down what each fit got."""

    log: list = []  # noqa: RUF012

    def fit(self, X, y, sample_weight=None):
        Diary.log.append((X.copy(), y.copy(), sample_weight))
        return super().fit(X, y, sample_weight)


@pytest.mark.parametrize("weights", [None, np.linspace(0, 2, 90)])
def test_a_teacher_is_fitted_on_the_rows_as_they_are_given(weights):
    random = np.random.default_rng(0)
    x = random.integers(0, 5, (90, 2)).astype(np.float32)  # 25 kinds of rows
    y = x[:, 0] - 3 * x[:, 1]
    Diary.log = []
    MimicRegressor(Diary(), **QUICK | {"folds": 3}).fit(x, y, weights)
    given = np.full(90, True) if weights is None else weights > 0
    (all_x, all_y, all_weights), *folds = Diary.log
    assert np.array_equal(all_x, x[given])
    assert np.array_equal(all_y, y[given])
    assert len(folds) == 3
    kinds = {tuple(row) for row in x[given]}
    lacking = []
    for fold_x, fold_y, fold_weights in folds:
        seen = {tuple(row) for row in fold_x}
        here = given & np.array([tuple(row) in seen for row in x])
        assert np.array_equal(fold_x, x[here])  # all rows of these kinds, in the user's order
        assert np.array_equal(fold_y, y[here])
        assert (fold_weights is None) if weights is None else np.array_equal(fold_weights, weights[here])
        lacking += kinds - seen
    assert sorted(lacking) == sorted(kinds)  # each kind in one fold
    assert (all_weights is None) if weights is None else np.array_equal(all_weights, weights[given])


@pytest.mark.parametrize(
    "teacher",
    [
        GridSearchCV(DecisionTreeRegressor(random_state=0), {"max_depth": [1, 2, 4, 8]}),
        StackingRegressor([("tree", DecisionTreeRegressor(random_state=0)), ("line", Ridge())]),
        DecisionTreeRegressor(min_samples_leaf=10, random_state=0),
        KNeighborsRegressor(7),
    ],
)
def test_a_teacher_is_what_its_own_fit_gives(teacher):
    random = np.random.default_rng(0)
    x = np.repeat(np.stack([random.integers(0, 10, 60), np.round(random.standard_normal(60), 3)], axis=1), 4, axis=0).astype(np.float32)
    x = x[random.permutation(len(x))]
    y = 3 * random.standard_normal(10)[x[:, 0].astype(int)] + x[:, 1]
    mimic = MimicRegressor(teacher, **QUICK).fit(x, y)
    assert np.array_equal(mimic.teacher_.predict(x), clone(teacher).fit(x, y).predict(x))


def test_regressors_teach_one_column_or_several():
    both = np.stack([GROWTH, -3 * GROWTH + BODY[:, 0]], axis=1)
    for y, shape in ((GROWTH, (200,)), (GROWTH[:, None], (200, 1)), (both, (200, 2))):
        for teacher in (LinearRegression(), LinearRegression().fit(BODY, y), None):
            mimic = MimicRegressor(teacher, **QUICK).fit(BODY, y)
            assert mimic.predict(BODY).shape == shape
            assert mimic.score(BODY, y) > 0.3
            assert (mimic.teacher_agreement_ is None) == (teacher is None)
    with pytest.raises(ValueError, match="teacher: expected 1 outputs, as y has, got 2"):
        MimicRegressor(LinearRegression().fit(BODY, both), **QUICK).fit(BODY, GROWTH)


def test_what_a_fitted_teacher_predicts_is_standardised_whatever_y_is():
    x = np.random.default_rng(0).standard_normal((200, 3))
    taught = 1000 + 100 * x[:, 0]
    line = LinearRegression().fit(x, taught)
    mimics = [MimicRegressor(line, **QUICK).fit(x, y) for y in (taught, np.zeros(200), taught / 1e6, 1e9 * taught)]
    for mimic in mimics:
        assert mimic.teacher_agreement_ > 0.95
        assert np.abs(mimic.predict(x) - taught).mean() < 20
    for mimic in mimics:  # and so it is with warm_start
        again = mimic.set_params(warm_start=True, learning_rate=1e-9).fit(x, taught[::-1])
        assert again.teacher_agreement_ > 0.95
    noisy = taught + np.random.default_rng(1).standard_normal(200)
    constant = MimicRegressor(pm.from_callable(lambda rows: np.full((len(rows), 1), 7.0)), **QUICK).fit(x, noisy)
    assert np.allclose(constant.predict(x), 7, atol=0.1)


def test_from_sklearn_takes_regressors():
    fitted = LinearRegression().fit(BODY, GROWTH)
    teacher = pm.from_sklearn(fitted)
    x = BODY.astype(np.float32)
    assert np.allclose(teacher.logits(x), fitted.predict(x)[:, None], rtol=1e-5)
    assert teacher.describe() == pm.from_sklearn(clone(fitted).fit(BODY, GROWTH)).describe()
    assert teacher.describe() != pm.from_sklearn(clone(fitted).fit(BODY, GROWTH + 1)).describe()
    pickle.loads(pickle.dumps(teacher)).logits(x)
    with pytest.raises(TypeError, match=r"estimator: expected a fitted regressor, got one that is not fitted: call Ridge.fit\(x, labels\)"):
        pm.from_sklearn(Ridge())
    with pytest.raises(ValueError, match=r"classes: expected None for a regressor, LinearRegression, got \[1\]"):
        pm.from_sklearn(fitted, classes=[1])


def test_our_own_teachers_teach():
    net = pm.DeepNet([4, 16, 3], seed=0)
    net.fit(IRIS.astype(np.float32), KIND, epochs=60, batch_size=16, standardise="each")
    mimic = MimicClassifier(net, **QUICK).fit(IRIS, KIND)
    assert mimic.score(IRIS, KIND) > 0.9
    assert mimic.compression_["teacher"]["parameters"] == net.parameter_count
    assert mimic.predict_proba(IRIS).min() > 0  # no floor is taken off


class Turned:
    """A teacher with its columns in the order 2, 0, 1."""

    classes = np.array(["virginica", "setosa", "versicolor"])

    def __init__(self, teacher):
        self.teacher = teacher

    def logits(self, x):
        return self.teacher.logits(x)[:, [2, 0, 1]]

    def describe(self):
        return {}


def test_columns_in_another_order_are_put_in_that_of_the_classes():
    names = np.array(["setosa", "versicolor", "virginica"])[KIND]
    knows = logistic().fit(IRIS, names)
    plain = pm.from_sklearn(knows)
    turned = Turned(plain)
    function = pm.from_callable(turned.logits, "turned", classes=turned.classes)
    wanted = MimicClassifier(plain, **QUICK).fit(IRIS, names)
    assert wanted.score(IRIS, names) > 0.9
    for teacher in (turned, function, pm.from_sklearn(knows, classes=turned.classes), pm.Ensemble([turned, function]), pm.centred(turned)):
        mimic = MimicClassifier(teacher, **QUICK).fit(IRIS, names)
        assert mimic.score(IRIS, names) > 0.9
        assert np.allclose(mimic.predict_proba(IRIS), wanted.predict_proba(IRIS), atol=1e-2)
        assert mimic.teacher_agreement_ == wanted.teacher_agreement_
        assert mimic.teacher_ is teacher
    offset = pm.from_callable(lambda x: 1e9 + turned.logits(x).astype(np.float64), classes=turned.classes)  # as float32 all are one
    assert MimicClassifier(offset, **QUICK).fit(IRIS, names).score(IRIS, names) > 0.9


def test_a_reordered_teacher_tells_whose_it_is_and_pickles():
    teacher = ordered(Turned(pm.from_sklearn(logistic().fit(IRIS, KIND))), ["setosa", "versicolor", "virginica"])
    assert teacher.describe() == {"kind": "ordered", "columns": [1, 2, 0], "of": {}}
    again = pickle.loads(pickle.dumps(ordered(pm.from_sklearn(logistic().fit(IRIS, KIND)), [2, 1, 0])))
    assert again.classes == [2, 1, 0]
    assert np.array_equal(pm.label(again, IRIS).argmax(axis=1), 2 - logistic().fit(IRIS, KIND).predict(IRIS.astype(np.float32)))


def test_predict_proba_is_the_teachers_p_without_the_floor():
    x = np.random.default_rng(0).standard_normal((400, 2), np.float32)
    y = (x[:, 0] > 0).astype(int)
    settings = QUICK | {"hidden": 64, "epochs": 30, "learning_rate": 0.02, "weight_decay": 0.0, "floor": 0.1}
    mimic = MimicClassifier(logistic().fit(x, y), **settings).fit(x, y)
    assert np.abs(mimic.predict_proba(x) - mimic.teacher_.predict_proba(x)).max() < 0.05
    softmax = mimic.student_.predict_proba(x)
    assert np.abs(softmax - mimic.teacher_.predict_proba(x)).max() > 0.05  # which the floor keeps from 0 and 1
    assert np.array_equal(mimic.predict(x), mimic.predict_proba(x).argmax(axis=1))


def three_of_four(labels):
    return logistic().fit(IRIS[labels != 2], labels[labels != 2])


@pytest.mark.parametrize(
    ("teacher", "error", "message"),
    [
        (three_of_four(KIND), ValueError, r"teacher: expected the classes of y, the teacher lacks \[2\]"),
        (logistic().fit(IRIS, KIND + 1), ValueError, r"the teacher lacks \[0\] and y lacks \[3\]"),
        (logistic().fit(IRIS[:, :3], KIND), ValueError, "X has 4 features, but teacher LogisticRegression is expecting 3"),
        (LinearRegression(), TypeError, "teacher: expected a classifier with predict_proba, got LinearRegression"),
        (LinearSVC(), TypeError, "teacher: expected a classifier with predict_proba, got LinearSVC"),
        (SVC(), TypeError, "teacher: expected a classifier with predict_proba, got SVC"),
        (SVC().fit(IRIS, KIND), TypeError, "teacher: expected a classifier with predict_proba, got SVC"),
        (LogisticRegression, TypeError, "got the class LogisticRegression"),
        (3, TypeError, "teacher: expected a classifier with predict_proba, got int"),
        (pm.from_callable(lambda x: x[:, :2]), ValueError, "teacher: expected 3 outputs, as y has, got 2"),
        (pm.from_callable(lambda x: x[:, :3], classes=[0, 1, 5]), ValueError, r"the teacher lacks \[2\] and y lacks \[5\]"),
        (
            SimpleNamespace(logits=len, describe=dict, classes=[0, 1, 2, 1]),
            ValueError,
            r"the teacher has \[0, 1, 2, 1\] and y has \[0, 1, 2\]",
        ),
    ],
)
def test_a_teacher_that_cannot_teach_is_refused(teacher, error, message):
    with pytest.raises(error, match=message):
        MimicClassifier(teacher, **QUICK).fit(IRIS, KIND)


@pytest.mark.parametrize("wrapped", [False, True])
def test_a_stack_that_shows_its_probabilities_once_it_is_fitted(wrapped):
    stack = StackingClassifier([("logistic", logistic())], cv=2)
    assert not hasattr(stack, "predict_proba")
    mimic = MimicClassifier(make_pipeline(StandardScaler(), stack) if wrapped else stack, **QUICK).fit(IRIS, KIND)
    assert mimic.teacher_.predict_proba(IRIS).shape == (150, 3)
    assert mimic.score(IRIS, KIND) > 0.8


def test_a_fitted_teacher_knows_the_columns_by_their_names():
    pandas = pytest.importorskip("pandas")
    frame, other = (pandas.DataFrame(IRIS, columns=list(names)) for names in ("abcd", "abdc"))
    knows = logistic().fit(frame, KIND)
    said = r"^teacher: expected the feature names of X, \['a', 'b', 'd', 'c'\], in that order, got \['a', 'b', 'c', 'd'\]$"
    with pytest.raises(ValueError, match=said):
        MimicClassifier(knows, **QUICK).fit(other, KIND)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        MimicClassifier(knows, **QUICK).fit(frame, KIND)
        MimicClassifier(logistic().fit(IRIS, KIND), **QUICK).fit(frame, KIND)  # it knows no names


def test_a_classifier_does_not_teach_a_regressor():
    with pytest.raises(TypeError, match="teacher: expected a regressor, got LogisticRegression"):
        MimicRegressor(logistic(), **QUICK).fit(BODY, GROWTH)


@pytest.mark.slow
@pytest.mark.parametrize("library", ["lightgbm", "xgboost", "catboost"])
def test_boosted_trees_teach_by_the_same_call(library):
    module = pytest.importorskip(library)
    names = {"lightgbm": ("LGBMClassifier", "LGBMRegressor"), "xgboost": ("XGBClassifier", "XGBRegressor")}
    classifier, regressor = (getattr(module, name) for name in names.get(library, ("CatBoostClassifier", "CatBoostRegressor")))
    quiet = {
        "lightgbm": {"verbose": -1, "n_jobs": 1},
        "xgboost": {"n_jobs": 1},
        "catboost": {"verbose": 0, "thread_count": 1, "allow_writing_files": False},
    }[library]
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for fitted in (False, True):
            teachers = classifier(n_estimators=30, **quiet), regressor(n_estimators=30, **quiet)
            if fitted:
                teachers = teachers[0].fit(IRIS, KIND), teachers[1].fit(BODY, GROWTH)
            mimic = MimicClassifier(teachers[0], **QUICK).fit(IRIS, KIND)
            assert mimic.score(IRIS, KIND) > 0.9
            assert mimic.compression_["teacher"]["bytes"] > mimic.compression_["student"]["bytes"]
            assert MimicRegressor(teachers[1], **QUICK).fit(BODY, GROWTH).score(BODY, GROWTH) > 0.3
        pandas = pytest.importorskip("pandas")
        frame = pandas.DataFrame(IRIS, columns=list("abcd"))
        assert MimicClassifier(classifier(n_estimators=30, **quiet), **QUICK).fit(frame, KIND).score(frame, KIND) > 0.9
        spaced = frame.rename(columns="of {}".format)
        knows = classifier(n_estimators=30, **quiet).fit(spaced, KIND)
        assert MimicClassifier(knows, **QUICK).fit(spaced, KIND).score(spaced, KIND) > 0.9


def test_the_size_of_a_model_is_that_of_its_pickle_and_of_what_it_has_learned():
    network = pytest.importorskip("sklearn.neural_network")
    linear = logistic().fit(IRIS, KIND)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layers = network.MLPClassifier((7, 5), max_iter=2).fit(IRIS, KIND)
    products, biases = 4 * 7 + 7 * 5 + 5 * 3, 7 + 5 + 3
    for model, multiply_adds, parameters in ((linear, 4 * 3, 5 * 3), (layers, products, products + biases)):
        said = size(model)
        assert said == {"bytes": len(pickle.dumps(model, protocol=5)), "parameters": parameters, "multiply_adds": multiply_adds}
    assert size(lambda x: x) == {"bytes": None, "parameters": None, "multiply_adds": None}
    assert size(None)["bytes"] is None
