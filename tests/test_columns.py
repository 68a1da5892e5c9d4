"""A DataFrame's columns are a teacher's own, in its order, or are refused at every face; those without names are taken by place."""

import pickle

import numpy as np
import pytest

pytest.importorskip("pandas")
pytest.importorskip("sklearn", minversion="1.6")
import pandas
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import pymimic as pm
from pymimic.data.names import names_of, with_names
from pymimic.sklearn import MimicClassifier

X = np.random.default_rng(0).standard_normal((60, 2), np.float32) * np.float32([1, 10])
FRAME = pandas.DataFrame(X, columns=["a", "b b"])
LABELS = (X[:, 0] > 0).astype(int)
CLASSIFIER = LogisticRegression().fit(FRAME, LABELS)
TEACHERS = {
    "classifier": pm.from_sklearn(CLASSIFIER),
    "regressor": pm.from_sklearn(LinearRegression().fit(FRAME, X @ [[1, 2], [3, 4]])),
    "pipeline": pm.from_sklearn(make_pipeline(StandardScaler(), LogisticRegression()).fit(FRAME, LABELS)),
    "boosted": pm.from_sklearn(HistGradientBoostingClassifier(max_iter=2).fit(FRAME, LABELS)),  # which takes NaN
    "centred": pm.centred(pm.from_sklearn(CLASSIFIER)),
    "ensemble": pm.Ensemble([pm.from_sklearn(CLASSIFIER), pm.from_callable(lambda x: np.asarray(x)[:, :2])]),
    "pickled": pickle.loads(pickle.dumps(pm.from_sklearn(CLASSIFIER))),
}
EVERY = np.arange(len(X))
FACES = {
    "label": lambda teacher, x, _: pm.label(teacher, x),
    "logits": lambda teacher, x, _: teacher.logits(x),
    "from_teacher": lambda teacher, x, _: pm.TransferSet.from_teacher(teacher, x).batch(EVERY)[1],
    "chunks": lambda teacher, x, _: pm.TransferSet.from_teacher(teacher, iter([x[:25], x[25:]])).batch(EVERY)[1],
    "create": lambda teacher, x, folder: pm.TransferSet.create(folder, teacher, x, progress=False).batch(EVERY)[1],
    "part": lambda teacher, x, folder: pm.TransferSet.create(folder, teacher, x, progress=False, part=(0, 1)).batch(EVERY)[1],
    "stream": lambda teacher, x, folder: pm.TransferSet.create(folder, teacher, iter([x[:25], x[25:]]), progress=False).batch(EVERY)[1],
    "out_of_fold": lambda teacher, x, _: pm.out_of_fold(lambda *_: teacher, x, LABELS, 2),
}
PARTS = {
    "chunks": lambda teacher, parts, _: pm.TransferSet.from_teacher(teacher, parts),
    "stream": lambda teacher, parts, folder: pm.TransferSet.create(folder, teacher, parts, progress=False),
}
OTHERS = {
    "order": FRAME[["b b", "a"]], "names": FRAME.set_axis(["a", "c"], axis="columns"), "some": FRAME.set_axis(["a", 1], axis="columns"),
}  # fmt: skip


@pytest.mark.parametrize("who", TEACHERS)
@pytest.mark.parametrize("face", FACES)
def test_columns_that_are_not_the_teachers_are_refused(face, who, tmp_path):
    teacher, ask = TEACHERS[who], FACES[face]
    wanted = pm.label(teacher, X)
    assert np.array_equal(ask(teacher, FRAME, tmp_path / "own"), wanted)
    assert np.array_equal(ask(teacher, pandas.DataFrame(X), tmp_path / "numbers"), wanted)
    for kind, frame in OTHERS.items():
        names = list(frame.columns)
        with pytest.raises(
            ValueError, match=r"^(x|inputs): expected the columns that the teacher was fitted on, \['a', 'b b'\], in "
        ) as error:
            ask(teacher, frame, tmp_path / kind)
        assert str(error.value).endswith(f"that order, got {names}")


@pytest.mark.parametrize("who", ["classifier", "centred", "ensemble"])
def test_the_faces_that_answer_otherwise(who):
    teacher, settings = TEACHERS[who], {"hidden": 4, "epochs": 1, "copies": 1}
    validation = pm.LabelledSet(X, LABELS, 2)
    assert pm.choose_munge(teacher, FRAME, validation, grid=[(0.2, 5.0)], progress=False, **settings).p == 0.2
    MimicClassifier(teacher, **settings).fit(FRAME, LABELS)
    with pytest.raises(
        ValueError, match=r"^x: expected the columns that the teacher was fitted on, \['a', 'b b'\], in that order, got \['b b'"
    ):
        pm.choose_munge(teacher, OTHERS["order"], validation, grid=[(0.2, 5.0)], progress=False, **settings)
    with pytest.raises(ValueError, match=r"^teacher: expected the feature names of X, \['b b', 'a'\], in that order, got \['a', 'b b'\]$"):
        MimicClassifier(teacher, **settings).fit(OTHERS["order"], LABELS)


def test_a_teacher_that_knows_no_names_takes_columns_by_place():
    teacher = pm.from_callable(lambda x: x + 1)
    for frame in (FRAME, *OTHERS.values()):
        assert np.array_equal(pm.label(teacher, frame), frame.to_numpy() + 1)


def test_members_of_other_columns_are_refused():
    other = pm.from_sklearn(LogisticRegression().fit(OTHERS["order"], LABELS))
    said = r"^members: expected teachers that were fitted on the same columns in the same order, got \['a', 'b b'\] and \['b b', 'a'\]$"
    with pytest.raises(ValueError, match=said):
        pm.Ensemble([TEACHERS["ensemble"], other])


def test_names_that_lightgbm_changes_or_makes_up():
    knows = type("Knows", (), {"feature_names_in_": np.array(["a", "b_b"])})()
    made_up = type("MadeUp", (), {"feature_names_in_": ["Column_0", "Column_1"]})()
    assert names_of(knows) == ["a", "b_b"]
    assert names_of(made_up) is None
    assert names_of(len) is None
    teacher = pm.from_callable(lambda x: x)
    teacher.feature_names_in_ = names_of(knows)
    assert np.array_equal(pm.label(teacher, FRAME), X)
    renamed = with_names(knows.feature_names_in_, FRAME)
    assert list(renamed.columns) == ["a", "b_b"]
    assert np.array_equal(renamed.to_numpy(), X)


@pytest.mark.parametrize("face", ["chunks", "stream"])
def test_parts_have_the_columns_of_the_first(face, tmp_path):
    teacher, wanted = (
        pm.from_callable(lambda x: np.asarray(x)[:, :1] * [1, 2]),
        r"the first part, \['a', 'b b'\], in that order, got \['b b', 'a'\]",
    )
    with pytest.raises(ValueError, match=rf"^inputs: expected the columns of {wanted}"):
        PARTS[face](teacher, iter([FRAME[:25], FRAME[["b b", "a"]][25:]]), tmp_path / "others")
    mixed = PARTS[face](teacher, iter([X[:25], FRAME[25:50], pandas.DataFrame(X[50:])]), tmp_path / "mixed")  # arrays have no names
    assert np.array_equal(mixed.batch(EVERY)[0], X)
