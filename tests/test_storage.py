"""Transfer sets in fewer bytes: what comes back, what the teacher labels, and that folders with and without them go on and open."""

import json
import pickle
import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slope_teacher import TEACHER, C, D, contents, rows, says

from pymimic import ManifestError, TransferSet, from_callable
from pymimic.data.storage import Storage

ALL = np.arange(25)
RNG = np.random.default_rng(0)
SMALL = {"inputs_dtype": "uint8", "logits_dtype": "float16", "inputs_range": (-4, 4)}


def create(folder, x, **more):
    return TransferSet.create(folder, TEACHER, x, rows_per_shard=10, progress=False, **more)


@pytest.mark.parametrize(("dtype", "error"), [("float16", 2**-11 * 4), ("uint8", 4 / 255 + 1e-6)])
def test_inputs_come_back_rounded_and_the_teacher_labels_them_so(tmp_path, dtype, error):
    x = rows(25)
    made = create(tmp_path, x, inputs_dtype=dtype, inputs_range=(-4, 4))
    got, logits, _ = made.batch(ALL)
    assert got.dtype == logits.dtype == np.float32
    assert 0 < np.abs(got - x).max() <= error
    assert np.array_equal(logits, says(got))
    assert np.load(tmp_path / "inputs-00000.npy").dtype == dtype
    assert np.load(tmp_path / "logits-00000.npy").dtype == np.float32


def test_pixels_come_back_as_they_were(tmp_path):
    x = (np.arange(256, dtype=np.float32) / 255).reshape(-1, 4)
    made = TransferSet.create(tmp_path, from_callable(lambda x: x[:, :2]), x, inputs_dtype="uint8", progress=False)
    assert np.array_equal(made.batch(np.arange(64))[0], x)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_codes_are_the_nearest_and_stay_when_packed_again(low, width, seed):
    storage = Storage.of("uint8", "float32", (low, low + width))
    low, high = np.float32(storage.low), np.float32(storage.high)
    x = np.clip(low + np.random.default_rng(seed).random((20, 3), np.float32) * (high - low), low, high)
    codes = storage.pack("inputs", x, 0)
    back = storage.unpack("inputs", codes, 0)
    assert np.abs(back.astype(float) - x).max() <= (storage.high - storage.low) / 255 * 0.501 + 1e-6 * max(abs(low), abs(high))
    if width > 1e-2 * abs(low):
        assert np.array_equal(storage.pack("inputs", np.clip(back, low, high), 0), codes)


def test_logits_come_back_rounded_with_their_moments_and_standardised(tmp_path):
    x = rows(25)
    made = create(tmp_path, x, logits_dtype="float16", standardise=True)
    want = says(x).astype(np.float16).astype(np.float32)
    assert np.array_equal(made.batch(ALL)[1], want)
    view, mean, scale = made.standardised()
    assert np.allclose(mean, want.mean(axis=0), atol=1e-6)
    assert np.allclose(view.batch(ALL)[1], (want - mean) / scale, atol=1e-6)
    again = TransferSet.open(tmp_path).standardised()
    assert np.array_equal(again.set.batch(ALL)[1], view.batch(ALL)[1])
    assert np.array_equal(pickle.loads(pickle.dumps(view)).batch(ALL)[1], view.batch(ALL)[1])


def test_labelling_goes_on_in_the_same_bytes(tmp_path):
    x, weights = rows(25), np.linspace(0, 1, 25).astype(np.float32)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    create(whole, x, weights=weights, **SMALL)

    def stopping():
        yield x[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(stopped, stopping(), weights=weights, **SMALL)
    for other in ({}, {**SMALL, "inputs_range": (-5, 5)}, {**SMALL, "logits_dtype": "float32"}):
        with pytest.raises(ManifestError, match="storage"):
            create(stopped, x, weights=weights, **other)
    with pytest.raises(ManifestError, match=r"inputs: expected the rows in .*inputs-00000.npy"):
        create(stopped, rows(25, seed=1), weights=weights, **SMALL)
    made = create(stopped, x, weights=weights, **SMALL)
    assert contents(stopped) == contents(whole)
    assert np.array_equal(made.batch(ALL)[2], weights)
    assert len(create(stopped, x, weights=weights, **SMALL)) == 25


def test_large_logits_that_float16_rounds_are_the_same_teachers(tmp_path):
    far = from_callable(lambda x: says(x) + 5000, "far")
    with pytest.warns(UserWarning, match="logits: expected values that float16 can tell apart"):
        TransferSet.create(tmp_path, far, rows(25), logits_dtype="float16", progress=False)
    assert len(TransferSet.create(tmp_path, far, rows(25), logits_dtype="float16", progress=False)) == 25


def test_a_set_of_float32_has_the_manifest_that_it_always_had(tmp_path):
    create(tmp_path / "plain", rows(25))
    manifest = json.loads((tmp_path / "plain" / "manifest.json").read_text())
    assert "storage" not in manifest
    create(tmp_path / "small", rows(25), **SMALL)
    small = json.loads((tmp_path / "small" / "manifest.json").read_text())
    assert small.pop("storage") == {"inputs": "uint8", "logits": "float16", "low": -4, "high": 4}
    assert small.keys() == manifest.keys()


@pytest.mark.parametrize(
    "storage", [{"inputs": "int3"}, {"logits": "object"}, {"more": 1}, 3, {"inputs": "float16"}, {"inputs": ["uint8"]},
    *({"inputs": "uint8", "low": low, "high": high}
      for low, high in (("a", 1), (float("nan"), 1), (1, 0), (0, 0), (0, None), (0, 1e39), (0, 1e38))),
    ],
)  # fmt: skip
def test_a_manifest_of_other_dtypes_is_refused(tmp_path, storage):
    create(tmp_path, rows(25), **SMALL)
    path = tmp_path / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"storage": storage}))
    with pytest.raises(ManifestError, match=r"manifest.json: expected a transfer set's|inputs-00000.npy: expected float16 \(10, 5\)"):
        TransferSet.open(tmp_path)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"inputs_dtype": "int8"}, ValueError, "inputs_dtype: expected one of float32, float16, uint8, got 'int8'"),
        ({"logits_dtype": "uint8"}, ValueError, "logits_dtype: expected one of float32, float16, got 'uint8'"),
        ({"inputs_range": (1, 1)}, ValueError, "inputs_range: expected a number above 1 as float32, got 1"),
        ({"inputs_range": (0, np.inf)}, ValueError, "inputs_range: expected a number above 0 as float32, got inf"),
        ({"inputs_range": (-3e38, 3e38)}, ValueError, r"inputs_range: expected numbers that are 1e-36 to 1e\+36 apart, got \(-3e\+38"),
        ({"inputs_range": (0, 1e-44)}, ValueError, "inputs_range: expected numbers that are"),
        ({"inputs_range": (-1e38, 1e38)}, ValueError, "inputs_range: expected numbers that are"),
        ({"inputs_range": "01"}, TypeError, "inputs_range: expected a pair"),
        ({"inputs_dtype": np.dtype("float64")}, ValueError, "inputs_dtype: expected one of float32, float16, uint8, got dtype"),
        ({"inputs_dtype": np.array(["float16", "a"])}, ValueError, "inputs_dtype: expected one of float32, float16, uint8, got array"),
        ({"logits_dtype": np.uint8}, ValueError, "logits_dtype: expected one of float32, float16, got <class"),
        ({"logits_dtype": dict}, ValueError, "logits_dtype: expected one of float32, float16, got <class"),
        ({"logits_dtype": None}, ValueError, "logits_dtype: expected one of float32, float16, got None"),
        ({"inputs_range": 1.0}, TypeError, r"inputs_range: expected a pair \(low, high\), got 1.0"),
        ({"inputs_dtype": "uint8"}, ValueError, r"inputs: expected values in inputs_range, \[0, 1\], got -?[\d.]+ in row \d"),
        ({"inputs_dtype": "float16", "inputs": 1e5 * np.eye(D, dtype=np.float32)}, ValueError, "inputs: .*float16 holds.*got 100000.0 in"),
        (
            {"logits_dtype": "float16", "inputs": np.diag([1, 1, 1, 1, 1e6]).astype(np.float32)},
            ValueError, "logits: expected values that float16 holds, of at most 65504, got .* in row 4",
        ),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_and_leaves_nothing(tmp_path, change, error, message):
    with pytest.raises(error, match=message):
        create(tmp_path, **{"x": change.get("inputs", rows(C * D))}, **{key: value for key, value in change.items() if key != "inputs"})
    assert not list(tmp_path.iterdir())


def test_numpys_dtypes_are_taken_as_their_names(tmp_path):
    x = rows(25)
    create(tmp_path / "names", x, **SMALL)
    create(tmp_path / "numpys", x, **SMALL | {"inputs_dtype": np.uint8, "logits_dtype": np.dtype("float16")})
    assert contents(tmp_path / "names") == contents(tmp_path / "numpys")


@given(st.floats(-1e36, 1e36), st.floats(1e-36, 1e36))
def test_every_range_that_is_taken_gives_finite_numbers(low, width):
    try:
        storage = Storage.of("uint8", "float32", (low, low + width))
    except ValueError:  # too narrow beside its ends
        return
    x = np.array([[low], [low + width]], np.float32)
    back = storage.unpack("inputs", storage.pack("inputs", x, 0), 0)
    assert np.allclose(back, x, rtol=1e-6, atol=width / 100)


LOST = RNG.integers(0, 30, (600, D)).astype(np.float32)


@pytest.mark.parametrize(
    ("change", "x", "name", "columns", "cure"),
    [
        ({"inputs_dtype": "float16"}, 4e4 + LOST, "inputs", 5, 'inputs_dtype="float32"'),
        ({"inputs_dtype": "uint8"}, 1e-4 * LOST, "inputs", 5, "give inputs_range= no more than"),
        ({"inputs_dtype": "uint8"}, LOST / np.array([30, 30, 30, 30, 3e4], np.float32), "inputs", 1, "give inputs_range= no more than"),
        ({"logits_dtype": "float16"}, 4e4 + LOST, "logits", 3, 'logits_dtype="float32"'),
        ({"logits_dtype": "float16"}, 1e-12 * LOST, "logits", 3, 'logits_dtype="float32"'),
        ({"inputs_dtype": "float16"}, 1e-12 * LOST, "inputs", 5, 'inputs_dtype="float32"'),
    ],
)
def test_columns_whose_values_fall_together_are_named_once_with_a_cure(tmp_path, change, x, name, columns, cure):
    teacher = from_callable(lambda x: x[:, :C], "first")
    with pytest.warns(
        UserWarning, match=rf"^{name}: expected values that \w+ can tell apart, got others: in column \d, .*{cure}"
    ) as caught:
        TransferSet.create(tmp_path, teacher, x, rows_per_shard=100, progress=False, **change)
    assert [warning.filename for warning in caught] == [__file__]
    assert str(caught[0].message).count("in column") == columns


@pytest.mark.parametrize(
    "x",
    [
        RNG.standard_normal((600, D)), RNG.random((600, D)), LOST, LOST > 15, np.full((600, D), 0.1), 0.1 + 1e-8 * RNG.random((600, D)),
        60 + LOST / 10,
        np.where(np.arange(600)[:, None] < 5, 1e-4, np.zeros((600, D))),  # an image's corner
    ],
)  # fmt: skip
def test_ordinary_columns_are_kept_in_silence(tmp_path, x):
    x = x.astype(np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TransferSet.create(tmp_path / "halves", TEACHER, x, progress=False, inputs_dtype="float16", logits_dtype="float16")
        span = (float(x.min()), float(x.max()) + 1e-3)
        TransferSet.create(tmp_path / "bytes", TEACHER, x, progress=False, inputs_dtype="uint8", inputs_range=span)
