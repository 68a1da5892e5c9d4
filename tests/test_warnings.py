"""What a training run warns of, and what it leaves alone; and data that it refuses with the argument's name."""

import re
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from toy import NETS, C, D, H, Logits, trained

import pymimic as pm
from pymimic import AdamW, LabelledSet, Student, TransferSet
from pymimic.data.moments import standardisation

WORSE = r"(student|net): expected a loss below [\d.e+-]+, that of the same answer for every row, got [\d.e+-]+"


def warned(call):
    """The texts of the warnings."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    assert all(issubclass(warning.category, UserWarning) for warning in caught)
    return [str(warning.message) for warning in caught]


# A net that is worse than the same answer for every row


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_run_that_ends_worse_than_one_answer_says_so(net):
    with pytest.warns(UserWarning, match=WORSE) as caught:
        trained(Logits(), student=net(), optimizer=AdamW(1e2), epochs=1)
    assert caught[0].filename.endswith("toy.py")  # where fit was called
    assert warned(lambda: trained(Logits(), student=net(), optimizer=AdamW(1e-2), epochs=30)) == []


@pytest.mark.parametrize("settings", [{"standardise_targets": True}, {"loss": "distillation"}, {"patience": 1}, {"ema": 0.9}])
def test_it_says_so_with_other_losses_and_settings(settings):
    held_out = Logits(seed=1) if "patience" in settings else None
    bad = lambda: trained(Logits(), held_out, optimizer=AdamW(1e3), epochs=2, **settings)  # noqa: E731
    assert any(text.startswith("student: expected a loss below") for text in warned(bad))
    assert warned(lambda: trained(Logits(), held_out, optimizer=AdamW(1e-2), epochs=30, **settings | {"patience": None})) == []


def test_the_numbers_are_those_of_the_mean_and_of_the_net():
    data = Logits()
    text = warned(lambda: trained(data, optimizer=AdamW(1e3), epochs=1))[0]
    by_mean, by_net = (float(word.strip(",")) for word in text.split() if word[0].isdigit() and "." in word)
    assert by_mean == pytest.approx(np.square(data.t - data.t.mean(axis=0)).sum() / (2 * len(data)), rel=1e-3)
    assert by_net > by_mean


@given(st.lists(st.integers(0, 2), min_size=4, max_size=40), st.floats(0.5, 4))
def test_one_answer_is_the_best_one(labels, temperature):
    """For labels the logits of their frequencies, for logits the mean: any other answer for all rows has no lower loss."""
    from pymimic.training.losses import loss_function, one_answer

    rng = np.random.default_rng(len(labels))
    t = rng.standard_normal((len(labels), 3), np.float32)
    for loss, targets in (("mimic", t), ("distillation", t), ("cross_entropy", np.array(labels))):
        value = loss_function(loss, temperature, 1.0, None)
        answer = one_answer(loss, temperature, targets, None, 3)
        best = value(answer, targets, None)[0]
        for _ in range(5):
            other = answer + rng.standard_normal(3).astype(np.float32) * np.float32(0.3)
            assert value(other, targets, None)[0] >= best - 1e-5 * max(1, best)


def test_where_one_answer_is_right_nothing_is_said():
    x = np.random.default_rng(0).standard_normal((50, D), np.float32)
    assert warned(lambda: trained(TransferSet(x, np.ones((50, C), np.float32)), epochs=1)) == []
    assert warned(lambda: trained(Logits(), epochs=0)) == []


# Schedules


@pytest.mark.parametrize("steps", [6, 7, 100])
def test_a_warm_up_that_takes_the_whole_run(steps):
    data, optimizer = Logits(), AdamW(pm.warm_up(pm.constant(1e-2), steps))
    run_steps = 2 * -(-len(data) // 32)
    texts = warned(lambda: trained(data, optimizer=optimizer, epochs=2))
    said = any(text.startswith(f"optimizer: expected a warm-up shorter than the run, got {steps} steps of {run_steps}") for text in texts)
    assert said == (steps >= run_steps)


# Nets and losses


def test_a_bottleneck_wider_than_the_inputs():
    with pytest.warns(UserWarning, match=r"rank: expected at most 4 units, the inputs, got 5: .*leave it out"):
        student = Student(4, 8, 2, rank=5)
    assert warned(lambda: Student(4, 8, 2, rank=4)) == warned(lambda: Student(4, 8, 2)) == []
    assert student.predict(np.ones((2, 4), np.float32)).shape == (2, 2)


@pytest.mark.parametrize("loss", ["mimic", "cross_entropy", lambda y, t, w: (0.0, y)])
def test_a_temperature_that_nobody_reads(loss):
    with pytest.raises(ValueError, match=r"temperature: expected 1 with loss .*, as 'distillation' alone reads it, got 3.0"):
        pm.Trainer(Student(D, H, C), AdamW(), epochs=1, loss=loss, temperature=3.0)


# Data


@pytest.mark.parametrize("data", [([1.0], [2.0]), (np.ones((3, D)), np.ones((3, C))), None, 3, np.ones((3, D)), {"x": 1}, "x.npy"])
def test_what_is_no_set_of_cases(data):
    trainer = pm.Trainer(Student(D, H, C), AdamW(), epochs=1)
    hint = r"pass TransferSet\(x, logits\)" if isinstance(data, (tuple, dict)) else ""
    with pytest.raises(TypeError, match=rf"^data: expected a TransferSet, a LabelledSet, .*, got \w+\.\w+.*{hint}"):
        trainer.fit(data)
    if data is not None:
        with pytest.raises(TypeError, match=r"^validation: expected a TransferSet"):
            trainer.fit(Logits(), data)


@given(st.integers(0, 3), st.floats(0.4, 1), st.integers(1, 99))
def test_inputs_that_overflow_when_standardised_are_refused(column, size, few):
    """Their mean lies near one end of float32's range and some of them near the other."""
    x = np.random.default_rng(0).standard_normal((100, 4)).astype(np.float32)
    x[:, column] = np.where(np.arange(100) < few, 1, -1) * np.float32(3.4e38 * size)
    mean = np.float32(x[:, column].astype(np.float64).mean())
    with np.errstate(over="ignore"):
        overflows = not np.isfinite(x[:, column] - mean).all()
    trainer = pm.Trainer(Student(4, 8, 2), AdamW(), epochs=0, standardise_inputs=True)
    data = TransferSet(x, x[:, :2] * 0)
    if not overflows:
        trainer.fit(data)
        return
    with pytest.raises(ValueError, match=rf"data: expected inputs that float32 still holds .* in column {column}, of mean"):
        trainer.fit(data)
    with pytest.raises(ValueError, match="data: expected inputs"):
        pm.DeepNet([4, 2]).fit(x, np.zeros(100, int), epochs=1)


def test_common_standardisation_looks_at_every_column():
    x = np.array([[3e38, 3e38, 3e38, -3e38]], np.float32)
    with pytest.raises(ValueError, match="in column 3"):
        standardisation([x], 4, "all")


# Wrong kinds elsewhere


@pytest.mark.parametrize("student", ["s.safetensors", None, 3, pm.DeepNet([3, 2])])
def test_a_predictor_of_no_student(student):
    with pytest.raises(TypeError, match=r"student: expected a pymimic.Student, got") as caught:
        pm.Predictor(student)
    assert ("Student.load(path)" in str(caught.value)) == isinstance(student, str)


@pytest.mark.parametrize("dtype", [np.int64, np.uint8, np.float16, bool])
def test_a_wrong_dtype_comes_with_its_cure(dtype):
    x, good = np.ones((3, 4), dtype), np.ones((3, 4), np.float32)
    student, labels = Student(4, 8, 2), np.zeros(3, int)
    for name, call in (
        ("x", lambda: student.predict(x)), ("x", lambda: pm.Predictor(student).predict(x)), ("x", lambda: pm.DeepNet([4, 2]).logits(x)),
        ("x", lambda: TransferSet(x, good)), ("logits", lambda: TransferSet(good, x)), ("x", lambda: LabelledSet(x, labels, 2)),
        ("x", lambda: list(pm.munge(x, 1, 0.1, 1.0, 0))), ("z", lambda: pm.ops.shallow_forward(x, good, *[good[:, 0]] * 3)),
    ):  # fmt: skip
        with pytest.raises(TypeError, match=rf"^{name}: expected dtype float32 .*, got {np.dtype(dtype)}: pass \.astype\(np\.float32\)$"):
            call()
    with pytest.raises(TypeError, match=r"labels: expected an integer dtype, got float32: pass \.astype\(np\.int64\)"):
        LabelledSet(good, good[:, 0], 2)


@pytest.mark.parametrize("dtype", [object, "U3", np.complex64])
def test_what_is_no_number_has_none(dtype):
    with pytest.raises(TypeError, match=r"x: expected dtype float32 or float64, got [^:]*$"):
        Student(4, 8, 2).predict(np.ones((3, 4)).astype(dtype))


def test_an_estimator_that_is_not_fitted_is_said_to_be_so():
    ensemble = pytest.importorskip("sklearn.ensemble")
    from sklearn.linear_model import LogisticRegression, Ridge
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from sklearn.svm import LinearSVC

    for estimator in (ensemble.ExtraTreesClassifier(), LogisticRegression(), make_pipeline(StandardScaler(), LogisticRegression())):
        with pytest.raises(TypeError, match=r"estimator: expected a fitted classifier .*, got one that is not fitted: call \w+\.fit\("):
            pm.from_sklearn(estimator)
    with pytest.raises(TypeError, match="got the class ExtraTreesClassifier: make one and fit it"):
        pm.from_sklearn(ensemble.ExtraTreesClassifier)
    with pytest.raises(TypeError, match="got LinearSVC with decision_function alone"):
        pm.from_sklearn(LinearSVC())
    with pytest.raises(TypeError, match=r"expected a fitted regressor, got one that is not fitted: call Ridge\.fit\("):
        pm.from_sklearn(Ridge())
    with pytest.raises(TypeError, match=r"make_teacher: expected a function of \(x, labels\)"):
        pm.out_of_fold(ensemble.ExtraTreesClassifier(), np.ones((4, 2)), np.arange(4) % 2, folds=2)


@pytest.mark.parametrize(
    ("other", "says"),
    [
        ({"dropout": 0.25}, r"dropout = 0\.25, got 0\.5"), ({"seed": 4}, "seed = 4, got 3"), ({"offset": 2}, "offset = 2, got 0"),
        ({"origin": (16, 0)}, r"origin = \(16, 0\), got \(0, 0\)"), ({"activation": "tanh"}, "activation = tanh, got relu"),
    ],
)  # fmt: skip
def test_what_was_saved_by_another_call(other, says):
    rng = np.random.default_rng(0)
    z, U, b, W, c, dy = (rng.standard_normal(size, np.float32) for size in ((5, 3), (40, 3), (40,), (40, 2), (2,), (5, 2)))
    how = {"dropout": 0.5, "seed": 3}
    _, saved = pm.ops.shallow_forward(z, U, b, W, c, save=True, **how)
    with pytest.raises(ValueError, match=rf"^saved: expected what shallow_forward\(save=True\) returned for the same {says}$"):
        pm.ops.shallow_backward(dy, z, U, b, W, saved=saved, **how | other)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "predict",
    [
        lambda: Student(4, 8, 2, 2, seed=1).predict,
        lambda: pm.DeepNet([4, 8, 2], seed=1).logits,
        *(lambda dtype=dtype: pm.Predictor(Student(4, 8, 2, 2, seed=1), dtype).predict for dtype in ("float32", "bfloat16", "int8")),
        lambda: lambda x: pm.Predictor(Student(4, 8, 2, 2, seed=1)).predict(x.astype(np.float64)),
    ],
    ids=["student", "deep net", "float32", "bfloat16", "int8", "float64 rows"],
)
def test_rows_without_a_finite_answer_are_named(predict, value):
    predict = predict()
    x = np.ones((20, 4), np.float32)
    assert warned(lambda: predict(x)) == []
    x[[3, 7, 8]] = np.float32(value) * np.array([1, 1, -1, 1], np.float32)
    with np.errstate(all="ignore"), pytest.warns(UserWarning, match="x: expected finite values") as caught:
        y = predict(x)
    assert caught[0].filename == __file__
    first, others = re.search(r"in row (\d+) and (\d+) more rows", str(caught[0].message)).groups()
    bad = np.flatnonzero(~np.isfinite(y).all(axis=1))
    assert [int(first), int(others) + 1] == [bad[0], len(bad)]
    with np.errstate(all="ignore"):
        assert isinstance(getattr(predict, "__self__", None), pm.DeepNet) or warned(lambda: predict(x[:8])) == []  # few are not looked at


# What calls of calls warn of, and of what they complain


def large(rows=40):
    """Rows and labels; as float32 many values are one, and a net of weights of 1e30 overflows."""
    x = np.random.default_rng(0).standard_normal((rows, 4))
    return x, (x[:, 0] > 0).astype(int)


LAYERED = {"DeepNet": lambda: pm.DeepNet([4, 8, 2]), "ConvNet": lambda: pm.ConvNet((1, 4), [(8, 3)], 2)}


@pytest.mark.parametrize("net", LAYERED.values(), ids=LAYERED)
def test_warnings_of_fit_and_score_are_at_the_users_line_and_call_the_net_a_net(net):
    x, labels = large()
    calls = {
        r"net: expected a loss below": lambda: net().fit(x, labels, epochs=1, optimizer=AdamW(1e2)),
        r"optimizer: expected a learning rate .*: the net will not learn": lambda: net().fit(x, labels, epochs=1, optimizer=AdamW(0)),
        r"optimizer: expected a warm-up": lambda: net().fit(x, labels, epochs=1, optimizer=AdamW(pm.warm_up(pm.constant(1e-9), 9))),
        r"x: expected values that float32": lambda: net().fit(1.7e9 + x, labels, epochs=0),
        r"x: expected finite values, with finite logits": lambda: net().score(x * 1e38, labels),
    }  # fmt: skip
    for text, call in calls.items():
        with np.errstate(all="ignore"), pytest.warns(UserWarning, match=text) as caught:
            call()
        assert {warning.filename for warning in caught} == {__file__}, text


def test_warnings_of_choose_munge_are_at_the_users_line():
    x, labels = large()
    held_out = LabelledSet(x, labels, 2)
    teacher = pm.from_callable(lambda rows: rows[:, :2])
    with pytest.warns(UserWarning, match="student: expected a loss below") as caught:
        pm.choose_munge(teacher, x, held_out, grid=[(0.2, 5)], hidden=8, copies=1, epochs=1, learning_rate=1e3, progress=False)
    assert {warning.filename for warning in caught} == {__file__}


@pytest.mark.parametrize("net", LAYERED.values(), ids=LAYERED)
def test_errors_of_validation_rows_say_validation(net):
    x, labels = large()
    for validation, error, said in (
        ((x * np.nan, labels), ValueError, "x: expected finite values, got nan in row 0"),
        ((x, labels + 5), ValueError, r"labels: expected values in \[0, 2\), got \[5, 6\]"),
        ((x, labels[1:]), ValueError, r"labels: expected shape \(N,\) = \(40,\), got \(39,\)"),
        ((x.astype(int), labels), TypeError, "x: expected dtype float32 or float64"),
        ((x, labels * 1.0), TypeError, "labels: expected an integer dtype"),
        ((tuple(x), labels), TypeError, "x: expected a NumPy array"),
        ((x[:, 1:], labels), ValueError, "expected at least one row of 4 inputs"),
    ):
        with pytest.raises(error, match=f"^validation: {said}"):
            net().fit(x, labels, validation=validation, epochs=1)


@pytest.mark.parametrize("net", LAYERED.values(), ids=LAYERED)
def test_errors_of_weights_say_sample_weight(net):
    x, labels = large()
    for weights, error, said in (
        (-np.ones(40), ValueError, "expected values of at least 0, got -1.0 in row 0"),
        (np.ones(39), ValueError, r"expected shape \(N,\) = \(40,\), got \(39,\)"),
        (np.full(40, np.nan), ValueError, "expected finite values, got nan in row 0"),
        ((1.0,) * 40, TypeError, "expected a NumPy array"),
        (np.ma.masked_equal(np.ones(40), 1), TypeError, "expected a NumPy array, .* masked values"),
    ):
        with pytest.raises(error, match=f"^sample_weight: {said}"):
            net().fit(x, labels, sample_weight=weights, epochs=1)
