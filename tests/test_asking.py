"""Asking teachers: what they are given, answers that lie in memory of theirs, logits wider than float32, and what is found out before."""

import warnings

import numpy as np
import pytest

import pymimic as pm

X = np.random.default_rng(0).standard_normal((64, 5)).astype(np.float32)
LOGITS = X[:, :3]


class Buffered:
    """Answers in the same memory each time, as serving runtimes do."""

    def __init__(self, dtype):
        self.memory = np.empty((len(X), 3), dtype)

    def logits(self, x):
        out = self.memory[: len(x)]
        out[:] = x[:, :3]
        return out

    def describe(self):
        return {}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_answers_are_copied_from_a_teachers_memory(dtype):
    teacher = Buffered(dtype)
    assert np.array_equal(pm.label(teacher, X, rows=16), LOGITS)
    first = pm.TransferSet.from_teacher(teacher, X)
    pm.TransferSet.from_teacher(teacher, 2 * X)
    assert np.array_equal(first.batch(np.arange(64))[1], LOGITS)
    other = Buffered(dtype)
    other.memory = teacher.memory
    assert np.allclose(pm.label(pm.Ensemble([teacher, other]), X), LOGITS)
    assert np.array_equal(pm.out_of_fold(lambda a, b: teacher, X, np.zeros(64, int), 3), LOGITS)


OFFSET = pm.from_callable(lambda x: 1e9 + x[:, :3].astype(np.float64), "offset")


def test_logits_are_centred_and_averaged_before_they_are_float32():
    centred = LOGITS - LOGITS.mean(axis=1, keepdims=True)
    opposite = pm.from_callable(lambda x: x[:, :3].astype(np.float64) - 1e9)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for teacher, want in (
            (pm.centred(OFFSET), centred),
            (pm.centred(pm.Ensemble([OFFSET, OFFSET])), centred),
            (pm.centred(pm.centred(OFFSET)), centred),
            (pm.Ensemble([OFFSET, opposite]), LOGITS),
        ):
            assert np.allclose(pm.label(teacher, X), want, atol=1e-6)
            assert teacher.logits(X).dtype == np.float32


def test_float64_logits_that_fall_together_are_pointed_out_once_where_the_library_was_called(tmp_path):
    wide = 1e9 + LOGITS.astype(np.float64)
    parts = [X[:32], X[32:]]
    for call in (
        lambda: pm.TransferSet(X, wide),
        lambda: pm.label(OFFSET, X, rows=8),
        lambda: pm.label(pm.Ensemble([OFFSET]), X),
        lambda: pm.TransferSet.from_teacher(OFFSET, X),
        lambda: pm.TransferSet.create(tmp_path / "set", OFFSET, iter(parts), rows_per_shard=16, progress=False),
        lambda: pm.out_of_fold(lambda a, b: OFFSET, X, np.zeros(64, int), 2),
    ):
        with pytest.warns(UserWarning, match=r"^logits: expected values that float32 can tell apart, got .* column 0, ") as caught:
            call()
        assert [warning.filename for warning in caught] == [__file__]


@pytest.mark.filterwarnings("error")
def test_small_differences_of_float64_logits_are_no_offset():
    few = np.random.default_rng(1).integers(0, 9, (64, 3)) + 1e-9 * LOGITS.astype(np.float64)  # 64 values, 9 as float32
    pm.TransferSet(X, few)
    pm.label(pm.from_callable(lambda x: few), X)
    pm.label(pm.from_callable(lambda x: 1e4 + x[:, :3].astype(np.float64)), X)
    pm.TransferSet(X, np.full((64, 3), 1 / 3) + 1e-16 * LOGITS.astype(np.float64))
    pm.TransferSet(X[:0], np.zeros((0, 3)))


def test_fresh_cases_point_such_logits_out_at_one_step_alone():
    fresh = pm.fresh_cases(pm.Noise(0.1), OFFSET)
    with pytest.warns(UserWarning, match="^logits: expected values that float32 can tell apart") as caught:
        _ = [fresh(X, LOGITS, np.random.default_rng(seed)) for seed in range(3)]
    assert len(caught) == 1


def test_logits_beyond_float32_are_refused_and_beyond_float64_too():
    for huge in (1e39, 1e308, np.nan):
        teacher = pm.from_callable(lambda x, huge=huge: np.full((len(x), 3), huge))
        for asked in (teacher, pm.Ensemble([teacher, teacher, teacher])):
            with pytest.raises(ValueError, match=r"^logits: expected finite values, got .* in row 0"):
                pm.label(asked, X)


WRONG = [
    (np.full((4, 5), 1e300), ValueError, "x: expected finite values, got inf in row 0"),
    (np.where(np.arange(20).reshape(4, 5) == 12, np.nan, X[:4]), ValueError, "x: expected finite values, got nan in row 2"),
    (X[:4].astype(int), TypeError, r"x: expected dtype float32 or float64, got int64: pass .astype\(np.float32\)"),
    (X[:4].astype(np.float16), TypeError, "x: expected dtype float32 or float64, got float16"),
    (X[:4].astype(">f4"), TypeError, "x: expected dtype float32 or float64, got >f4"),
    (X[0], ValueError, r"x: expected shape \(N, D\).*, got \(5,\)"),
    (5, TypeError, "x: expected a NumPy array, got builtins.int"),
    (iter([X]), TypeError, "x: expected a NumPy array, got builtins.list_iterator"),
    (tuple(X[:4]), TypeError, "x: expected a NumPy array, got builtins.tuple: pass numpy.asarray"),
    ([[1.0, 2.0], [3.0]], TypeError, "x: expected numbers in rows of one length, got a list of others"),
]


@pytest.mark.parametrize(("x", "error", "message"), WRONG)
def test_rows_that_are_none_are_refused_before_the_teacher_is_asked(x, error, message):
    asked = []
    teacher = pm.from_callable(lambda x: asked.append(x) or x[:, :3])
    for call in (lambda: pm.label(teacher, x), lambda: pm.out_of_fold(lambda a, b: asked.append(a) or teacher, x, np.zeros(4, int), 2)):
        with pytest.raises(error, match=f"^{message}"):
            call()
    assert asked == []


def test_numpys_small_integers_count_rows():
    x = np.zeros((600, 5), np.float32)
    assert pm.label(pm.from_callable(lambda x: x[:, :3]), x, rows=np.uint8(250), workers=np.int8(2)).shape == (600, 3)
    assert pm.out_of_fold(lambda a, b: pm.from_callable(lambda x: x[:, :3]), x, np.zeros(600, int), np.uint8(200)).shape == (600, 3)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"labels": np.zeros(64)}, TypeError, "labels: expected an integer dtype"),
        ({"labels": np.zeros(63, int)}, ValueError, r"labels: expected shape \(N,\) = \(64,\), got \(63,\)"),
        ({"labels": np.full(64, -1)}, ValueError, r"labels: expected values of at least 0, got \[-1, -1\]"),
        ({"labels": (0,) * 64}, TypeError, "labels: expected a NumPy array"),
        ({"weights": np.ones(63, np.float32)}, ValueError, r"weights: expected shape \(N,\) = \(64,\), got \(63,\)"),
        ({"weights": np.ones(64, int)}, TypeError, "weights: expected dtype float32 or float64"),
        ({"weights": -np.ones(64)}, ValueError, "weights: expected values of at least 0"),
        ({"weights": np.full(64, np.nan)}, ValueError, "weights: expected finite values"),
    ],
)
def test_wrong_labels_and_weights_are_found_before_the_teacher_is_asked(arguments, error, message):
    asked = []
    with pytest.raises(error, match=f"^{message}"):
        pm.TransferSet.from_teacher(pm.from_callable(lambda x: asked.append(x) or x[:, :3]), X, **arguments)
    assert asked == []


def test_labels_that_no_class_of_the_teacher_has_are_found_before_it_is_asked():
    asked = []
    teacher = pm.from_callable(lambda x: asked.append(x) or x[:, :3], classes="abc")
    with pytest.raises(ValueError, match=r"^labels: expected values in \[0, 3\), got \[0, 3\]"):
        pm.TransferSet.from_teacher(teacher, X, labels=np.arange(64) % 4)
    assert asked == []


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (3, "Known.classes: expected a sequence of labels, got int"),
        (np.eye(3), r"Known.classes: expected a label for each column, got an array of shape \(3,\)"),
        ([np.arange(2), 1, 2], r"Known.classes: expected a label for each column, got an array of shape \(2,\)"),
    ],
)
def test_classes_of_a_teacher_that_are_none_are_named(classes, message):
    class Known(Buffered):
        pass

    teacher = Known(np.float32)
    teacher.classes = classes
    for call in (
        lambda: pm.label(teacher, X),
        lambda: pm.Ensemble([teacher, teacher]),
        lambda: pm.centred(teacher),
        lambda: pm.out_of_fold(lambda a, b: teacher, X, np.zeros(64, int), 2),
    ):
        with pytest.raises(TypeError, match=f"^{message}"):
            call()
    with pytest.raises(TypeError, match=f"^{message.removeprefix('Known.')}"):
        pm.from_callable(len, classes=classes)


def test_labels_of_kinds_that_do_not_sort():
    labels = np.array([1, "a"], object)[np.arange(64) % 2]
    with pytest.raises(TypeError, match=r"^labels: expected values that sort"):
        pm.out_of_fold(lambda a, b: Buffered(np.float32), X, labels, 2)


ONES = np.ones(64, np.float32)
LAST = np.where(np.arange(64) == 63, 1.0, 0.0).astype(np.float32)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"weights": ONES[:63]}, ValueError, "weights: expected one for each row of inputs, got 63 for 64"),
        ({"weights": ONES.astype(int)}, TypeError, "weights: expected dtype float32 or float64, got int64"),
        ({"weights": np.where(LAST, np.float32(np.inf), ONES)}, ValueError, "weights: expected finite values, got inf in row 63"),
        ({"weights": ONES - 2 * LAST}, ValueError, "weights: expected values of at least 0, got -1.0 in row 63"),
        ({"weights": ONES - 2 * LAST, "inputs": iter([X])}, ValueError, "weights: expected values of at least 0, got -1.0 in row 63"),
        ({"inputs": np.where(LAST[:, None], np.float32(np.inf), X)}, ValueError, "inputs: expected finite values, got inf in row 63"),
        ({"inputs": np.where(LAST[:, None], 1e300, X.astype(np.float64))}, ValueError, "inputs: expected finite values, got inf in row 63"),
        ({"inputs": X + 1e5 * LAST[:, None], "inputs_dtype": "float16"}, ValueError, "inputs: expected values that float16 .* in row 63"),
        (
            {"inputs": LAST[:, None] + X * 0 + 0.5, "inputs_dtype": "uint8"},
            ValueError,
            "inputs: expected values in inputs_range, .* in row 63",
        ),
        ({"inputs": X[0]}, ValueError, r"inputs: expected shape \(n, D\)"),
    ],
)
@pytest.mark.parametrize("mapped", [False, True])
def test_wrong_arrays_are_found_before_the_teacher_labels_into_a_folder(tmp_path, arguments, error, message, mapped):
    asked = []
    for name, array in arguments.items() if mapped else ():
        if isinstance(array, np.ndarray):
            np.save(tmp_path / f"{name}.npy", array)
            arguments = arguments | {name: np.load(tmp_path / f"{name}.npy", mmap_mode="r")}
    teacher = pm.from_callable(lambda x: asked.append(x) or x[:, :3])
    given = {"directory": tmp_path / "set", "teacher": teacher, "inputs": X, "rows_per_shard": 8, "progress": False} | arguments
    with pytest.raises(error, match=f"^{message}"):
        pm.TransferSet.create(**given)
    assert asked == []
    assert not (tmp_path / "set").exists()
