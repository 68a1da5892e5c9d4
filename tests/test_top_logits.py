"""Transfer sets that keep a row's largest logits: what comes back for all the others, and what is said where that is much."""

import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slope_teacher import rows

from pymimic import AdamW, ManifestError, Student, Trainer, TransferSet, from_callable
from pymimic.data import largest
from pymimic.data.storage import Storage

D, C, K = 5, 12, 4
ALL = np.arange(25)
SLOPE = np.random.default_rng(3).standard_normal((D, C)).astype(np.float32)


def says(x):
    return 4 * (x[:, :, None] * SLOPE).sum(axis=1)


TEACHER = from_callable(says, "wide slope")


def create(folder, x, **more):
    return TransferSet.create(folder, TEACHER, x, rows_per_shard=10, progress=False, top_logits=K, **more)


def softmax(logits):
    y = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return y / y.sum(axis=1, keepdims=True)


def test_the_largest_come_back_as_they_are_and_with_the_teachers_probabilities(tmp_path):
    x = rows(25)
    made, want = create(tmp_path, x), says(x)
    x_back, logits, weights = made.batch(ALL)
    assert (made.outputs, logits.shape, logits.dtype, weights) == (C, (25, C), np.float32, None)
    assert np.array_equal(x_back, x)
    order = np.argsort(want, axis=1)
    top, others = order[:, -K:], order[:, :-K]
    assert np.array_equal(np.take_along_axis(logits, top, 1), np.take_along_axis(want, top, 1))
    assert np.ptp(np.take_along_axis(logits, others, 1), axis=1).max() == 0
    before, after = softmax(want), softmax(logits)
    assert np.allclose(np.take_along_axis(after, top, 1), np.take_along_axis(before, top, 1), rtol=2e-6)
    assert np.allclose(np.take_along_axis(after, others, 1).sum(axis=1), np.take_along_axis(before, others, 1).sum(axis=1), rtol=1e-5)


@given(st.integers(2, 40), st.data())
def test_any_logits_any_number_of_them(outputs, data):
    top = data.draw(st.integers(1, outputs - 1))
    scale, offset = data.draw(st.sampled_from([0, 1e-30, 1, 50, 1e37])), data.draw(st.sampled_from([0, -1e4, 1e30]))
    logits = np.random.default_rng(data.draw(st.integers(0, 99))).standard_normal((7, outputs)) * scale + offset
    logits = np.repeat(logits.astype(np.float32), 2, axis=0)
    storage = Storage.of("float32", "float32", (0, 1), top)
    packed = storage.pack("logits", logits, 0)
    back = storage.unpack("logits", packed, outputs)
    assert back.dtype == np.float32
    assert np.isfinite(back).all()
    assert packed["classes"].shape == (14, top)
    kept = np.zeros(logits.shape, bool)
    np.put_along_axis(kept, packed["classes"].astype(int), True, axis=1)
    assert (kept.sum(axis=1) == top).all()
    assert np.array_equal(back[kept], logits[kept])
    assert (np.where(kept, logits, np.inf).min(axis=1) >= np.where(kept, -np.inf, logits).max(axis=1)).all()
    grain = 2**-22 * np.abs(logits).max()  # of a logit as float32
    assert np.abs(np.log(softmax(back)[kept] + 1e-300) - np.log(softmax(logits)[kept] + 1e-300)).max() <= 4 * grain + 1e-5


def test_records_take_the_bytes_that_the_classes_need(tmp_path):
    x = rows(25)
    create(tmp_path, x, logits_dtype="float16")
    (stored,) = {np.load(path).dtype for path in tmp_path.glob("logits-*.npy")}
    assert stored == [("values", "<f2", (K + 1,)), ("classes", "u1", (K,))]
    for outputs, dtype in ((2, "u1"), (256, "u1"), (257, "<u2"), (1 << 16, "<u2"), ((1 << 16) + 1, "<u4")):
        assert Storage(top=1).dtype("logits", outputs)["classes"].base == dtype
    assert json.loads((tmp_path / "manifest.json").read_text())["storage"]["top"] == K


def test_float16_rounds_what_is_kept(tmp_path):
    x = rows(25)
    exact, rounded = create(tmp_path / "a", x).batch(ALL)[1], create(tmp_path / "b", x, logits_dtype="float16").batch(ALL)[1]
    assert np.array_equal(rounded, exact.astype(np.float16).astype(np.float32))
    with pytest.raises(ValueError, match=r"logits: expected values that float16 holds, of at most 65504, got .* in row 7"):
        create(tmp_path / "c", np.where(np.arange(25)[:, None] == 7, 1e6 * x, x).astype(np.float32), logits_dtype="float16")
    assert not list((tmp_path / "c").iterdir())


def test_moments_standardised_sets_and_pickles_are_those_of_dense_rows(tmp_path):
    made = create(tmp_path, rows(25), standardise=True)
    logits = made.batch(ALL)[1]
    view, mean, scale = TransferSet.open(tmp_path).standardised()
    assert np.allclose(mean, logits.mean(axis=0, dtype=np.float64), rtol=1e-6)
    assert np.allclose(scale, logits.std(axis=0, dtype=np.float64), rtol=1e-6)
    assert np.allclose(view.batch(ALL)[1] * scale + mean, logits, atol=1e-5)
    assert np.array_equal(pickle.loads(pickle.dumps(made)).batch(ALL[::-1])[1], logits[::-1])


def test_labelling_goes_on_and_other_numbers_are_refused(tmp_path):
    x = rows(25)
    whole, stopped = create(tmp_path / "whole", x), tmp_path / "stopped"

    def stopping():
        yield x[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(stopped, stopping())
    with pytest.raises(ManifestError, match=r"^storage.top: expected 4, as .*manifest.json says, got 5$"):
        TransferSet.create(stopped, TEACHER, x, rows_per_shard=10, top_logits=5)
    with pytest.raises(ManifestError, match=r"^storage.*: expected .*, as .*manifest.json says, got None$"):
        TransferSet.create(stopped, TEACHER, x, rows_per_shard=10)
    other = from_callable(lambda x: np.roll(says(x), 1, axis=1), "wide slope")
    with pytest.raises(ManifestError, match=r"^teacher: expected the logits in .*logits-00000.npy again"):
        TransferSet.create(stopped, other, x, rows_per_shard=10, top_logits=K)
    assert np.array_equal(create(stopped, x).batch(ALL)[1], whole.batch(ALL)[1])


def test_near_ties_that_another_machine_rounds_otherwise_are_the_same_teachers(tmp_path):
    def tied(sign):
        def logits(x):
            y = np.tile(np.linspace(-10, 10, C, dtype=np.float32), (len(x), 1))
            y[:, -K - 1 : -K + 1] = 3 + sign * np.array([1e-6, -1e-6])
            return y

        return from_callable(logits, "tied")

    for sign in (1, -1):
        assert len(TransferSet.create(tmp_path, tied(sign), rows(25), rows_per_shard=10, top_logits=K, progress=False)) == 25


@pytest.mark.parametrize(
    ("top", "error", "message"),
    [
        (0, ValueError, r"top_logits: expected an int in \[1, "),
        (2.0, TypeError, "top_logits: expected an int, got float"),
        (True, TypeError, "top_logits: expected an int, got bool"),
        (C, ValueError, "top_logits: expected fewer than the teacher's 12 logits, got 12"),
    ],
)
def test_numbers_that_are_none_are_refused(tmp_path, top, error, message):
    with pytest.raises(error, match=message):
        TransferSet.create(tmp_path, TEACHER, rows(25), top_logits=top)
    assert not list(tmp_path.iterdir())


def test_a_class_beyond_the_outputs_is_refused(tmp_path):
    create(tmp_path, rows(25))
    path = tmp_path / "logits-00001.npy"
    stored = np.load(path)
    stored["classes"][3, 0] = C
    np.save(path, stored)
    with pytest.raises(ManifestError, match=r"logits-00001.npy: expected sha256"):
        TransferSet.open(tmp_path)
    with pytest.raises(ManifestError, match=r"logits: expected classes below 12 in the set's files, got 12: a file is damaged"):
        TransferSet.open(tmp_path, verify=False).batch([13])


@pytest.mark.parametrize("storage", [{"top": C}, {"top": -1}, {"top": "4"}, {"top": 4.5}, {"top": 3}, {"top": 4, "compress": 6}])
def test_a_manifest_of_another_number_is_refused(tmp_path, storage):
    create(tmp_path, rows(25))
    path = tmp_path / "manifest.json"
    manifest = json.loads(path.read_text())
    path.write_text(json.dumps(manifest | {"storage": manifest["storage"] | storage}))
    with pytest.raises(ManifestError, match=r"manifest.json: expected a transfer set's|logits-00000.npy: expected .*'values'"):
        TransferSet.open(tmp_path)


# What is said


def test_much_probability_that_is_left_out_is_pointed_out_once(tmp_path):
    flat = from_callable(lambda x: says(x) / 40, "flat")
    with pytest.warns(UserWarning, match=r"^logits: expected top_logits to hold most of .*, got 58% in the other 8.*keep more") as caught:
        TransferSet.create(tmp_path, flat, rows(600), rows_per_shard=100, top_logits=K, progress=False)
    assert [warning.filename for warning in caught] == [__file__]


def test_what_is_left_out_is_no_loss_of_float16(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        create(tmp_path / "a", rows(600), logits_dtype="float16")
    far = from_callable(lambda x: says(x) + 4e4, "far")
    with pytest.warns(UserWarning, match=r'^logits: expected values that float16 can tell apart.*logits_dtype="float32"$'):
        TransferSet.create(tmp_path / "b", far, rows(600), top_logits=K, logits_dtype="float16", progress=False)


def test_a_student_learns_a_teachers_probabilities_from_the_largest_logits(tmp_path):
    x = rows(600)
    made = TransferSet.create(tmp_path, TEACHER, x, top_logits=K, progress=False)
    student = Student(D, 128, C)
    Trainer(student, AdamW(1e-2), epochs=60, batch_size=50, loss="distillation").fit(made)
    agreement = (student.predict(x).argmax(axis=1) == says(x).argmax(axis=1)).mean()
    assert agreement > 0.95
    assert np.abs(softmax(student.predict(x)) - softmax(says(x))).mean() < 0.01


@pytest.mark.parametrize("scale", [1.0, 400.0])
def test_the_share_of_the_others_is_their_probability(scale):
    """Also of logits whose exponentials no float holds."""
    logits = (np.random.default_rng(0).standard_normal((50, 7)) * scale).astype(np.float32)
    classes = largest.largest(logits, 3)
    p = np.exp(logits - logits.max(axis=1, keepdims=True, initial=-np.inf).astype(np.float64))
    p /= p.sum(axis=1, keepdims=True)
    np.put_along_axis(p, classes, 0, axis=1)
    assert largest.share_of_others(largest.reduced(logits, classes), 4) == pytest.approx(p.sum(axis=1).mean(), rel=1e-5)


def test_no_rows_are_no_rows():
    values, classes = np.zeros((0, 4), np.float32), np.zeros((0, 3), np.int64)
    assert largest.dense(values, classes, 7).shape == (0, 7)
