"""`compress`: known answers where nothing is lost, the bounds of what is, odd nets, and errors."""

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from roundings import assert_within_roundings
from small_students import SIZES, inputs, of_sizes, rows_and_logits, same, trained

import pymimic
from pymimic import LabelledSet, Predictor, Student, TransferSet, compress
from pymimic.backends.interface import quantised
from pymimic.nets.fitted import rounded

QUIET = {"progress": False}


def error(student, other, seed=9):
    """The largest of a logit, over the largest logit."""
    x = student.mean + inputs(200, student.inputs, seed) / student.scale
    y = student.predict(x)
    return np.abs(other.predict(x) - y).max() / np.abs(y).max()


# Nothing is lost


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("fitted", [False, True])
def test_duplicates_are_pruned_for_nothing(rank, fitted):
    student = trained(hidden=20, rank=rank, activation="tanh")
    arrays, order = student.arrays(), np.random.default_rng(0).permutation(40)
    doubled = Student(11, 40, 7, rank, "tanh")
    wide = {name: np.concatenate([arrays[name]] * 2)[order] for name in "Ub"}
    W = inputs(20, 7, 3)
    doubled.set_arrays(**arrays | wide | {"W": np.concatenate([arrays["W"] - W, W])[order]})
    doubled.set_standardisation(student.mean, student.scale)
    small = compress(doubled, prune=0.5, transfer=rows_and_logits(student) if fitted else None, epochs=0, **QUIET)
    assert small.hidden == 20
    assert error(student, small) < 1e-5


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("kind", ["no weights out", "constant", "dead"])
def test_units_that_do_nothing_are_pruned_for_nothing(kind, fitted):
    student = trained(hidden=24)
    arrays = student.arrays()
    if kind == "no weights out":
        arrays["W"][::2] = 0
    else:
        arrays["U"][::2] = 0
        arrays["b"][::2] = 3 if kind == "constant" else -3
    student.set_arrays(**arrays)
    small = compress(student, prune=0.5, transfer=rows_and_logits(student) if fitted else None, epochs=0, **QUIET)
    assert np.array_equal(small.arrays()["U"], arrays["U"][1::2])
    assert error(student, small) < 1e-5


def test_units_that_no_row_wakes_are_pruned_for_nothing():
    student = trained(hidden=24)
    arrays = student.arrays()
    arrays["b"][::2] = -100
    student.set_arrays(**arrays)
    small = compress(student, prune=0.5, transfer=rows_and_logits(student), epochs=0, **QUIET)
    assert np.array_equal(small.arrays()["b"], arrays["b"][1::2])
    assert error(student, small) < 1e-5


@pytest.mark.parametrize("before", [None, 6])
@pytest.mark.parametrize("fitted", [False, True])
def test_a_net_of_true_rank_loses_nothing_at_that_rank(before, fitted):
    student, rng = trained(inputs_=9, hidden=50, rank=before), np.random.default_rng(1)
    columns = before or 9
    student.set_arrays(U=rng.standard_normal((50, 3)) @ rng.standard_normal((3, columns)))
    small = compress(student, rank=3, transfer=rows_and_logits(student) if fitted else None, epochs=0, **QUIET)
    assert (small.rank, small.parameter_count) == (3, 3 * (9 + 50) + 50 + 50 * 7 + 7)
    assert error(student, small) < 2e-5


# What is lost is the least


@given(sizes=SIZES, rank=st.integers(1, 5), fitted=st.booleans())
def test_no_product_of_that_rank_is_nearer(sizes, rank, fitted):
    """Eckart & Young: the squared error is the sum of the squared singular values that are left out."""
    student = of_sizes(**sizes | {"hidden": 40})
    most = student.rank or 40 * student.inputs // (40 + student.inputs)
    if rank > most:
        with pytest.raises(ValueError, match="rank: expected "):
            compress(student, rank=rank)
        return
    cases = rows_and_logits(student)
    before = student.arrays()
    small = compress(student, rank=rank, transfer=cases if fitted else None, epochs=0, **QUIET).arrays()
    whole = (before["U"] @ before["V"] if "V" in before else before["U"]).astype(np.float64)
    z = np.eye(student.inputs)
    if fitted:
        z = student.standardise(cases.batch(np.arange(len(cases)))[0]).astype(np.float64)
        z = (z - z.mean(axis=0)) / np.sqrt(len(z))
    lost = np.linalg.norm(z @ (whole - small["U"].astype(np.float64) @ small["V"]).T)
    values = np.linalg.svd(z @ whole.T, compute_uv=False)
    assert lost < 1.001 * np.linalg.norm(values[rank:]) + 1e-5 * values[0]  # a ridge of 1e-6, and float32


@given(sizes=SIZES, bits=st.sampled_from([8, 4]))
def test_rounding_is_to_the_nearest_step_of_each_row(sizes, bits):
    student = of_sizes(**sizes)
    small = compress(student, bits=bits)
    most = 127 if bits == 8 else 7
    for name in {"V", "U", "W"} & student.arrays().keys():
        old, new = student.arrays()[name], small.arrays()[name]
        step = np.abs(old).max(axis=1, keepdims=True) / most
        assert (np.abs(old - new) <= 0.500001 * step).all()
        np.testing.assert_allclose(new / step, np.rint(new / step), atol=1e-4)
    assert all(np.array_equal(student.arrays()[name], small.arrays()[name]) for name in "bc")


@pytest.mark.parametrize("rank", [None, 6])
def test_what_is_rounded_later_makes_good_for_what_was(rank):
    student = trained(hidden=300, rank=rank)
    cases = rows_and_logits(student, 2000)
    nearest, fed_back = compress(student, bits=4), compress(student, bits=4, transfer=cases, **QUIET)
    x, y, _ = rows_and_logits(student, 500, 7).batch(np.arange(500))  # rows that it has not seen
    losses = [np.square(small.predict(x) - y).mean() for small in (nearest, fed_back)]
    assert losses[1] < 0.5 * losses[0]


@pytest.mark.parametrize("rank", [None, 5])
def test_rounding_leaves_the_average_of_each_units_argument(rank):
    """Of inputs whose mean is far from 0, which b makes good for."""
    student, x = trained(rank=rank), inputs(400, 11) + 3
    before = student.weights()
    after, _ = rounded(before, "relu", 4, x, student.predict(x), progress=False)
    means = [(x.astype(np.float64) @ w["V"].T if rank else x).mean(axis=0) @ w["U"].T + w["b"] for w in (after, before)]
    assert not np.array_equal(after["U"], before["U"])
    assert_within_roundings(*means, 64)  # b's own, and those of sums of 11, 5 and 400


def test_training_wins_more_than_fitting():
    student = trained(hidden=120)
    cases, held_out = rows_and_logits(student, 3000), rows_and_logits(student, 500, 7)

    def loss(small):
        x, t, _ = held_out.batch(np.arange(500))
        return np.square(small.predict(x) - t).mean()

    how = {"prune": 0.5, "transfer": cases, "learning_rate": 3e-3, "batch_size": 64}
    losses = [loss(compress(student, **how, epochs=n, **QUIET)) for n in (0, 10)]
    assert loss(compress(student, prune=0.5)) > 2 * losses[0]
    assert losses[1] < 0.9 * losses[0]


def test_validation_chooses_the_epoch():
    student = trained(hidden=60)
    cases = rows_and_logits(student, 500)
    other = TransferSet(*(part[:50] for part in (cases.batch(np.arange(50))[0], 0 * cases.batch(np.arange(50))[1])))
    how = {"prune": 0.5, "transfer": cases, "epochs": 4, "learning_rate": 0.03, "batch_size": 32}
    last, best = compress(student, **how, **QUIET), compress(student, **how, validation=other, **QUIET)
    x, t, _ = other.batch(np.arange(50))
    assert np.square(best.predict(x) - t).sum() < np.square(last.predict(x) - t).sum()


# Odd nets and sets


@given(sizes=SIZES, prune=st.sampled_from([0.0, 0.3, 0.9]), bits=st.sampled_from([None, 8, 4]), fitted=st.booleans(), n=st.integers(1, 30))
def test_any_shape_gives_a_finite_net_of_the_size_that_was_asked_for(sizes, prune, bits, fitted, n):
    student = of_sizes(**sizes)
    before = pickle.dumps(student)
    kept = student.hidden - round(prune * student.hidden)
    if kept == 0 or (kept == student.hidden and bits is None):
        with pytest.raises(ValueError, match=r"prune: expected a share that leaves at least one|bits: expected 8 or 4, or"):
            compress(student, prune=prune, bits=bits)
        return
    cases = rows_and_logits(student, n) if fitted else None
    small = compress(student, prune=prune, bits=bits, transfer=cases, epochs=1, **QUIET)
    assert (small.hidden, small.bits) == (kept, bits)
    assert all(np.isfinite(array).all() for array in small.arrays().values())
    assert np.isfinite(small.predict(inputs(3, student.inputs))).all()
    assert pickle.dumps(student) == before
    assert same(small, compress(student, prune=prune, bits=bits, transfer=cases, epochs=1, **QUIET))


@pytest.mark.parametrize("fitted", [False, True])
@pytest.mark.parametrize("bits", [8, 4])
def test_weights_that_are_0_stay_0(bits, fitted):
    student = trained(hidden=9)
    student.set_arrays(**{name: np.zeros(array.shape, np.float32) for name, array in student.arrays().items() if name != "c"})
    small = compress(student, bits=bits, transfer=rows_and_logits(student) if fitted else None, **QUIET)
    assert same(small, student)
    assert np.array_equal(Predictor(small, "int8").predict(inputs(2, 11)), np.tile(student.arrays()["c"], (2, 1)))


def test_rows_of_labels_do_for_all_but_their_loss():
    student = trained(hidden=60)
    x, t, _ = rows_and_logits(student, 400).batch(np.arange(400))
    labels = LabelledSet(x, t.argmax(axis=1), 7)
    assert compress(student, bits=4, transfer=labels, **QUIET).score(x, labels.labels) > 0.9
    with pytest.raises(TypeError, match="transfer: expected a teacher's logits"):
        compress(student, prune=0.5, transfer=labels, **QUIET)
    assert compress(student, prune=0.2, transfer=labels, loss="cross_entropy", epochs=2, **QUIET).score(x, labels.labels) > 0.9


def test_a_folder_does_as_its_set_does(tmp_path):
    student = trained(hidden=40)
    cases = rows_and_logits(student)
    x = cases.batch(np.arange(len(cases)))[0]
    stored = TransferSet.create(tmp_path / "set", student, x, progress=False)
    made = [compress(student, prune=0.5, bits=4, transfer=t, epochs=1, **QUIET) for t in (stored, tmp_path / "set", str(tmp_path / "set"))]
    assert same(made[0], made[1])
    assert same(made[0], made[2])


def test_subnormal_rows_are_no_wrap_around():
    tiny = np.float32(2**-149)
    values, _ = quantised(np.array([[190 * tiny, -190 * tiny, tiny]]))
    assert values.tolist() == [[127, -127, 1]]


# Errors


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({}, "bits: expected 8 or 4, or a rank, or a share to prune that is one unit at least, got none of them"),
        ({"prune": 0.001}, "got none of them"),
        ({"bits": 6}, "bits: expected 8 or 4, or None for float32, got 6"),
        ({"bits": 16}, "bits: expected an int in "),
        ({"prune": 1.0}, r"prune: expected a number in \[0, 1\), got 1.0"),
        ({"prune": 0.999}, "prune: expected a share that leaves at least one of 203 hidden units, got 0.999"),
        ({"rank": 6}, "rank: expected a bottleneck of at most 5 units, as more make the net larger, got 6"),
        ({"rank": 0}, "rank: expected an int"),
        ({"bits": 8, "epochs": -1}, "epochs: expected"),
        ({"bits": 8, "temperature": 3.0}, "temperature: expected 1 with loss 'mimic'"),
        ({"bits": 8, "loss": "hinge"}, "loss: expected 'mimic'"),
        ({"bits": 8, "transfer": TransferSet(inputs(4, 10), inputs(4, 7))}, "transfer: expected 11 inputs, as the student has, got 10"),
        ({"bits": 8, "transfer": TransferSet(inputs(4, 11), inputs(4, 6))}, "transfer: expected 7 outputs, as the student has, got 6"),
        ({"bits": 8, "validation": TransferSet(inputs(4, 11), inputs(4, 7))}, "validation: expected a transfer set beside it"),
        ({"bits": 8, "transfer": TransferSet(inputs(4, 11) + np.float32(3e38), inputs(4, 7))}, "transfer: expected rows for which"),
    ],
)
def test_wrong_values_are_named(given, says):
    with pytest.raises(ValueError, match=says):
        compress(trained(), **given, **QUIET)


def test_weights_that_are_not_finite_are_refused():
    student = trained()
    student.set_arrays(b=np.full(203, np.nan))
    with pytest.raises(ValueError, match="student: b: expected finite values, got nan in row 0"):
        compress(student, bits=8)
    student = trained(hidden=1)
    student.set_arrays(U=np.full((1, 5), np.finfo(np.float32).max))
    with pytest.raises(ValueError, match="student: U, compressed: expected finite values, got inf in row 0"):
        compress(student, bits=8)


def test_wrong_kinds_are_named(tmp_path):
    with pytest.raises(TypeError, match=r"student: expected a pymimic.Student, got str"):
        compress("s.safetensors", bits=8)
    with pytest.raises(TypeError, match="transfer: expected a TransferSet"):
        compress(trained(), bits=8, transfer=(1, 2))
    with pytest.raises(FileNotFoundError, match="transfer: expected the folder of a transfer set, got no such folder"):
        compress(trained(), bits=8, transfer=tmp_path / "nope")


def test_it_is_a_public_name():
    assert pymimic.compress is compress
