"""`pymimic compress` does what the library does, says what is lost, and leaves no file that it should not."""

import os
import re

import numpy as np
import pytest
from command_line import ROWS, C, D, assert_same_nets, call, only_line

import pymimic
from pymimic import Student, TransferSet, compress
from pymimic.data.parts import held_out


@pytest.fixture
def folder(files, monkeypatch):
    """A folder with a student and a transfer set."""
    monkeypatch.chdir(files)
    x, t = np.load("x.npy"), np.load("t.npy")
    student = Student(D, 40, C, seed=1)
    pymimic.Trainer(student, pymimic.AdamW(0.01), epochs=3, batch_size=64, standardise_inputs=True).fit(TransferSet(x, t))
    student.save("s.st")
    weights = np.random.default_rng(0).standard_normal((D, C)).astype(np.float32)  # not t's, but of the same kind
    TransferSet.create("set", pymimic.from_callable(lambda rows: np.tanh(rows @ weights), "tanh"), x, progress=False)
    return files


def others(seed=0):
    return held_out(TransferSet.open("set"), 0.1, seed)[0]


# What the options say, and what they mean to `compress`, beside prune=0.5 and the set
OPTIONS = {
    "nothing": ((), {}),
    "bits": (("--bits", "4"), {"bits": 4}),
    "rank": (("--rank", "3"), {"rank": 3}),
    "epochs": (("--epochs", "0"), {"epochs": 0}),
    "batch-size": (("--batch-size", "100"), {"batch_size": 100}),
    "lr": (("--lr", "0.03"), {"learning_rate": 0.03}),
    "distillation": (("--loss", "distillation"), {"loss": "distillation"}),
    "temperature": (("--loss", "distillation", "--temperature", "3"), {"loss": "distillation", "temperature": 3.0}),
    "seed": (("--seed", "3"), {"seed": 3}),
}


@pytest.mark.parametrize("case", OPTIONS)
@pytest.mark.usefixtures("folder")
def test_each_option_does_what_the_library_does(case):
    options, same = OPTIONS[case]
    assert call("compress", "s.st", "--prune", "0.5", "--transfer", "set", "--out", "t.st", *options) == 0
    made, student = Student.load("t.st"), Student.load("s.st")
    assert_same_nets(made, compress(student, prune=0.5, transfer=others(same.get("seed", 0)), **same, progress=False))
    assert made.bits == same.get("bits")
    if case != "nothing":  # and an option that is dropped would be seen
        plain = compress(student, prune=0.5, transfer=others(), progress=False).arrays()
        assert not all(np.array_equal(array, plain.get(name)) for name, array in made.arrays().items())


@pytest.mark.usefixtures("folder")
def test_without_a_set_only_the_weights_count(capsys):
    assert call("compress", "s.st", "--bits", "8", "--prune", "0.25", "--out", "t.st") == 0
    made = Student.load("t.st")
    assert_same_nets(made, compress(Student.load("s.st"), bits=8, prune=0.25))
    said = capsys.readouterr().out
    assert "without --transfer nothing was fitted, trained or measured" in said
    assert "loss" not in said
    assert re.search(rf"before +{40 * D + 40 + 40 * C + C} +{4 * (40 * D + 40 + 40 * C + C)} +{40 * (D + C)} *\n", said.replace(",", ""))
    assert re.search(rf"after +{30 * D + 30 + 30 * C + C} +{30 * (D + C) + 4 * (3 * 30 + C)} +{30 * (D + C)} *\n", said.replace(",", ""))
    assert said.endswith(f"t.st: {made.parameter_count} parameters in {made.stored_nbytes} bytes\n")


@pytest.mark.usefixtures("folder")
def test_what_is_lost_is_measured_on_rows_that_nothing_was_fitted_to(capsys):
    assert call("compress", "s.st", "--bits", "4", "--prune", "0.5", "--transfer", "set", "--seed", "5", "--out", "t.st") == 0
    rest, held = held_out(TransferSet.open("set"), 0.1, 5)
    assert len(rest) + len(held) == ROWS
    x, t, _ = held.batch(np.arange(len(held)))
    said = capsys.readouterr().out
    assert f"on {ROWS // 10} rows held out by seed 5; the other {ROWS - ROWS // 10} were there to fit and train on" in said
    for line, path in (("before", "s.st"), ("after", "t.st")):
        y = Student.load(path).predict(x)
        agreement, loss = re.search(rf"{line} .* ([\d.]+) +([\d.]+) *\n", said).groups()
        assert agreement == f"{100 * np.mean(y.argmax(axis=1) == t.argmax(axis=1)):.2f}"
        assert float(loss) == pytest.approx(np.square(y - t).sum() / 2 / len(x), rel=1e-3)


@pytest.mark.usefixtures("folder")
def test_of_one_output_no_agreement_is_said(capsys):
    x = np.load("x.npy")
    TransferSet(x, np.abs(x[:, :1])).save("heights", progress=False)
    Student(D, 40, 1, seed=1).save("one.st")
    assert call("compress", "one.st", "--bits", "4", "--prune", "0.95", "--transfer", "heights", "--out", "t.st") == 0
    said = capsys.readouterr().out
    assert "agreement" not in said
    assert f"\nloss: on {ROWS // 10} rows held out by seed 0; " in said
    held = held_out(TransferSet.open("heights"), 0.1, 0)[1]
    rows, heights, _ = held.batch(np.arange(len(held)))
    for line, path in (("before", "one.st"), ("after", "t.st")):
        (loss,) = re.search(rf"{line} .* ([\d.]+) *\n", said).groups()
        assert float(loss) == pytest.approx(np.square(Student.load(path).predict(rows) - heights).sum() / 2 / len(rows), rel=1e-3)


def test_the_parts_of_a_set_are_all_of_it():
    cases = TransferSet(np.arange(30, dtype=np.float32)[:, None], np.zeros((30, 2), np.float32), weights=np.arange(30, dtype=np.float32))
    rest, held = held_out(cases, 0.1, 4)
    assert (len(rest), len(held), rest.inputs, held.outputs) == (27, 3, 1, 2)
    x, _, weights = (np.concatenate(pair) for pair in zip(rest.batch(np.arange(27)), held.batch(np.arange(3))))
    assert sorted(x[:, 0]) == list(range(30))
    assert np.array_equal(weights, x[:, 0])
    assert np.array_equal(rest.batch(np.array([5, 2]))[0], rest.batch(np.arange(27))[0][[5, 2]])
    assert len(held_out(cases, 0.01, 4)[1]) == 1


@pytest.mark.parametrize("moment", ["pymimic.training.trainer.Trainer.fit", "pymimic.nets.net.write_safetensors"])
@pytest.mark.parametrize("error", [KeyboardInterrupt(), OSError(28, "No space left on device")])
def test_what_ends_it_leaves_the_old_file(folder, monkeypatch, moment, error, capsys):
    Student(D, 3, C).save("t.st")
    before, there = (folder / "t.st").read_bytes(), sorted(os.listdir())

    def fails(*given, **named):
        raise error

    monkeypatch.setattr(moment, fails)
    ended = call("compress", "s.st", "--prune", "0.5", "--transfer", "set", "--out", "t.st")
    assert ended == (1 if isinstance(error, OSError) else 130)
    assert only_line(capsys).startswith("pymimic: interrupted" if ended == 130 else "pymimic: ")
    assert (folder / "t.st").read_bytes() == before
    assert sorted(os.listdir()) == there


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ((), "bits: expected 8 or 4, or a rank, or a share to prune that is one unit at least, got none of them"),
        (("--bits", "6"), "bits: expected 8 or 4"),
        (("--prune", "1"), "prune: expected a number in [0, 1), got 1.0"),
        (("--prune", "0.99"), "prune: expected a share that leaves at least one of 40 hidden units"),
        (("--rank", "6"), "rank: expected a bottleneck of at most 5 units, as more make the net larger, got 6"),
        (("--bits", "8", "--transfer", "nope"), "transfer: expected the folder of a transfer set, got no such folder: '"),
        (("--bits", "8", "--transfer", "x.npy"), "transfer: expected the folder of a transfer set, got a file: '"),
        (("--bits", "8", "--transfer", "other"), "transfer: expected 6 inputs, as the student has, got 5"),
        (("--bits", "8", "--transfer", "one"), "transfer: expected at least 2 rows, as some are held out, got 1"),
        (("--bits", "8", "--lr", "-1"), "lr: expected a number of at least 0"),
        (("--bits", "8", "--epochs", "-1"), "epochs: expected an int"),
        (("--bits", "8", "--batch-size", "0"), "batch-size: expected an int"),
        (("--bits", "8", "--loss", "cross_entropy"), "loss: expected mimic or distillation, got 'cross_entropy'"),
        (("--bits", "8", "--temperature", "2"), "temperature: expected 1 with loss 'mimic'"),
        (("--bits", "8", "--loss", "distillation", "--temperature", "1e3"), "temperature: expected a number in (0, 100]"),
        (("--bits", "8", "--seed", "-1"), "seed: expected an int"),
        (("--bits", "8", "--seed", "-1", "--transfer", "set"), "seed: expected an int"),
        (("--bits", "8", "--device", "tpu"), "device: expected one of cpu, cuda, got 'tpu'"),
        (("--bits", "8", "--threads", "0"), "threads: expected an int"),
    ],
)
@pytest.mark.usefixtures("folder")
def test_wrong_options_are_one_line(options, says, capsys):
    teacher = pymimic.from_callable(lambda rows: rows[:, :C], "columns")
    TransferSet.create("other", teacher, np.ones((9, 5), np.float32) * np.arange(9, dtype=np.float32)[:, None], progress=False)
    TransferSet.create("one", teacher, np.ones((1, D), np.float32), progress=False)
    capsys.readouterr()
    assert call("compress", "s.st", "--out", "t.st", *options) == 1
    assert f"pymimic: {says}" in only_line(capsys)
    assert not os.path.exists("t.st")


@pytest.mark.usefixtures("folder")
def test_a_diverging_run_advises_a_lower_rate(capsys):
    assert call("compress", "s.st", "--prune", "0.5", "--transfer", "set", "--lr", "1e30", "--out", "t.st") == 1
    assert re.match(r"pymimic: training diverged at step \d+: expected .*: try a lower --lr", only_line(capsys))
    assert not os.path.exists("t.st")
