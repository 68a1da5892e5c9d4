"""Weights that are integers times a scale a row: what keeps them so, how they are served, and how files have them."""

import copy
import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from small_students import SIZES, inputs, of_sizes, rows_and_logits, same, trained

from pymimic import SGD, Predictor, Student, Trainer, compress
from pymimic.errors import FileFormatError

ONES = np.ones((3, 2), np.int8)


def test_it_is_served_by_the_integers_of_its_file():
    student = trained(hidden=90)
    x = inputs(9, 11)
    assert np.array_equal(Predictor(student, "int8").predict(x), Predictor(compress(student, bits=8), "int8").predict(x))
    exact = Student(2, 1, 1, activation="identity")
    exact.set_arrays(U=np.array([[7.0, 1.0]]), W=np.ones((1, 1)))
    small = compress(exact, bits=4)
    assert same(small, exact)
    x = np.array([[0.0, 1.0]], np.float32)
    assert abs(Predictor(exact, "int8").predict(x) - 1) > 5e-3  # 1 is no multiple of 7 / 127
    assert abs(Predictor(small, "int8").predict(x) - 1) < 1e-4


@pytest.mark.parametrize(
    "change",
    [
        lambda s: s.set_arrays(U=s.arrays()["U"]),
        lambda s: s.fold(np.zeros(7), np.ones(7)),
        lambda s: Trainer(s, SGD(1e-3), epochs=1, progress=False).fit(rows_and_logits(s)),
    ],
)
def test_what_replaces_weights_makes_them_float32(tmp_path, change):
    student = compress(trained(), bits=4)
    few = student.stored_nbytes
    change(student)
    assert student.bits is None
    assert "bits" not in student.describe()
    assert student.stored_nbytes == student.nbytes > 2 * few
    student.save(tmp_path / "s")
    assert same(Student.load(tmp_path / "s"), student)
    assert Student.load(tmp_path / "s").bits is None


@pytest.mark.parametrize(
    "change",
    [
        copy.deepcopy, lambda s: pickle.loads(pickle.dumps(s)), lambda s: s.to("cpu"), lambda s: s.set_arrays(b=np.ones(203), c=np.ones(7)),
        lambda s: s.set_standardisation(None, None),
    ],
)  # fmt: skip
def test_what_leaves_weights_leaves_integers(change):
    student = compress(trained(), bits=4)
    assert student.stored_nbytes == (5 * 6 + 203 * 3 + 203 * 4) + 4 * (5 + 203 + 203) + 4 * (203 + 7)
    other = change(student) or student
    assert (other.bits, other.stored_nbytes, other.describe()["bits"]) == (4, student.stored_nbytes, 4)


def test_a_rounded_net_is_pruned_as_floats_and_rounded_anew():
    student = compress(trained(), bits=8)
    assert compress(student, prune=0.5).bits is None
    assert compress(student, bits=4).bits == 4
    assert same(compress(student, bits=8), student)


# Files


@given(sizes=SIZES, bits=st.sampled_from([8, 4]))
def test_a_file_gives_the_same_bits_and_takes_what_it_says(tmp_path, sizes, bits):
    student, path = compress(of_sizes(**sizes), bits=bits), tmp_path / "s"
    student.save(path)
    loaded = Student.load(path)
    assert same(loaded, student)
    assert (loaded.bits, loaded.describe()) == (bits, student.describe())
    assert student.stored_nbytes == loaded.stored_nbytes == sum(array.nbytes for array in load_file(path).values())
    loaded.save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@pytest.mark.parametrize("bits", [8, 4])
def test_others_can_read_it_by_what_the_documents_say(tmp_path, bits):
    student = compress(trained(), bits=bits)
    student.save(tmp_path / "s")
    arrays = load_file(tmp_path / "s")
    for name, width in (("V", 11), ("U", 5), ("W", 7)):
        values = arrays[name]
        if bits == 4:
            values = np.stack([values & 15, values >> 4], axis=2).reshape(len(values), -1)[:, :width].astype(np.int8)
            values[values > 7] -= 16
        assert np.array_equal(values * arrays[f"{name}.scale"][:, None], student.arrays()[name])
    assert all(np.array_equal(arrays[name], student.arrays()[name]) for name in "bc")


def test_files_are_smaller():
    sizes = {}
    student = trained(inputs_=40, hidden=2000, rank=16, outputs=26)
    for bits in (None, 8, 4):
        made = student if bits is None else compress(student, bits=bits)
        sizes[bits] = made.stored_nbytes
    assert sizes[8] < 0.35 * sizes[None]
    assert sizes[4] < 0.23 * sizes[None]


def rewritten(path, change):
    """Change a file's arrays and metadata, and give it the form of earlier versions, which had no checksum."""
    raw = path.read_bytes()
    metadata = json.loads(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["pymimic"])
    arrays = load_file(path)
    metadata.pop("sha256")
    metadata.update(format=1)
    change(arrays, metadata)
    save_file(arrays, path, {"pymimic": json.dumps(metadata)})


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a, m: m.update(bits=5), "bits: expected 8 or 4, got 5"),
        (lambda a, m: m.update(bits=[8]), r"bits: expected 8 or 4, got \[8\]"),
        (lambda a, m: m.update(bits=4), r"U: expected 'uint8 \(203, 3\)', got 'int8 \(203, 5\)'"),
        (lambda a, m: m.update(bits=None), r"U: expected 'float32 \(203, 5\)', got 'int8 \(203, 5\)'"),
        (lambda a, m: a.pop("U.scale"), r"U.scale: expected 'float32 \(203,\)', got nothing"),
        (lambda a, m: a["U"].fill(-128), r"U: expected integers in \[-127, 127\], got \[-128, -128\]"),
        (lambda a, m: a["W.scale"].fill(np.nan), "W: scales: expected finite values, got nan in row 0"),
        (lambda a, m: a["W.scale"].fill(-1), "W: expected scales of at least 0, got -1.0 in row 0"),
    ],
)
def test_damaged_integers_are_refused(tmp_path, change, says):
    compress(trained(), bits=8).save(tmp_path / "s")
    rewritten(tmp_path / "s", change)
    with pytest.raises(FileFormatError, match=says):
        Student.load(tmp_path / "s")


def test_an_older_file_loads(tmp_path):
    student = trained()
    student.save(tmp_path / "s")
    rewritten(tmp_path / "s", lambda arrays, metadata: metadata.pop("bits"))
    assert same(Student.load(tmp_path / "s"), student)


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"U": None}, "integers: expected those of U, W, got W"),
        ({"V": (ONES, ONES[:, 0])}, "integers: expected those of U, W, got U, W, V"),
        ({"U": (ONES[:, :1], np.ones(3, np.float32))}, r"U: expected integers of shape \(3, 2\), got \(3, 1\)"),
        ({"U": (ONES.astype(int), np.ones(3, np.float32))}, "U: expected integers of dtype int8, got int64"),
        ({"U": (ONES, np.ones(3))}, "U: expected scales of dtype float32, got float64"),
        ({"U": (ONES, np.ones(2, np.float32))}, r"U: expected scales of shape \(3,\), got \(2,\)"),
        ({"U": (8 * ONES, np.ones(3, np.float32))}, r"U: expected integers in \[-7, 7\], got \[8, 8\]"),
    ],
)
def test_wrong_integers_are_named(wrong, says):
    integers = {"U": (ONES, np.ones(3, np.float32)), "W": (ONES[:, :1], np.ones(3, np.float32))}
    given = {name: value for name, value in {**integers, **wrong}.items() if value is not None}
    student = Student(2, 3, 1)
    with pytest.raises((TypeError, ValueError), match=says):
        student.set_integers(4, **given)
    with pytest.raises(ValueError, match="bits: expected 8 or 4, got 6"):
        student.set_integers(6, **integers)
    assert student.fresh
    student.set_integers(4, **integers)
    assert np.array_equal(student.arrays()["U"], np.ones((3, 2)))
