"""Transfer sets in memory and on disk: what is read is what the teacher said, and what is no number is refused."""

import tracemalloc

import numpy as np
import pytest
from slope_teacher import TEACHER, C, D, contents, rows, says

import pymimic
from pymimic.data.cases import LabelledSet
from pymimic.data.teacher import from_callable
from pymimic.data.transfer import TransferSet
from pymimic.nets.student import Student
from pymimic.optimizer import AdamW
from pymimic.training.trainer import Trainer

# Reading


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("where", ["memory", "one shard", "shards"])
def test_a_batch_is_the_rows_asked_for_in_that_order(tmp_path, where, weighted):
    x = rows(101)
    weights = np.random.default_rng(1).random(101, np.float32) if weighted else None
    if where == "memory":
        ts = TransferSet(x, says(x), weights)
    else:
        ts = TransferSet.create(tmp_path, TEACHER, x, weights, rows_per_shard=200 if where == "one shard" else 10)
    assert (len(ts), ts.inputs, ts.outputs) == (101, D, C)
    for indices in ([5], [100, 0, 57, 57, 3], np.random.default_rng(2).permutation(101), np.arange(101), []):
        chosen = np.asarray(indices, np.int64)
        got = ts.batch(indices)
        assert [part.dtype for part in got if part is not None] == [np.float32] * (2 + weighted)
        assert np.array_equal(got[0], x[chosen])
        assert np.array_equal(got[1], says(x)[chosen])
        assert (got[2] is None) if weights is None else np.array_equal(got[2], weights[chosen])
    got[0][:] = 7  # copies
    assert np.array_equal(ts.batch([0])[0], x[:1])


def test_float64_is_rounded_and_memory_maps_are_not_copied(tmp_path):
    x = rows(20).astype(np.float64) / 3
    ts = TransferSet(x, says(x.astype(np.float32)).astype(np.float64))
    assert np.array_equal(ts.batch(np.arange(20))[0], x.astype(np.float32))
    np.save(tmp_path / "x.npy", np.zeros((200_000, D), np.float32))
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    TransferSet(mapped, mapped)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 << 20 < 2 * mapped.nbytes


def test_a_set_on_disk_is_made_and_read_a_shard_at_a_time(tmp_path):
    """16 MB of rows pass through; no more than a few shards are ever in memory."""

    def inputs():
        for seed in range(40):
            yield rows(1000, seed, 100)

    tracemalloc.start()
    ts = TransferSet.create(tmp_path, from_callable(lambda x: x[:, :2]), inputs(), rows_per_shard=1000)
    got = ts.batch(np.random.default_rng(0).integers(0, 40_000, 1000))
    mean = ts.standardised().mean
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(ts) == 40_000
    assert got[0].shape == (1000, 100)
    assert abs(mean).max() < 0.03
    assert peak < 4 << 20


@pytest.mark.parametrize(
    ("indices", "error", "message"),
    [
        ([25], ValueError, r"indices: expected values in \[0, 25\), got \[25, 25\]"),
        ([-1, 3], ValueError, r"indices: expected values in \[0, 25\), got \[-1, 3\]"),
        ([0.5], TypeError, "indices: expected an integer dtype, got float64"),
        ([[1]], ValueError, "indices: expected shape"),
    ],
)
def test_a_batch_of_rows_that_are_not_there_is_refused(indices, error, message):
    with pytest.raises(error, match=message):
        TransferSet(rows(25), rows(25, width=C)).batch(indices)


# Bad values


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["x", "logits", "weights"])
def test_nan_and_infinity_in_memory_are_named_with_their_row(name, value):
    arrays = {"x": rows(40), "logits": rows(40), "weights": np.ones(40, np.float32)}
    arrays[name][17:19] = value
    with pytest.raises(ValueError, match=f"^{name}: expected finite values, got {value} in row 17$"):
        TransferSet(**arrays)


@pytest.mark.parametrize("name", ["inputs", "logits", "weights"])
def test_nan_on_the_way_to_disk_is_named_with_its_row_and_whole_shards_stay(tmp_path, name):
    x, weights = rows(40), np.ones(40, np.float32)
    logits = says(x)
    {"inputs": x, "logits": logits, "weights": weights}[name][23:] = np.nan
    given = iter(np.split(logits, [10, 20, 30]))
    teacher = from_callable(lambda x: next(given))
    with pytest.raises(ValueError, match=f"^{name}: expected finite values, got nan in row 23$"):
        TransferSet.create(tmp_path, teacher, [x], [weights], rows_per_shard=10)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["manifest.json", *(f"{kind}-0000{i}.npy" for kind in ("inputs", "logits", "weights") for i in range(2))]
    )


@pytest.mark.parametrize(
    ("arrays", "error", "message"),
    [
        ({"x": ((1.0,),)}, TypeError, "x: expected a NumPy array"),
        ({"x": np.zeros((4, D), np.uint8)}, TypeError, "x: expected dtype float32 or float64, got uint8"),
        ({"x": np.zeros(4, np.float32)}, ValueError, "x: expected shape"),
        ({"logits": np.zeros((3, C))}, ValueError, r"logits: expected shape \(N, C\) = \(4, any\), got \(3, 3\)"),
        ({"weights": np.zeros((4, 1))}, ValueError, r"weights: expected shape \(N,\) = \(4,\), got \(4, 1\)"),
        ({"weights": np.array([1.0, 0, -1, 1])}, ValueError, "weights: expected values of at least 0, got -1.0 in row 2"),
        ({"x": np.full((4, D), 1e39)}, ValueError, "x: expected finite values, got inf in row 0"),
    ],
)
def test_wrong_arrays_are_refused(arrays, error, message):
    with pytest.raises(error, match=message):
        TransferSet(**{"x": np.zeros((4, D), np.float32), "logits": np.zeros((4, C), np.float32), **arrays})


@pytest.mark.parametrize(
    ("teacher", "inputs", "weights", "error", "message"),
    [
        (TEACHER, [], None, ValueError, "inputs: expected at least one row, got none"),
        (TEACHER, [rows(3), rows(3, width=4)], None, ValueError, r"inputs: expected shape \(n, D\) = \(any, 5\), got \(3, 4\)"),
        (TEACHER, rows(3), np.ones(2, np.float32), ValueError, "weights: expected one for each row of inputs, got 2 for 3"),
        (TEACHER, [rows(3)], np.ones(4, np.float32), ValueError, "weights: expected one for each row of inputs, got 4 for 3 from row 0"),
        (TEACHER, [tuple(rows(3))], None, TypeError, "inputs: expected a NumPy array"),
        (from_callable(lambda x: x[:, 0]), rows(3), None, ValueError, r"logits: expected shape \(3, C\) from the teacher, got \(3,\)"),
    ],
)
def test_what_cannot_be_labelled_is_refused_and_leaves_nothing(tmp_path, teacher, inputs, weights, error, message):
    with pytest.raises(error, match=message):
        TransferSet.create(tmp_path / "set", teacher, inputs, weights)
    assert not (tmp_path / "set").exists() or contents(tmp_path / "set") == {}


# Training


def test_a_student_learns_the_same_bits_from_memory_and_from_disk(tmp_path):
    x = rows(300)
    weights = np.random.default_rng(1).random(300, np.float32)
    on_disk = TransferSet.create(tmp_path, TEACHER, x, weights, rows_per_shard=64)
    arrays = []
    for ts in (TransferSet(x, says(x), weights), on_disk):
        student = Student(D, 32, C)
        history = Trainer(student, AdamW(1e-2), epochs=5, batch_size=50, standardise_targets=True).fit(ts, validation=ts)
        arrays.append(student.arrays())
    assert history[-1].validation_loss < history[0].validation_loss / 2
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])


def test_folding_mean_and_scale_into_a_student_undoes_the_standardisation():
    x = rows(400)
    logits = 100 * says(x) + 50
    standard, mean, scale = TransferSet(x, logits).standardised()
    student = Student(D, 64, C)
    Trainer(student, AdamW(1e-2), epochs=40, batch_size=50).fit(standard)
    student.fold(mean, scale)
    assert np.square((student.predict(x) - logits) / scale).mean() < 0.02


# Standardisation


@pytest.mark.parametrize("where", ["memory", "shards", "manifest"])
def test_standardised_targets_have_mean_0_and_deviation_1_and_are_undone_by_mean_and_scale(tmp_path, where):
    x = rows(1000)
    logits = says(x) * np.array([1e-3, 5, 1], np.float32) + np.array([0, 1e4, -3], np.float32)
    logits[:, 2] = 0.1  # never varies
    given = iter(np.array_split(logits, np.arange(64, 1000, 64)))
    if where == "memory":
        ts = TransferSet(x, logits)
    else:
        teacher = from_callable(lambda x: next(given))
        ts = TransferSet.create(tmp_path, teacher, x, rows_per_shard=64, standardise=where == "manifest")
    standard, mean, scale = ts.standardised()
    wide = logits.astype(np.float64)
    assert np.allclose(mean, wide.mean(0), rtol=1e-6)
    assert np.allclose(scale, [*wide.std(0)[:2], 1], rtol=1e-6)
    t = standard.batch(np.arange(1000))[1]
    assert t.dtype == mean.dtype == scale.dtype == np.float32
    assert np.allclose(t.mean(0, np.float64), 0, atol=1e-3)  # half a unit in the last place of 1e4 is 5e-4
    assert np.allclose(t.std(0, dtype=np.float64)[:2], 1, atol=1e-3)
    assert np.allclose(t * scale + mean, logits, rtol=1e-6)
    assert np.array_equal(ts.batch(np.arange(1000))[1], logits)  # the set itself is as it was
    rest = TransferSet(x[:7], logits[:7]).standardised(mean, scale).set
    assert np.array_equal(rest.batch(np.arange(7))[1], t[:7])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((np.zeros(C, np.float32),), "scale: expected both mean and scale"),
        ((np.zeros(C, np.float32), np.zeros(C, np.float32)), "scale: expected finite means and scales above 0"),
        ((np.zeros(2, np.float32), np.ones(C, np.float32)), "mean: expected shape"),
    ],
)
def test_bad_standardisations_are_refused(arguments, message):
    ts = TransferSet(rows(9), rows(9, width=C))
    with pytest.raises(ValueError, match=message):
        ts.standardised(*arguments)
    with pytest.raises(ValueError, match="standardised already"):
        ts.standardised().set.standardised()


def test_from_teacher_labels_an_array_or_parts_of_one_in_memory():
    x = np.random.default_rng(0).random((50, 4), np.float32)
    teacher = pymimic.from_callable(lambda rows: rows[:, :3] * 2, "twice")
    weights, labels = np.linspace(0, 1, 50), np.arange(50) % 3
    want = pymimic.TransferSet(x, x[:, :3] * 2, weights, labels).batch(np.arange(50))
    part = np.empty((10, 4), np.float32)

    def parts():  # that lie in the same memory
        for start in range(0, 50, 10):
            part[...] = x[start : start + 10]
            yield part

    for inputs in (x, x.astype(np.float64), list(np.split(x, [20])), parts()):
        made = pymimic.TransferSet.from_teacher(teacher, inputs, weights, labels, rows=16, workers=2)
        for a, b in zip((*made.batch(np.arange(50))[1], *made.batch(np.arange(50))[::2]), (*want[1], *want[::2])):
            assert np.array_equal(a, b)
    plain = pymimic.TransferSet.from_teacher(pymimic.centred(teacher), pymimic.munge(x, 3))
    assert len(plain) == 150
    assert np.abs(plain.batch(np.arange(150))[1].mean(axis=1)).max() < 1e-6


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.zeros((0, 4), np.float32), ValueError, "inputs: expected at least one row, got none"),
        (iter([]), ValueError, "inputs: expected at least one row, got none"),
        (np.zeros(4, np.float32), ValueError, "inputs: expected shape"),
        (np.zeros((4, 3), int), TypeError, "inputs: expected dtype float32 or float64, got int64"),
        ([np.zeros((4, 3)), np.zeros((4, 2))], ValueError, r"inputs: expected shape \(n, D\) = \(any, 3\), got \(4, 2\)"),
        (iter([(0.0, 1.0, 2.0)]), TypeError, "inputs: expected a NumPy array"),
        ([np.zeros((4, 3)), np.full((4, 3), np.nan)], ValueError, "inputs: expected finite values, got nan in row 4"),
    ],
)
def test_from_teacher_refuses(inputs, error, message):
    with pytest.raises(error, match=message):
        pymimic.TransferSet.from_teacher(pymimic.from_callable(lambda rows: rows), inputs)


def test_a_set_shows_its_size_and_where_it_is(tmp_path):
    x = np.ones((5, 4), np.float32)
    teacher = from_callable(lambda rows: rows[:, :3])
    assert repr(TransferSet.from_teacher(teacher, x)) == "<TransferSet: 5 rows, 4 inputs -> 3 outputs, in memory>"
    made = TransferSet.create(tmp_path / "s", teacher, x, progress=False)
    assert repr(made) == f"<TransferSet: 5 rows, 4 inputs -> 3 outputs, in {str(tmp_path / 's')!r}>"
    assert repr(LabelledSet(x, np.zeros(5, int), 2)) == "<LabelledSet: 5 rows, 4 inputs -> labels of 2 classes>"


def test_rows_without_columns_are_taken_at_once():
    empty = np.zeros((1 << 40, 0), np.float32)
    assert len(TransferSet(empty, empty)) == 1 << 40


def test_blocks_of_another_dtype_are_refused(tmp_path):
    with pytest.raises(TypeError, match=r"^inputs: expected dtype float32 or float64, got int64"):
        TransferSet.create(tmp_path, from_callable(lambda x: x, "same"), iter([np.ones((4, 3), np.int64)]), progress=False)
