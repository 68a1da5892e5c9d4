"""Descriptions tell fits apart, and are the same in every process."""

import json
import os
import subprocess
import sys
import threading

import numpy as np
import pytest

from pymimic.data.classifier import from_sklearn
from pymimic.data.fingerprint import digest
from pymimic.data.teacher import from_callable

FITS = """
import json
import numpy as np
from sklearn.ensemble import ExtraTreesClassifier, HistGradientBoostingClassifier
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, StandardScaler
from sklearn.tree import DecisionTreeClassifier
from pymimic.data.classifier import from_sklearn
from pymimic.data.teacher import Ensemble

x = np.random.default_rng(0).standard_normal((60, 4))
y = (x[:, 0] > 0).astype(int)
words = np.array(["one two", "two three four"] * 30)
MAKERS = [
    lambda: ExtraTreesClassifier(3, random_state=0),
    lambda: HistGradientBoostingClassifier(max_iter=2, random_state=0),
    lambda: KNeighborsClassifier(3, algorithm="kd_tree"),
    lambda: MLPClassifier((3,), max_iter=2, random_state=np.random.RandomState(0)),
    lambda: GridSearchCV(DecisionTreeClassifier(random_state=0), {"max_depth": [1, 2]}, cv=2),
    lambda: make_pipeline(FunctionTransformer(lambda a: 2 * a), StandardScaler(), LogisticRegression()),
    lambda: make_pipeline(CountVectorizer(vocabulary={"one", "two", "three", "four", "zoo"}), LogisticRegression()),
]

def teacher(make, rows=60):
    estimator = make()
    data = words if "CountVectorizer" in repr(estimator) else x
    estimator.fit(data[:rows], y[:rows])
    estimator.predict_proba(data[:3])
    return from_sklearn(estimator)

def descriptions(rows=60):
    return [teacher(make, rows).describe() for make in MAKERS]
"""


def test_fits_have_the_same_description_in_every_process_and_others_have_another():
    pytest.importorskip("sklearn")
    import warnings

    found = []
    code = f"import warnings\nwarnings.simplefilter('ignore')\n{FITS}\nprint(json.dumps(descriptions()))"
    for seed in ("1", "2"):
        done = subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout))
    here: dict = {"__name__": "__main__"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(FITS, here)
        found.append(here["descriptions"]())
        others = here["descriptions"](50)
    assert found[0] == found[1] == found[2]
    for one, other in zip(found[0], others):
        assert one["learned"] != other["learned"], one["class"]
        assert {**one, "learned": 0} == {**other, "learned": 0}


class Estimator:
    classes_ = np.arange(2)

    def __init__(self, **state):
        self.__dict__.update(state)

    def predict_proba(self, x):
        return np.full((len(x), 2), 0.5)

    __call__ = predict_proba

    def get_params(self):
        return {"function": lambda: 0, "object": object(), "set": {"a", "b", "c"}, "seed": np.int64(3), "n_jobs": 2, "type": int}


def test_a_description_has_no_addresses_and_leaves_out_how_it_is_run():
    parameters = from_sklearn(Estimator()).describe()["parameters"]
    assert " 0x" not in json.dumps(parameters)
    assert parameters["set"] == "{'a', 'b', 'c'}"
    assert parameters["seed"] == "3"
    assert parameters["type"] == "builtins.int"
    assert "n_jobs" not in parameters
    assert "0x" not in json.dumps(from_callable(Estimator()).describe()) + json.dumps(from_callable(lambda x: x).describe())


STRUCTURE = np.dtype([("a", "i1"), ("b", "f8")], align=True)  # with seven bytes between that hold anything


def structured(filler):
    array = np.full(3 * STRUCTURE.itemsize, filler, np.uint8).view(STRUCTURE)
    array["a"], array["b"] = 1, 2
    return array


CIRCLE = Estimator()
CIRCLE.itself = CIRCLE
SAME = [
    (Estimator(a=1, b=2), Estimator(b=2, a=1)),
    (structured(0), structured(255)),
    (Estimator(rng=np.random.default_rng(0)), Estimator(rng=np.random.default_rng(1))),
    (np.arange(6).reshape(2, 3), np.asfortranarray(np.arange(6).reshape(2, 3))),
    (Estimator(lock=threading.Lock()), Estimator(lock=threading.Lock())),
    ({"x", "y", "z"}, {"z", "y", "x"}),
    (CIRCLE, CIRCLE),
    ([np.array(["p", None, 3], object)], [np.array(["p", None, 3], object)]),
]
DIFFERENT = [
    (np.zeros(4), np.zeros((2, 2))), (np.zeros(2, "f4"), np.zeros(2, "i4")), ([1, 2], [2, 1]), ((1, (2,)), (1, 2)), (1, 1.0), ("1", 1),
    (Estimator(a=np.array([0.0, 1])), Estimator(a=np.array([0.0, 2]))), (Estimator(a=1), Estimator(b=1)), (len, max), (b"a", "a"),
    (np.array(["p", 3], object), np.array(["p", 4], object)), (structured(0), structured(0)[:2]),
]  # fmt: skip


@pytest.mark.parametrize(("a", "b"), SAME)
def test_what_holds_the_same_has_the_same_digest(a, b):
    assert digest(a) == digest(b) != digest(None)


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_what_holds_other_values_has_another_digest(a, b):
    assert digest(a) != digest(b)


def test_tensors_count_by_their_values(torch):
    one, same, other = (Estimator(net=torch.full((2,), value)) for value in (1.0, 1.0, 2.0))
    assert digest(one) == digest(same) != digest(other)


def test_what_is_nested_too_deep_has_no_digest():
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    assert digest(deep) is None
    assert from_sklearn(Estimator(deep=[])).describe()["learned"]
    for _ in range(100_000):  # a list of lists is freed by recursion, which Python limits
        (deep,) = deep
