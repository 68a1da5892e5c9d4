"""The command line: what each command does, and that a user's mistake is one line and a status that is not 0."""

import json
import os
import re
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

import pymimic
from pymimic import Student, cli
from pymimic.files import read_safetensors

D, C, ROWS = 6, 3, 700
SIZES = ("--hidden", "32", "--rank", "4", "--epochs", "3", "--batch-size", "64")


def call(*arguments):
    """The exit status."""
    with pytest.raises(SystemExit) as stopped:
        cli.run([str(argument) for argument in arguments])
    return stopped.value.code


@pytest.fixture
def files(tmp_path):
    """A folder with x.npy and t.npy, a teacher's logits for it."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((ROWS, D)).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "t.npy", np.tanh(x @ rng.standard_normal((D, C))).astype(np.float32))
    return tmp_path


def distil(folder, *more):
    return call("distill", "--inputs", folder / "x.npy", "--logits", folder / "t.npy", "--out", folder / "s.safetensors", *SIZES, *more)


def only_line(capsys):
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert "Traceback" not in captured.err
    return captured.err


def test_info_says_what_runs_here(capsys):
    assert call("info", "--plan", "512,784,64,8192,10") == 0
    said = capsys.readouterr().out
    for part in (pymimic.__version__, "instruction sets:", "threads:", "cuda:", "scikit-learn"):
        assert part in said
    assert re.search(rf"^threads: +{pymimic.get_num_threads()}$", said, re.MULTILINE)
    assert re.search(r"^cuda: +(no: \S+|.*compute capability)", said, re.MULTILINE)
    assert str(pymimic.plan(512, 784, 64, 8192, 10)) in said


@pytest.mark.parametrize("command", ["demo", "info", "distill", "predict"])
def test_every_option_has_help(command, capsys):
    assert call(command, "--help") == 0
    said = capsys.readouterr().out
    options = said.partition("Options:")[2].splitlines()
    flags = [i for i, line in enumerate(options) if line.startswith("  -")]
    assert len(flags) >= 2
    for i in flags:
        text = options[i][34:].strip() or options[i + 1].strip()
        assert text, options[i]


def test_distill_trains_the_student_that_the_library_trains(files, capsys):
    options = ("--lr", "0.01", "--warm-up", "5", "--seed", "3", "--weight-decay", "0.1", "--val-inputs", files / "x.npy")
    assert distil(files, *options, "--val-logits", files / "t.npy") == 0
    said = capsys.readouterr().out
    student = Student(D, 32, C, rank=4, seed=3)
    cases = pymimic.TransferSet(np.load(files / "x.npy"), np.load(files / "t.npy"))
    optimizer = pymimic.AdamW(pymimic.warm_up(pymimic.cosine(0.01, 3 * 11), 5), weight_decay=0.1)
    history = pymimic.Trainer(student, optimizer, epochs=3, batch_size=64, seed=3, standardise_inputs=True).fit(cases, cases)
    saved = Student.load(files / "s.safetensors")
    for name, array in student.arrays().items():
        assert np.array_equal(saved.arrays()[name], array)
    assert f"{student.parameter_count} parameters" in said
    assert f"validation loss {history[-1].validation_loss:.5g}" in said
    assert sorted(path.name for path in files.iterdir()) == ["s.safetensors", "t.npy", "x.npy"]


@pytest.mark.parametrize(
    "options",
    [
        ("--optimizer", "sgd", "--schedule", "step", "--standardise-targets"),
        ("--schedule", "constant", "--pca", "--ema", "0.9", "--warm-up", "0"),
        ("--loss", "distillation", "--temperature", "2", "--no-standardise-inputs", "--activation", "gelu", "--dropout", "0.1"),
    ],
)
def test_options_of_distill_work(files, options):
    assert distil(files, *options) == 0
    assert np.isfinite(Student.load(files / "s.safetensors").predict(np.load(files / "x.npy"))).all()


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predict_writes_what_predict_returns(files, monkeypatch, dtype, capsys):
    monkeypatch.setattr(cli, "_SLAB", 100)
    x = np.load(files / "x.npy").astype(dtype)
    np.save(files / "x.npy", x)
    student = Student(D, 40, C, seed=1)
    student.save(files / "s.safetensors")
    assert call("predict", files / "s.safetensors", "--inputs", files / "x.npy", "--out", files / "y.npy") == 0
    y = np.load(files / "y.npy")
    assert y.dtype == np.float32
    assert np.array_equal(y, student.predict(x))
    assert call("predict", files / "s.safetensors", "--inputs", files / "x.npy", "--out", files / "y.npy", "--proba") == 0
    assert np.array_equal(np.load(files / "y.npy"), student.predict_proba(x))
    assert f"{ROWS} rows of {C} probabilities" in capsys.readouterr().out


def test_a_prediction_that_fails_leaves_the_old_file(files, monkeypatch, capsys):
    Student(D, 40, C).save(files / "s.safetensors")
    (files / "y.npy").write_bytes(b"precious")

    def full(self, x, backend=None):
        raise OSError(28, "No space left on device", "y.npy")

    monkeypatch.setattr(Student, "predict", full)
    assert call("predict", files / "s.safetensors", "--inputs", files / "x.npy", "--out", files / "y.npy") == 1
    assert "No space left on device" in only_line(capsys)
    assert (files / "y.npy").read_bytes() == b"precious"
    assert not list(files.glob(".*"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "x.npy").unlink(), "inputs: No such file or directory: "),
        (lambda f: (f / "x.npy").write_bytes((f / "x.npy").read_bytes()[:-5]), "inputs: expected a whole .npy file"),
        (lambda f: (f / "x.npy").write_bytes(b"foreign" * 20), "inputs: expected a whole .npy file"),
        (lambda f: (f / "t.npy").write_bytes(b""), "logits: expected a whole .npy file"),
        (lambda f: np.save(f / "t.npy", np.array([{}], object)), "logits: expected a whole .npy file"),
        (lambda f: np.savez((f / "x.npy").open("wb"), a=np.ones(3)), "inputs: expected a .npy file, got the archive"),
        (lambda f: np.save(f / "x.npy", np.ones((ROWS, D), int)), "inputs: expected dtype float32 or float64, got int64"),
        (lambda f: np.save(f / "t.npy", np.ones((ROWS - 1, C))), "logits: expected shape"),
        (lambda f: np.save(f / "t.npy", np.full((ROWS, C), np.nan)), "logits: expected finite values, got nan in row 0"),
    ],
)
def test_bad_files_of_distill(files, change, says, capsys):
    change(files)
    assert distil(files) == 1
    assert says in only_line(capsys)
    assert not (files / "s.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("distill",), 2, "Missing option '--inputs'"),
        (("frob",), 2, "No such command 'frob'"),
        (("info", "--frob"), 2, "No such option"),
        (("demo", "--seed", "x"), 2, "'--seed'"),
        (("demo", "--seed", "-1"), 1, "seed: expected"),
        (("demo", "--data", "cifar"), 1, "data: expected one of digits, letter, mnist, got 'cifar'"),
        (("demo", "--data", "letter"), 1, "path: expected the folder with letter's files, got none"),
        (("demo", "--data", "mnist", "--path", "/nowhere"), 1, "/nowhere"),
        (("demo", "--json", "/nowhere/d.json"), 1, "/nowhere/d.json"),
        (("info", "--plan", "1,2,3"), 1, "plan: expected five sizes B,D,k,H,C, got '1,2,3'"),
        (("info", "--plan", "1,2,3,4,-5"), 1, "plan: expected five sizes"),
        (("predict", "/nowhere/s.safetensors", "--inputs", "x.npy", "--out", "y.npy"), 1, "/nowhere/s.safetensors"),
    ],
)
def test_mistakes_are_one_line(arguments, status, says, capsys):
    assert call(*arguments) == status
    assert says in only_line(capsys)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--hidden", "0"), "hidden: expected an int in [1, "),
        (("--rank", "0"), "rank: expected"),
        (("--activation", "swish"), "activation: expected one of relu"),
        (("--dropout", "1"), "dropout: expected a probability in [0, 1), got 1.0"),
        (("--optimizer", "lbfgs"), "optimizer: expected adamw or sgd, got 'lbfgs'"),
        (("--schedule", "wavy"), "schedule: expected one of cosine, constant, step, got 'wavy'"),
        (("--lr", "-1"), "lr: expected a number of at least 0, got -1.0"),
        (("--warm-up", "-1"), "warm-up: expected at least 0 steps, got -1"),
        (("--loss", "hinge"), "loss: expected"),
        (("--batch-size", "0"), "batch-size: expected"),
        (("--epochs", "-1"), "epochs: expected an int in [0"),
        (("--checkpoint-every", "0"), "checkpoint-every: expected"),
        (("--threads", "0"), "threads: expected"),
        (("--patience", "2"), "val-inputs: expected a set, as patience watches it"),
        (("--val-inputs", "x.npy"), "val-logits: expected it if and only if val-inputs is given"),
        (("--out", "/nowhere/s.safetensors"), "/nowhere/s.safetensors"),
        (("--pca", "--rank", "7"), "rank: expected a bottleneck of at most 6 units"),
        (("--resume",), "s.safetensors.checkpoint"),
        (("--resume", "--fresh"), "fresh: expected it or --resume, got both"),
    ],
)
def test_wrong_options_of_distill(files, options, says, capsys):
    assert distil(files, *options) == 1
    assert says in only_line(capsys)
    assert not list(files.glob("*.safetensors*"))


def test_predict_refuses_foreign_students_and_other_inputs(files, capsys):
    path = files / "s.safetensors"
    student = Student(D + 1, 40, C)
    student.save(path)
    asked = ("predict", path, "--inputs", files / "x.npy", "--out", files / "y.npy")
    assert call(*asked) == 1
    assert f"inputs: expected shape (N, {D + 1}), as the student has, got ({ROWS}, {D})" in only_line(capsys)
    path.write_bytes(path.read_bytes()[:-8])
    assert call(*asked) == 1
    assert "expected a whole safetensors file" in only_line(capsys)
    assert not (files / "y.npy").exists()


def run_module(*arguments, **how):
    return subprocess.Popen([sys.executable, "-m", "pymimic", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, **how)


@pytest.mark.skipif(os.name == "nt", reason="sends SIGINT")
def test_ctrl_c_leaves_a_checkpoint_that_resume_goes_on_from(files):
    asked = ["distill", "--inputs", files / "x.npy", "--logits", files / "t.npy", *SIZES, "--schedule", "constant", "--batch-size", "16"]
    state = files / "cut.safetensors.checkpoint"
    process = run_module(*asked, "--epochs", "100000", "--out", files / "cut.safetensors", "--checkpoint-every", "20")
    deadline = time.monotonic() + 60
    while not state.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    error = process.communicate(timeout=60)[1].decode()
    assert process.returncode == 130, error
    assert error.count("\n") == 1
    assert "add --resume to the same command" in error
    assert not (files / "cut.safetensors").exists()

    # two more epochs, beside a run that was never interrupted
    epochs = read_safetensors(state)[1]["counters"]["epoch"] + 2
    assert call(*asked, "--epochs", epochs, "--out", files / "cut.safetensors", "--resume") == 0
    assert call(*asked, "--epochs", epochs, "--out", files / "whole.safetensors") == 0
    assert (files / "cut.safetensors").read_bytes() == (files / "whole.safetensors").read_bytes()
    assert not state.exists()


def test_without_typer_one_line_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from pymimic.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == 'pymimic: the command line needs typer and rich: pip install "pymimic[cli]"\n'


def test_demo_without_scikit_learn_says_what_to_install(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    assert call("demo") == 1
    assert 'pip install "pymimic[demo]"' in only_line(capsys)


def test_demo_writes_what_it_is_asked_for(tmp_path, monkeypatch, capsys):
    from pymimic.demo import recipes, run
    from pymimic.demo.teachers import DeepRecipe

    tiny = recipes.Recipe(
        hidden=32, rank=8, teacher=DeepRecipe((32,), epochs=2), folds=2, generate=recipes.Munge(1, 0.2, 5.0),
        labels=(recipes.Training(1e-2, 2, 64),), mimic=recipes.Training(1e-2, 2, 64),
    )  # fmt: skip
    monkeypatch.setattr(run, "recipe", lambda name, fast: tiny)
    wanted = {kind: tmp_path / f"d.{kind}" for kind in ("json", "plot", "out")}
    assert call("demo", "--seed", "2", *(part for kind, path in wanted.items() for part in (f"--{kind}", path))) == 0
    assert json.loads(wanted["json"].read_text())["seed"] == 2
    assert wanted["plot"].read_bytes()[:4] == b"\x89PNG"
    assert Student.load(wanted["out"]).hidden == 32
    assert "shallow net as mimic" in capsys.readouterr().out
