"""Files of the command line: none is taken for two options, and every one that will be written is tried before the work."""

import os
import re

import numpy as np
import pytest
from command_line import ROWS, SIZES, C, D, call, only_line

from pymimic import Student

# One file for two options


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--checkpoint", "s.safetensors"), "out: expected another file than checkpoint's"),
        (("--checkpoint", "folder/../s.safetensors"), "out: expected another file than checkpoint's"),
        (("--out", "x.npy"), "out: expected another file than inputs's"),
        (("--out", "hard.npy"), "out: expected another file than logits's"),
        (("--checkpoint", "link.npy", "--fresh"), "checkpoint: expected another file than inputs's"),
        (("--val-inputs", "v.npy", "--val-logits", "w.npy", "--out", "v.npy"), "out: expected another file than val-inputs's"),
        (("--logits", "./x.npy"), "logits: expected another file than inputs's"),
        (("--val-inputs", "v.npy", "--val-logits", "folder/../v.npy"), "val-logits: expected another file than val-inputs's"),
        (("--val-inputs", "v.npy", "--val-logits", "w.npy", "--out", "w.npy"), "out: expected another file than val-logits's"),
    ],
)
def test_distill_takes_no_file_twice(files, monkeypatch, options, says, capsys):
    monkeypatch.chdir(files)
    (files / "folder").mkdir()
    os.link("t.npy", "hard.npy")
    os.symlink("x.npy", "link.npy")
    before = {path.name: path.read_bytes() for path in files.glob("*.npy")}
    out = () if "--out" in options else ("--out", "s.safetensors")
    assert call("distill", "--inputs", "x.npy", "--logits", "t.npy", *SIZES, *out, *options) == 1
    assert says in only_line(capsys)
    assert {path.name: path.read_bytes() for path in files.glob("*.npy")} == before
    assert not (files / "s.safetensors").exists()


def test_other_commands_take_no_file_twice(files, monkeypatch, capsys):
    monkeypatch.chdir(files)
    Student(D, 8, C).save("s.st")
    (files / "data").mkdir()
    twice = [
        (("predict", "s.st", "--inputs", "x.npy", "--out", "./s.st"), "out: expected another file than student's"),
        (("predict", "s.st", "--inputs", "x.npy", "--out", "x.npy"), "out: expected another file than inputs's"),
        (("compress", "s.st", "--bits", "8", "--out", "data/../s.st"), "out: expected another file than student's"),
        (("demo", "--json", "d", "--plot", "./d"), "json: expected another file than plot's"),
        (("demo", "--json", "d", "--out", "./d"), "json: expected another file than out's"),
        (("demo", "--plot", "d", "--out", "./d"), "plot: expected another file than out's"),
        (
            ("demo", "--data", "letter", "--path", "data", "--json", "data/letter-recognition.data"),
            "json: expected another file than path's",
        ),
        (
            ("demo", "--data", "mnist", "--path", "data", "--out", "data/t10k-labels-idx1-ubyte.gz"),
            "out: expected another file than path's",
        ),
        (("bench", "--json", "d", "--plot", "./d"), "json: expected another file than plot's"),
    ]
    for arguments, says in twice:
        assert call(*arguments) == 1
        assert says in only_line(capsys)
    assert Student.load("s.st").hidden == 8


# Targets


@pytest.mark.parametrize(
    "arguments",
    [
        ("demo", "--json"), ("demo", "--plot"), ("demo", "--out"), ("bench", "--json"), ("bench", "--plot"),
        ("predict", "s.st", "--inputs", "x.npy", "--out"), ("compress", "s.st", "--bits", "8", "--out"),
        ("distill", "--inputs", "x.npy", "--logits", "t.npy", "--hidden", "8", "--out"),
        ("distill", "--inputs", "x.npy", "--logits", "t.npy", "--hidden", "8", "--out", "o", "--checkpoint"),
    ],
)  # fmt: skip
def test_every_target_is_tried_before_the_work(files, monkeypatch, arguments, capsys):
    monkeypatch.chdir(files)
    Student(D, 8, C).save("s.st")
    (files / "link").symlink_to("nothing")
    name = arguments[-1][2:]
    for target in ("nope/f", ".", "link", "n" * 256, "x.npy/f", "/proc/f"):
        assert call(*arguments, target) == 1
        assert only_line(capsys).startswith(f"pymimic: {name}: ")
    assert sorted(os.listdir()) == ["link", "s.st", "t.npy", "x.npy"]


def test_home_is_known_in_every_option(files, monkeypatch):
    monkeypatch.setenv("HOME", str(files))
    paths = ("--inputs", "~/x.npy", "--logits", "~/t.npy", "--val-inputs", "~/x.npy", "--val-logits", "~/t.npy")
    assert call("distill", *paths, "--out", "~/s.st", "--checkpoint", "~/c", *SIZES) == 0
    assert call("predict", "~/s.st", "--inputs", "~/x.npy", "--out", "~/y.npy") == 0
    assert np.load(files / "y.npy").shape == (ROWS, C)
    assert not (files / "c").exists()


# Files that would be lost


@pytest.mark.parametrize("content", [b"precious", b"\x93NUMPY of another", b'{"half": ', b"[" * 5000])
def test_a_file_of_another_kind_is_not_overwritten(files, monkeypatch, content, capsys):
    monkeypatch.chdir(files)
    Student(D, 8, C).save("s.st")
    (files / "other").write_bytes(content)
    commands = [("distill", "--inputs", "x.npy", "--logits", "t.npy", *SIZES, "--out"), ("demo", "--out")]
    commands.append(("compress", "s.st", "--bits", "8", "--out"))
    commands += [(command, option) for command in ("demo", "bench") for option in ("--json", "--plot")]
    if not content.startswith(b"\x93"):
        commands.append(("predict", "s.st", "--inputs", "x.npy", "--out"))
    for command in commands:
        assert call(*command, "other") == 1
        name = command[-1][2:]
        assert re.match(rf"pymimic: {name}: expected no file, or .* to be replaced, got another: 'other': remove it, or", only_line(capsys))
        assert (files / "other").read_bytes() == content


def test_files_of_the_same_kind_and_empty_ones_are_replaced(files, monkeypatch):
    monkeypatch.chdir(files)
    for _ in range(2):
        (files / "empty").write_bytes(b"")
        for out in ("s.txt", "empty"):
            assert call("distill", "--inputs", "x.npy", "--logits", "t.npy", *SIZES, "--out", out) == 0
        (files / "empty").write_bytes(b"")
        for out in ("y.txt", "empty"):
            assert call("predict", "s.txt", "--inputs", "x.npy", "--out", out) == 0
            assert np.load(out).shape == (ROWS, C)
