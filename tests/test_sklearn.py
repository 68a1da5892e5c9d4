"""pymimic.sklearn: scikit-learn's own checks, rows and weights, and what a mimic says of itself."""

import pickle
import subprocess
import sys
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.6")
from mimics import BODY, GROWTH, IRIS, KIND, QUICK, TINY, logistic
from sklearn import config_context
from sklearn.base import clone
from sklearn.datasets import make_classification
from sklearn.ensemble import ExtraTreesClassifier, ExtraTreesRegressor
from sklearn.exceptions import NotFittedError
from sklearn.frozen import FrozenEstimator
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge
from sklearn.model_selection import GridSearchCV, cross_validate
from sklearn.neural_network import MLPClassifier, MLPRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC
from sklearn.tree import DecisionTreeClassifier
from sklearn.utils.estimator_checks import parametrize_with_checks

from pymimic.data.names import with_names
from pymimic.sklearn import MimicClassifier, MimicRegressor
from pymimic.sklearn.compression import size


@parametrize_with_checks([MimicClassifier(**TINY), MimicRegressor(**TINY)])
def test_scikit_learns_checks(estimator, check):
    check(estimator)


@pytest.mark.slow
@parametrize_with_checks([
    MimicClassifier(DecisionTreeClassifier(max_depth=4), **TINY, copies=1, folds=2),
    MimicRegressor(Ridge(), **TINY, copies=1, folds=2, rank=1),
])  # fmt: skip
@pytest.mark.filterwarnings("ignore:rank. expected at most")
def test_scikit_learns_checks_with_a_teacher(estimator, check):
    check(estimator)


# Where scikit-learn is missing


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("sys.modules['sklearn'] = None", 'expected scikit-learn 1.6 or newer, got none: pip install "scikit-learn>=1.6"'),
        ("sys.modules['sklearn'] = types.SimpleNamespace(__version__='1.5.2')", 'got 1.5.2: pip install --upgrade "scikit-learn>=1.6"'),
    ],
)
def test_a_missing_or_old_scikit_learn_says_what_to_install(code, message):
    program = f"import sys, types, pymimic\nassert 'sklearn' not in sys.modules\n{code}\nimport pymimic.sklearn"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert run.returncode == 1
    assert message in run.stderr.splitlines()[-1]
    assert run.stderr.splitlines()[-1].startswith("ImportError: pymimic.sklearn: ")


# The estimator among others


def test_names_strings_objects_and_sparse_rows():
    pandas, sparse = pytest.importorskip("pandas"), pytest.importorskip("scipy.sparse")
    frame, names = pandas.DataFrame(IRIS, columns=list("abcd")), np.array(["setosa", "versicolor", "virginica"])[KIND]
    plain = MimicClassifier(**QUICK).fit(IRIS, KIND)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for labels in (names, names.astype(object), pandas.Series(names)):
            teacher = make_pipeline(StandardScaler(), logistic()).fit(frame, labels)
            mimic = MimicClassifier(teacher, **QUICK).fit(frame, labels)
            assert set(mimic.predict(frame)) <= set(names)
            assert list(mimic.feature_names_in_) == list("abcd")
    other = logistic().fit(frame[["d", "c", "b", "a"]], names)
    with pytest.raises(ValueError, match=r"teacher: expected the feature names of X, \['a', 'b', 'c', 'd'\], in that order, got \['d'"):
        MimicClassifier(other, **QUICK).fit(frame, names)
    for kind in (sparse.csr_matrix, sparse.csc_array, sparse.coo_array):
        mimic = MimicClassifier(**QUICK).fit(kind(IRIS), KIND)
        assert np.array_equal(mimic.decision_function(kind(IRIS)), plain.decision_function(IRIS))


@pytest.mark.parametrize("jobs", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_grid_search_and_pipelines(jobs):
    pipeline = make_pipeline(StandardScaler(), MimicClassifier(logistic(), **QUICK))
    grid = {"mimicclassifier__hidden": [4, 16], "mimicclassifier__teacher__C": [1.0]}
    search = GridSearchCV(pipeline, grid, n_jobs=jobs, cv=2, error_score="raise").fit(IRIS, KIND)
    assert search.best_score_ > 0.85


def test_pickles_and_dumps_of_joblib_answer_alike(tmp_path):
    joblib, pandas = pytest.importorskip("joblib"), pytest.importorskip("pandas")
    frame = pandas.DataFrame(IRIS, columns=list("abcd"))
    pipeline = make_pipeline(StandardScaler(), MimicClassifier(logistic(), **QUICK)).set_output(transform="pandas")
    pipeline.fit(frame, KIND)
    assert list(pipeline[-1].feature_names_in_) == list("abcd")
    joblib.dump(pipeline, tmp_path / "f")
    for same in (joblib.load(tmp_path / "f"), pickle.loads(pickle.dumps(pipeline))):
        assert np.array_equal(same.decision_function(frame), pipeline.decision_function(frame))


def test_a_frozen_teacher_stays_fitted_where_others_are_fitted_anew():
    teacher = logistic().fit(IRIS, KIND)
    assert clone(MimicClassifier(FrozenEstimator(teacher))).set_params(**QUICK).fit(IRIS, KIND).teacher_.coef_ is teacher.coef_
    assert clone(MimicClassifier(teacher)).set_params(**QUICK).fit(IRIS, KIND).teacher_ is not teacher


def test_weights_are_routed():
    with config_context(enable_metadata_routing=True):
        mimic = MimicClassifier(**QUICK).set_fit_request(sample_weight=True).set_score_request(sample_weight=True)
        weights = np.where(KIND == 2, 0.0, 1.0)
        found = cross_validate(mimic, IRIS, KIND, params={"sample_weight": weights}, cv=2, return_estimator=True)
        assert all(list(fitted.classes_) == [0, 1] for fitted in found["estimator"])


def test_weights_are_routed_into_a_teacher_that_is_a_pipeline():
    weights = np.linspace(0.1, 2, len(KIND))
    with config_context(enable_metadata_routing=True):
        scaler, last = StandardScaler().set_fit_request(sample_weight=False), logistic().set_fit_request(sample_weight=True)
        teacher = make_pipeline(scaler, last)
        mimic = MimicClassifier(teacher, **QUICK).fit(IRIS, KIND, sample_weight=weights)
        alone = clone(teacher).fit(IRIS, KIND, sample_weight=weights)
        assert np.allclose(mimic.teacher_[-1].coef_, alone[-1].coef_, atol=0.01)
        assert not np.allclose(mimic.teacher_[-1].coef_, clone(teacher).fit(IRIS, KIND)[-1].coef_, atol=0.02)
    with pytest.raises(ValueError, match=r"^sample_weight: expected a teacher whose fit takes it, or None, got weights and Pipeline"):
        MimicClassifier(make_pipeline(StandardScaler(), logistic()), **QUICK).fit(IRIS, KIND, sample_weight=weights)


def test_logarithms_of_probabilities():
    mimic = MimicClassifier(logistic(), **QUICK).fit(IRIS, KIND)
    assert np.array_equal(np.exp(mimic.predict_log_proba(IRIS)).round(12), mimic.predict_proba(IRIS).round(12))


def test_random_states_decide():
    def ask(state, **more):
        mimic = MimicClassifier(ExtraTreesClassifier(5), **QUICK | {"random_state": state} | more)
        return mimic.fit(IRIS, KIND).decision_function(IRIS), mimic

    assert np.array_equal(ask(3)[0], ask(3)[0])
    assert np.array_equal(ask(np.random.RandomState(3))[0], ask(3)[0])
    assert not np.array_equal(ask(4)[0], ask(3)[0])
    state = np.random.RandomState(3)
    assert not np.array_equal(ask(state)[0], ask(state)[0])
    assert not np.array_equal(ask(None)[0], ask(None)[0])


@pytest.mark.parametrize("teacher", [False, True])
def test_warm_start_goes_on(teacher):
    classifier = MimicClassifier(logistic() if teacher else None, warm_start=True, **QUICK).fit(IRIS, KIND)
    regressor = MimicRegressor(Ridge() if teacher else None, warm_start=True, **QUICK).fit(BODY, GROWTH)
    before = regressor.predict(BODY)
    regressor.set_params(learning_rate=1e-9).fit(BODY, GROWTH)
    assert np.allclose(regressor.predict(BODY), before, rtol=1e-4)
    loss = classifier.history_[-1].train_loss
    assert classifier.fit(IRIS, KIND).history_[0].train_loss < 2 * loss
    with pytest.raises(ValueError, match=r"y: expected the classes \[0, 1, 2\] as before, with warm_start=True, got \[1, 2\]"):
        classifier.fit(IRIS[KIND > 0], KIND[KIND > 0])
    with pytest.raises(ValueError, match="hidden: expected 16 as before, to go on with warm_start=True, got 8"):
        classifier.set_params(hidden=8).fit(IRIS, KIND)
    with pytest.raises(ValueError, match="X has 3 features, but MimicClassifier is expecting 4 features as input"):
        classifier.fit(IRIS[:, :3], KIND)


@pytest.mark.filterwarnings("ignore:X (has|does not have valid) feature names")
@pytest.mark.parametrize("warm", [False, True])
@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_fit_that_fails_leaves_the_one_before(warm, error):
    def fails(*_, **__):
        raise error

    pandas = pytest.importorskip("pandas")
    frame, names = pandas.DataFrame(IRIS, columns=list("abcd")), np.array(["setosa", "versicolor", "virginica"])[KIND]
    both, letters = np.stack([GROWTH, GROWTH], axis=1), pandas.DataFrame(BODY[:, :5], columns=list("vwxyz"))
    for mimic, first, then in (
        (MimicClassifier(logistic(), **QUICK), (frame, names), (IRIS[:, :3], KIND)),
        (MimicClassifier(**QUICK), (IRIS, KIND), (frame, KIND + 1)),
        (MimicRegressor(**QUICK), (BODY, GROWTH), (letters, both)),
        (MimicRegressor(**QUICK), (BODY, both), (BODY, GROWTH)),
    ):
        base = LinearRegression if isinstance(mimic, MimicRegressor) else LogisticRegression
        mimic.fit(*first)
        answers = mimic.predict(first[0])
        mimic.set_params(teacher=type("Fails", (base,), {"fit": fails})(), warm_start=warm)
        before = dict(vars(mimic))
        with pytest.raises((error, ValueError) if warm else error):
            mimic.fit(*then)
        assert vars(mimic).keys() == before.keys()
        assert all(vars(mimic)[name] is value for name, value in before.items())
        assert np.array_equal(mimic.predict(first[0]), answers)


# What it says of itself


def test_compression_counts_what_has_a_meaning():
    mimic = MimicClassifier(ExtraTreesClassifier(5), rank=2, **QUICK).fit(IRIS, KIND)
    assert mimic.compression_["teacher"] == {"bytes": len(pickle.dumps(mimic.teacher_, 5)), "parameters": None, "multiply_adds": None}
    student = mimic.compression_["student"]
    assert student == {"bytes": len(pickle.dumps(mimic.student_, 5)), "parameters": 2 * (4 + 16) + 16 + 3 * 16 + 3, "multiply_adds": 88}
    assert MimicClassifier(**QUICK).fit(IRIS, KIND).compression_["teacher"] == dict.fromkeys(student)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        perceptron = MLPClassifier(hidden_layer_sizes=[7], max_iter=1).fit(IRIS, KIND)
        deep = MLPRegressor(hidden_layer_sizes=[7, 5], max_iter=1).fit(BODY, GROWTH)
    assert [size(perceptron)[word] for word in ("parameters", "multiply_adds")] == [4 * 7 + 7 + 7 * 3 + 3, 4 * 7 + 7 * 3]
    assert size(deep)["multiply_adds"] == 10 * 7 + 7 * 5 + 5
    assert size(LinearRegression().fit(BODY, GROWTH))["parameters"] == 11
    assert size(SVC(kernel="linear").fit(IRIS, KIND))["parameters"] is None
    assert size(lambda x: x) == dict.fromkeys(student)


def test_agreement_and_history_are_of_held_out_rows():
    mimic = MimicClassifier(logistic(), **QUICK).fit(IRIS, KIND)
    assert mimic.teacher_agreement_ == mimic.history_[mimic.history_.best_epoch - 1].validation_accuracy
    assert len(mimic.history_) == 12
    everything = MimicClassifier(logistic(), validation_fraction=0, **QUICK).fit(IRIS, KIND)
    assert everything.history_[-1].validation_loss is None
    assert everything.teacher_agreement_ > 0.8
    forest = ExtraTreesRegressor(20, random_state=0).fit(BODY, GROWTH)
    assert MimicRegressor(forest, **QUICK).fit(BODY, GROWTH).teacher_agreement_ < 1


def test_two_classes_and_no_fit():
    x, y = make_classification(80, 5, random_state=0)
    mimic = MimicClassifier(**QUICK).fit(x, y)
    assert mimic.decision_function(x).shape == (80,)
    assert mimic.predict_proba(x).shape == (80, 2)
    assert np.array_equal(mimic.decision_function(x) > 0, mimic.predict(x) == 1)
    for unfitted, method in ((MimicClassifier(), "predict_proba"), (MimicRegressor(), "predict")):
        with pytest.raises(NotFittedError):
            getattr(unfitted, method)(x)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"discrete": [9]}, r"discrete: expected an int in \[0, 4\), got 9"),
        ({"discrete": [-1]}, r"discrete: expected an int in \[0, 4\), got -1"),
        ({"discrete": ["a"]}, "discrete: expected an int, got str"),
        ({"discrete": [1.5]}, "discrete: expected an int, got float"),
        ({"discrete": 3}, "discrete: expected a sequence of attributes' numbers, got int"),
        ({"discrete": "1"}, "discrete: expected a sequence of attributes' numbers, got str"),
        ({"folds": 1}, "folds: expected an int in"),
        ({"s": 0}, "s: expected a number above 0"),
        ({"learning_rate": np.nan}, "learning_rate: expected a number of at least 0"),
        ({"batch_size": 0}, "batch_size: expected an int in"),
        ({"patience": -1}, "patience: expected"),
        ({"ema": 2.0}, "ema: expected"),
        ({"temperature": 0}, "temperature: expected"),
        ({"temperature": 101}, r"temperature: expected a number in \(0, 100\]"),
        ({"dropout": 1.0}, "dropout: expected"),
        ({"hidden": 0}, "hidden: expected an int in"),
        ({"epochs": 0}, "epochs: expected an int in"),
        ({"loss": "l1"}, "loss: expected 'mimic', 'cross_entropy', 'distillation'"),
        ({"copies": -1}, "copies: expected an int in"),
        ({"floor": 0.0}, "floor: expected a number above 0"),
        ({"p": 2.0}, "p: expected a probability in"),
        ({"validation_fraction": 1.0}, r"validation_fraction: expected a number in \[0, 1\)"),
        ({"standardise": "none"}, "standardise: expected 'each', 'all'"),
    ],
)
def test_wrong_parameters_are_refused_before_a_teacher_is_fitted(change, message):
    class Never(LogisticRegression):
        def fit(self, X, y, sample_weight=None):
            raise AssertionError

    with pytest.raises((TypeError, ValueError), match=f"^{message}"):
        MimicClassifier(Never(), **QUICK | change).fit(IRIS, KIND)


def test_one_row_is_too_few():
    with pytest.raises(ValueError, match=r"1 sample.* while a minimum of 2 is required"):
        MimicRegressor().fit(np.ones((1, 3)), np.ones(1))


def test_names_for_other_columns_are_left_out():
    x = np.ones((2, 3))
    assert with_names(np.array(["a", "b"]), x) is x
