"""`pymimic distill --set`: a folder of rows that is written in the bytes asked for, or read, and the student that learns from it."""

import numpy as np
import pytest
from command_line import SIZES, C, D, call, distil, only_line
from slope_teacher import contents

from pymimic import Student, TransferSet
from pymimic.data.storage import Storage

ALL = np.arange(700)
# What the options say, and what they mean to TransferSet.save
OPTIONS = {
    "nothing": ((), {}),
    "inputs-dtype": (("--inputs-dtype", "float16"), {"inputs_dtype": "float16"}),
    "inputs-range": (("--inputs-dtype", "uint8", "--inputs-range", "-5,5"), {"inputs_dtype": "uint8", "inputs_range": (-5, 5)}),
    "logits-dtype": (("--logits-dtype", "float16"), {"logits_dtype": "float16"}),
    "top-logits": (("--top-logits", "2"), {"top_logits": 2}),
    "compress": (("--compress",), {"compress": True}),
}


def learned(path):
    return Student.load(path).arrays()


@pytest.mark.filterwarnings("ignore:logits. expected top_logits")
@pytest.mark.parametrize("case", OPTIONS)
def test_each_option_does_what_the_library_does_and_the_student_sees_it(files, case):
    options, same = OPTIONS[case]
    assert distil(files, "--set", files / "set", *options) == 0
    ts = TransferSet(np.load(files / "x.npy"), np.load(files / "t.npy")).save(files / "library", **same)
    assert contents(files / "set") == contents(files / "library")
    if case != "nothing":
        assert Storage.of(**same) != Storage()
    for name, part in zip("xt", ts.batch(ALL)):
        (files / "kept").mkdir(exist_ok=True)
        np.save(files / "kept" / f"{name}.npy", part)
    set_student = learned(files / "s.safetensors")
    assert distil(files / "kept") == 0
    assert all(np.array_equal(array, set_student[name]) for name, array in learned(files / "kept" / "s.safetensors").items())
    assert call("distill", "--set", files / "set", "--out", files / "again.safetensors", *SIZES) == 0
    assert all(np.array_equal(array, set_student[name]) for name, array in learned(files / "again.safetensors").items())


def test_the_same_command_again_finds_its_set_and_another_is_refused(files, capsys):
    options = ("--set", files / "set", "--logits-dtype", "float16")
    assert distil(files, *options) == 0
    before = contents(files / "set")
    assert distil(files, *options) == 0
    assert distil(files, "--set", files / "set") == 1
    assert "storage: expected " in only_line(capsys)
    np.save(files / "x.npy", np.load(files / "x.npy") + 1)
    assert distil(files, *options) == 1
    assert "inputs: expected the rows in " in only_line(capsys)
    assert contents(files / "set") == before


def test_corrected_logits_are_not_trained_on_as_they_were(files, capsys):
    options = ("--set", files / "set")
    assert distil(files, *options) == 0
    before, t = contents(files / "set"), np.load(files / "t.npy")
    t[100] += 2**-8
    np.save(files / "t.npy", t)
    assert distil(files, *options) == 1
    assert "logits: expected the rows in " in (line := only_line(capsys))
    assert "got another in row 100: write other logits into another folder" in line
    assert contents(files / "set") == before


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "inputs: expected --inputs and --logits, or --set, to train on, got none of them"),
        (("--inputs", "x.npy"), "logits: expected it beside --inputs, got --inputs alone"),
        (("--logits", "t.npy", "--set", "set"), "inputs: expected it beside --logits, got --logits alone"),
        (
            ("--inputs", "x.npy", "--logits", "t.npy", "--compress"),
            "compress: expected --set beside it, the folder to be written, got none",
        ),
        (
            ("--set", "set", "--top-logits", "2"),
            "top-logits: expected --inputs and --logits beside it, to be written into --set, got neither",
        ),
        (("--set", "nowhere"), "set: expected the folder of a transfer set, got no such folder: "),
        (("--set", "x.npy"), "set: expected the folder of a transfer set, got a file: "),
    ],
)
def test_wrong_options_are_one_line(files, monkeypatch, options, says, capsys):
    monkeypatch.chdir(files)
    assert call("distill", *options, "--out", "s", *SIZES) == 1
    assert says in only_line(capsys)
    assert sorted(path.name for path in files.iterdir()) == ["t.npy", "x.npy"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--inputs-dtype", "int8"), "inputs-dtype: expected one of float32, float16, uint8, got 'int8'"),
        (("--logits-dtype", "uint8"), "logits-dtype: expected one of float32, float16, got 'uint8'"),
        (("--inputs-range", "5"), "inputs-range: expected two numbers LOW,HIGH, such as 0,1, got '5'"),
        (("--inputs-range", "1,a"), "inputs-range: expected two numbers LOW,HIGH, such as 0,1, got '1,a'"),
        (("--inputs-range", "1,0"), "inputs-range: expected a number above 1 as float32, got 0"),
        (("--top-logits", "0"), "top-logits: expected an int in [1, "),
        (("--top-logits", str(C)), f"top-logits: expected fewer than the teacher's {C} logits, got {C}"),
        (("--inputs-dtype", "uint8"), "inputs: expected values in inputs_range, [0, 1], got "),
        (("--set", "x.npy"), "set: expected a folder, or a path where nothing is, got a file"),
    ],
)
def test_what_cannot_be_kept_so_is_one_line_and_nothing_is_written(files, monkeypatch, options, says, capsys):
    monkeypatch.chdir(files)
    assert call("distill", "--inputs", "x.npy", "--logits", "t.npy", "--out", "s", "--set", "set", *SIZES, *options) == 1
    assert says in only_line(capsys)
    assert not list(files.glob("set/*"))
    assert not (files / "s").exists()
    assert np.load("x.npy").shape == (700, D)
