"""`pymimic distill` does what the library does, and whatever ends it leaves a checkpoint that nobody overwrites unasked."""

import os
import re
import signal
import time

import numpy as np
import pytest
from command_line import ROWS, SIZES, STEPS, C, D, adamw, assert_same_nets, call, distil, library_run, only_line, run_module

import pymimic
from pymimic import Student
from pymimic.files import read_safetensors, write_safetensors
from pymimic.training.state import TrainingState


def fast(schedule):
    return ("--lr", "0.02", "--schedule", schedule)


# What the options say, and what they mean to Student, the optimizer and Trainer, beside the defaults
OPTIONS = {
    "nothing": ((), {}, adamw, {}),
    "lr": (("--lr", "0.01"), {}, lambda: adamw(rate=0.01), {}),
    "cosine": (fast("cosine"), {}, lambda: pymimic.AdamW(pymimic.cosine(0.02, STEPS)), {}),
    "constant": (fast("constant"), {}, lambda: pymimic.AdamW(pymimic.constant(0.02)), {}),
    "step": (fast("step"), {}, lambda: pymimic.AdamW(pymimic.step_decay(0.02, 11)), {}),
    "step, of steps that are no threefold": (
        ("--epochs", "2", *fast("step")), {}, lambda: pymimic.AdamW(pymimic.step_decay(0.02, 8)), {"epochs": 2},
    ),
    "cosine, of more steps": (
        ("--batch-size", "16"), {}, lambda: pymimic.AdamW(pymimic.warm_up(pymimic.cosine(5e-3, 132), 4)), {"batch_size": 16},
    ),
    "constant, of more steps": (
        ("--batch-size", "16", *fast("constant")), {}, lambda: pymimic.AdamW(pymimic.constant(0.02)), {"batch_size": 16},
    ),
    "warm-up": (("--warm-up", "0.15"), {}, lambda: pymimic.AdamW(pymimic.warm_up(pymimic.cosine(5e-3, STEPS), 5)), {}),
    "weight-decay": (("--weight-decay", "0.3"), {}, lambda: adamw(weight_decay=0.3), {}),
    "sgd": (
        ("--optimizer", "sgd", *fast("constant")), {}, lambda: pymimic.SGD(pymimic.constant(0.02), momentum=0.9, nesterov=True), {},
    ),
    "sgd decays": (
        ("--optimizer", "sgd", "--weight-decay", "0.3", *fast("constant")), {},
        lambda: pymimic.SGD(pymimic.constant(0.02), momentum=0.9, nesterov=True, weight_decay=0.3), {},
    ),
    "rank": (("--rank", "3"), {"rank": 3}, adamw, {}),
    "hidden": (("--hidden", "33"), {"hidden": 33}, adamw, {}),
    "activation": (("--activation", "gelu"), {"activation": "gelu"}, adamw, {}),
    "dropout": (("--dropout", "0.5"), {"dropout": 0.5}, adamw, {}),
    "seed": (("--seed", "3", "--dropout", "0.5"), {"seed": 3, "dropout": 0.5}, adamw, {"seed": 3}),
    "batch-size": (("--batch-size", "250"), {}, lambda: pymimic.AdamW(pymimic.cosine(5e-3, 9)), {"batch_size": 250}),
    "epochs": (("--epochs", "1"), {}, lambda: pymimic.AdamW(pymimic.cosine(5e-3, 11)), {"epochs": 1}),
    "distillation": (("--loss", "distillation"), {}, adamw, {"loss": "distillation"}),
    "temperature": (("--loss", "distillation", "--temperature", "3"), {}, adamw, {"loss": "distillation", "temperature": 3.0}),
    "ema": (("--ema", "0.9"), {}, adamw, {"ema": 0.9}),
    "standardise-targets": (("--standardise-targets",), {}, adamw, {"standardise_targets": True}),
    "no-standardise-inputs": (("--no-standardise-inputs",), {}, adamw, {"standardise_inputs": False}),
    "dtype": (("--dtype", "bfloat16"), {}, adamw, {"dtype": "bfloat16"}),
}  # fmt: skip


@pytest.mark.parametrize("case", OPTIONS)
def test_each_option_does_what_the_library_does(files, case):
    options, *same = OPTIONS[case]
    assert distil(files, *options) == 0
    saved = Student.load(files / "s.safetensors")
    assert_same_nets(library_run(files, *same)[0], saved)
    if case != "nothing":  # and an option that is dropped would be seen
        assert not all(np.array_equal(array, saved.arrays().get(name)) for name, array in library_run(files)[0].arrays().items())


def test_the_least_that_can_be_said(files):
    """Twenty epochs of two batches, along a cosine from 0.005 with a warm-up of one step."""
    asked = ("--inputs", files / "x.npy", "--logits", files / "t.npy", "--hidden", "8", "--out", files / "s.safetensors")
    assert call("distill", *asked) == 0
    optimizer = lambda: pymimic.AdamW(pymimic.cosine(5e-3, 40))  # noqa: E731
    net, _ = library_run(files, {"hidden": 8, "rank": None}, optimizer, {"epochs": 20, "batch_size": 512})
    assert_same_nets(net, Student.load(files / "s.safetensors"))


def test_pca_begins_from_principal_components(files):
    assert distil(files, "--pca") == 0
    assert_same_nets(library_run(files, pca=True)[0], Student.load(files / "s.safetensors"))


@pytest.mark.parametrize("keep", [True, False])
def test_validation_and_keep_best(files, capsys, keep):
    np.save(files / "vx.npy", np.load(files / "x.npy")[:50])
    np.save(files / "vt.npy", -np.load(files / "t.npy")[:50])  # it becomes worse from the first epoch on
    options = ("--val-inputs", files / "vx.npy", "--val-logits", files / "vt.npy", *fast("constant"))
    assert distil(files, *options, *["--keep-best"] * keep) == 0
    validation = pymimic.TransferSet(np.load(files / "vx.npy"), np.load(files / "vt.npy"))
    optimizer = lambda: pymimic.AdamW(pymimic.constant(0.02))  # noqa: E731
    student, history = library_run(files, None, optimizer, {"keep_best": keep}, validation=validation)
    assert_same_nets(student, Student.load(files / "s.safetensors"))
    assert history.best_epoch < len(history)
    assert f"validation loss {history[history.best_epoch - 1 if keep else -1].validation_loss:.5g}" in capsys.readouterr().out


@pytest.mark.parametrize("columns", [1, 2])
def test_of_one_output_no_agreement_is_said(files, capsys, columns):
    np.save(files / "t.npy", 100 + np.load(files / "t.npy")[:, :columns])
    assert distil(files, "--val-inputs", files / "x.npy", "--val-logits", files / "t.npy") == 0
    said = capsys.readouterr().out
    assert "validation loss " in said
    assert ("agreement" in said) == (columns > 1)


def test_validation_and_patience(files, capsys):
    np.save(files / "vx.npy", np.load(files / "x.npy")[:50])
    np.save(files / "vt.npy", -np.load(files / "t.npy")[:50])  # it becomes worse from the first epoch on
    options = (
        "--val-inputs",
        files / "vx.npy",
        "--val-logits",
        files / "vt.npy",
        "--patience",
        "1",
        "--epochs",
        "9",
        *fast("constant"),
    )
    assert distil(files, *options) == 0
    validation = pymimic.TransferSet(np.load(files / "vx.npy"), np.load(files / "vt.npy"))
    student, history = library_run(
        files, None, lambda: pymimic.AdamW(pymimic.constant(0.02)), {"epochs": 9, "patience": 1}, validation=validation
    )
    assert_same_nets(student, Student.load(files / "s.safetensors"))
    assert len(history) < 9
    said = capsys.readouterr().out
    assert f"{student.parameter_count} parameters, {ROWS} rows in {len(history)} epochs" in said
    assert f"validation loss {history[history.best_epoch - 1].validation_loss:.5g}" in said
    assert not list(files.glob("*.checkpoint"))


@pytest.mark.parametrize(("options", "steps"), [(("--checkpoint-every", "7"), [7, 14, 21, 28, 33]), ((), [33])])
def test_a_checkpoint_is_written_as_often_as_asked_for(files, monkeypatch, options, steps):
    seen, save = [], TrainingState.save

    def watched(state, *arguments, **keywords):
        seen.append(state.step)
        save(state, *arguments, **keywords)

    monkeypatch.setattr(TrainingState, "save", watched)
    assert distil(files, *options) == 0
    assert sorted(set(seen)) == steps


def test_threads_are_those_asked_for(files, threads):
    threads(1)
    assert distil(files, "--threads", "2") == 0
    assert pymimic.get_num_threads() == 2


def started(files, name, how=None):
    """A long `distill` in a process of its own, once its checkpoint is there; and the command, without its number of epochs."""
    asked = ["distill", "--inputs", files / "x.npy", "--logits", files / "t.npy", *SIZES, "--schedule", "constant", "--batch-size", "16"]
    process = run_module(*asked, "--epochs", "100000", "--out", files / f"{name}.safetensors", "--checkpoint-every", "20", how=how)
    deadline = time.monotonic() + 60
    while not (files / f"{name}.safetensors.checkpoint").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    return process, asked


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_leaves_a_checkpoint_that_resume_goes_on_from(files, number):
    state = files / "cut.safetensors.checkpoint"
    process, asked = started(files, "cut")
    process.send_signal(number)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 128 + number, error
    assert error.count("\n") == 1
    assert "add --resume to the same command" in error
    assert not (files / "cut.safetensors").exists()

    # two more epochs, beside a run that was never interrupted
    epochs = read_safetensors(state)[1]["counters"]["epoch"] + 2
    assert call(*asked, "--epochs", epochs, "--out", files / "cut.safetensors", "--resume") == 0
    assert call(*asked, "--epochs", epochs, "--out", files / "whole.safetensors") == 0
    assert (files / "cut.safetensors").read_bytes() == (files / "whole.safetensors").read_bytes()
    assert not state.exists()


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_nohup_means_it(files):
    process, _ = started(files, "cut", {"preexec_fn": lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN)})
    process.send_signal(signal.SIGHUP)
    time.sleep(0.3)
    assert process.poll() is None
    process.kill()
    process.wait()


def test_a_checkpoint_of_an_earlier_run_is_not_overwritten_unasked(files, capsys):
    state = files / "s.safetensors.checkpoint"
    process, _ = started(files, "s")
    process.kill()
    process.wait()
    process.communicate()
    before = state.read_bytes()
    assert distil(files) == 1
    said = only_line(capsys)
    for part in ("checkpoint: expected no file", str(state), "--resume", "--fresh"):
        assert part in said
    assert state.read_bytes() == before
    assert not (files / "s.safetensors").exists()
    assert distil(files, "--fresh") == 0
    assert_same_nets(library_run(files)[0], Student.load(files / "s.safetensors"))
    assert not state.exists()


def test_another_runs_checkpoint_is_neither_overwritten_nor_removed(files, monkeypatch, capsys):
    """Written before this run's first one, and after its last."""
    state = files / "s.safetensors.checkpoint"

    def after_another_run(method):
        def meanwhile(*given):
            write_safetensors(state, {"c": np.zeros(3)}, {"kind": "checkpoint"})
            method(*given)

        return meanwhile

    for owner, method, code in ((TrainingState, "save", 1), (Student, "save", 0)):
        with monkeypatch.context() as patch:
            patch.setattr(owner, method, after_another_run(getattr(owner, method)))
            assert distil(files) == code
        assert (files / "s.safetensors").exists() == (code == 0)
        assert np.array_equal(read_safetensors(state)[0]["c"], np.zeros(3))
        state.unlink()
    assert "checkpoint: expected no file, or this run's, in " in only_line(capsys)


def test_a_student_that_cannot_be_saved_is_not_lost(files, monkeypatch, capsys):
    def full(self, path):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Student, "save", full)
        assert distil(files) == 1
    said = only_line(capsys)
    for part in ("out: No space left on device", "s.safetensors.checkpoint", "--resume"):
        assert part in said
    assert distil(files, "--resume") == 0
    assert_same_nets(library_run(files)[0], Student.load(files / "s.safetensors"))


# Going on from a checkpoint with other options


@pytest.fixture
def stopped(files, monkeypatch):
    """The files, with the checkpoint of a run that was stopped in its first epoch."""

    def stop(self, path):
        raise OSError(28, "No space left on device", str(path))

    with monkeypatch.context() as patch:
        patch.setattr(Student, "save", stop)
        assert distil(files, "--dropout", "0.5") == 1
    return files


# options beside the first run's, and the names that --resume-with wants for them
OTHER = {
    "more epochs under a cosine": (("--epochs", "4"), "lr"), "rate": (("--lr", "0.01"), "lr"), "schedule": (("--schedule", "step"), "lr"),
    "warm-up": (("--warm-up", "0.1"), "lr"), "batch-size": (("--batch-size", "32"), "batch-size,lr"), "seed": (("--seed", "3"), "seed"),
    "dropout": (("--dropout", "0.25"), "dropout"), "ema": (("--ema", "0.9"), "ema"), "loss": (("--loss", "distillation"), "loss"),
    "weight-decay": (("--weight-decay", "0.1"), "weight-decay"), "dtype": (("--dtype", "bfloat16"), "dtype"),
}  # fmt: skip


@pytest.mark.parametrize("case", OTHER)
def test_other_options_are_named_and_may_differ_by_name(stopped, case, capsys):
    options, names = OTHER[case]
    capsys.readouterr()
    options = ("--dropout", "0.5", "--resume", *options)
    assert distil(stopped, *options) == 1
    said = only_line(capsys)
    assert said.startswith("pymimic: resume: expected the options of the run that was stopped: the checkpoint has --")
    for name in names.split(","):
        assert f"the checkpoint has --{name} = " in said
    assert said.count("this run has") == len(names.split(","))
    assert "resume_with" not in said
    assert "learning_rate =" not in said
    (asked,) = re.findall(r"add --resume-with (\S+);", said)
    assert set(asked.split(",")) == set(names.split(","))
    assert said.endswith("to start anew, say --fresh, not --resume\n")
    assert distil(stopped, *options, "--resume-with", asked) == 0
    assert not list(stopped.glob("*.checkpoint"))


@pytest.mark.parametrize("options", [("--rank", "3"), ("--hidden", "8"), ("--optimizer", "sgd"), ("--no-standardise-inputs",)])
def test_what_the_state_has_the_shape_of_may_not_differ(stopped, options, capsys):
    capsys.readouterr()
    assert distil(stopped, "--dropout", "0.5", "--resume", *options) == 1
    said = only_line(capsys)
    assert f"the checkpoint has {options[0].replace('--no', '-')} = " in said
    assert "--resume-with" not in said
    assert "--fresh" in said


def test_other_rows_are_named_by_their_file(stopped, capsys):
    x = np.load(stopped / "x.npy")
    np.save(stopped / "x.npy", x + 1)
    capsys.readouterr()
    assert distil(stopped, "--dropout", "0.5", "--resume") == 1
    assert re.search(r"the checkpoint has --inputs = 'sha256 .*add --resume-with inputs;", only_line(capsys))
    np.save(stopped / "x.npy", x[:-1])
    np.save(stopped / "t.npy", np.load(stopped / "t.npy")[:-1])
    assert distil(stopped, "--dropout", "0.5", "--resume") == 1
    assert f"the checkpoint has --inputs = {ROWS}, this run has {ROWS - 1}; to start anew" in only_line(capsys)


def test_more_epochs_need_nothing_where_the_rates_are_the_same(files, monkeypatch):
    options = ("--schedule", "constant")
    with monkeypatch.context() as patch:
        patch.setattr(Student, "save", lambda self, path: os.stat("/nowhere"))
        assert distil(files, *options) == 1
    assert distil(files, *options, "--epochs", "5", "--resume") == 0
    whole, _ = library_run(files, None, lambda: pymimic.AdamW(pymimic.constant(5e-3)), {"epochs": 5})
    assert_same_nets(whole, Student.load(files / "s.safetensors"))


@pytest.mark.parametrize("options", [(), ("--fresh",), ("--resume",)])
def test_no_file_but_a_checkpoint_is_taken_for_one(files, options, capsys):
    (files / "notes.txt").write_text("precious")
    Student(D, 8, C).save(files / "other.safetensors")
    for name, says in (("notes.txt", "got a truncated or foreign one"), ("other.safetensors", "expected a checkpoint, got a 'student'")):
        before = (files / name).read_bytes()
        assert distil(files, "--checkpoint", files / name, *options) == 1
        said = only_line(capsys)
        assert said.startswith("pymimic: checkpoint: ")
        assert says in said
        assert (files / name).read_bytes() == before
