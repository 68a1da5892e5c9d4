"""The command line: what each command does, and that a user's mistake is one line and a status that is not 0."""

import json
import os
import pickle
import re
import subprocess
import sys

import numpy as np
import pytest
from command_line import ROWS, SIZES, WARNING, C, D, call, distil, only_line, run_module

import pymimic
from pymimic import Student, formats
from pymimic.exits import option

SIZE = 128 + 4 * ROWS * D  # bytes of x.npy
WITHOUT_BYTES = b"\x93NUMPY\x01\x00\x3b\x00{'descr': '<U0', 'fortran_order': False, 'shape': (-1,)}  \n"  # NumPy crashes


def test_info_says_what_runs_here(capsys):
    assert call("info", "--plan", "512,784,64,8192,10") == 0
    said = capsys.readouterr().out
    for part in (pymimic.__version__, "instruction sets:", "threads:", "cuda:", "scikit-learn"):
        assert part in said
    assert re.search(rf"^threads: +{pymimic.get_num_threads()}$", said, re.MULTILINE)
    assert re.search(r"^cuda: +(no: \S+|.*compute capability)", said, re.MULTILINE)
    assert str(pymimic.plan(512, 784, 64, 8192, 10)) in said


@pytest.mark.parametrize("command", ["demo", "info", "distill", "compress", "predict"])
def test_every_option_has_help(command, capsys):
    assert call(command, "--help") == 0
    said = capsys.readouterr().out
    options = said.partition("Options:")[2].splitlines()
    flags = [i for i, line in enumerate(options) if line.startswith("  -")]
    assert len(flags) >= 2
    for i in flags:
        text = options[i][34:].strip() or options[i + 1].strip()
        assert text, options[i]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_predict_writes_what_predict_returns(files, monkeypatch, dtype, capsys):
    monkeypatch.setattr("pymimic.commands.predict._SLAB", 100)
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
    np.save(files / "y.npy", np.ones(3))
    before = (files / "y.npy").read_bytes()

    def full(self, x, backend=None):
        raise OSError(28, "No space left on device", "y.npy")

    monkeypatch.setattr(Student, "predict", full)
    assert call("predict", files / "s.safetensors", "--inputs", files / "x.npy", "--out", files / "y.npy") == 1
    assert "No space left on device" in only_line(capsys)
    assert (files / "y.npy").read_bytes() == before
    assert not list(files.glob(".*"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda f: (f / "x.npy").unlink(), "inputs: No such file or directory: "),
        (
            lambda f: (f / "x.npy").write_bytes((f / "x.npy").read_bytes()[:-5]),
            f"got a truncated one, of {SIZE - 5} bytes instead of {SIZE}",
        ),
        (lambda f: os.truncate(f / "x.npy", 20), "got one with a damaged header"),
        (
            lambda f: np.savetxt(f / "x.npy", np.ones((ROWS, D))),
            "inputs: expected a .npy file of numbers, as numpy.save writes it, got",
        ),
        (lambda f: (f / "x.npy").write_text("Größe;Länge\n1;2\n"), "got a text file (numpy.loadtxt"),
        (lambda f: (f / "x.npy").write_bytes(b"\x07\x00foreign" * 20), "got a file of another kind"),
        (lambda f: (f / "x.npy").write_bytes(pickle.dumps([1.0])), "got a pickle"),
        (lambda f: (f / "t.npy").write_bytes(b""), "logits: expected a .npy file of numbers, as numpy.save writes it, got an empty file"),
        (lambda f: np.save(f / "t.npy", np.array([{}], object)), "got an array of Python objects (make numbers of them"),
        (lambda f: (f / "t.npy").write_bytes(WITHOUT_BYTES), "got an array of <U0, which takes no bytes"),
        (lambda f: np.savez((f / "x.npy").open("wb"), a=np.ones(3)), "got an archive, as numpy.savez writes it (save each array in a file"),
        (
            lambda f: np.save(f / "x.npy", np.ones((ROWS, D), int)),
            "inputs: expected dtype float32 or float64, got int64: pass .ast",
        ),
        (lambda f: np.save(f / "x.npy", np.full((ROWS, D), "a")), "inputs: expected dtype float32 or float64, got <U1"),
        (lambda f: np.save(f / "t.npy", np.ones((ROWS - 1, C))), "logits: expected shape"),
        (lambda f: np.save(f / "t.npy", np.full((ROWS, C), np.nan)), "logits: expected finite values, got nan in row 0"),
    ],
)
def test_bad_files_of_distill(files, change, says, capsys):
    change(files)
    assert distil(files) == 1
    said = only_line(capsys)
    assert says in said
    assert "allow_pickle" not in said
    assert not (files / "s.safetensors").exists()


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (("distill",), 2, "Missing option '--hidden'"),
        (("frob",), 2, "No such command 'frob'"),
        (("info", "--frob"), 2, "No such option"),
        (("demo", "--seed", "x"), 2, "'--seed'"),
        (("demo", "--seed", "-1"), 1, "seed: expected"),
        (("demo", "--data", "cifar"), 1, "data: expected one of mnist1d, letter, mnist, got 'cifar'"),
        (("demo", "--data", "letter"), 1, "path: expected the folder with letter's files, got none"),
        (("demo", "--data", "mnist", "--path", "/nowhere"), 1, "/nowhere"),
        (("demo", "--json", "/nowhere/d.json"), 1, "/nowhere/d.json"),
        (("info", "--plan", "1,2,3"), 1, "plan: expected five sizes B,D,k,H,C, such as 512,784,64,8192,10 or"),
        (("info", "--plan", "1,2,3,4,-5"), 1, "plan: expected a number of at least 1 for C in B,D,k,H,C, got '-5' in '1,2,3,4,-5'"),
        (("info", "--plan", "1,2,0,4,5"), 1, "or none for no bottleneck, for k in B,D,k,H,C, got '0'"),
        (("info", "--plan", "1,none,3,4,5"), 1, "plan: expected a number of at least 1 for D in B,D,k,H,C, got 'none'"),
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
        (("--warm-up", "-1"), "warm-up: expected a share of the steps in [0, 1), such as 0.03, got -1.0"),
        (("--warm-up", "100"), "warm-up: expected a share of the steps in [0, 1), such as 0.03, got 100.0"),
        (("--warm-up", "1"), "warm-up: expected a share"),
        (("--warm-up", "nan"), "warm-up: expected a share"),
        (("--loss", "hinge"), "loss: expected"),
        (("--temperature", "2"), "temperature: expected 1 with loss 'mimic', as 'distillation' alone reads it, got 2.0"),
        (("--loss", "distillation", "--temperature", "1e3"), "temperature: expected a number in (0, 100]"),
        (("--batch-size", "0"), "batch-size: expected"),
        (("--epochs", "-1"), "epochs: expected an int in [1"),
        (("--epochs", "0"), "epochs: expected an int in [1"),
        (("--loss", "cross_entropy"), "loss: expected mimic or distillation, got 'cross_entropy'"),
        (("--ema", "2"), "ema: expected a number in [0, 1), got 2.0"),
        (("--checkpoint-every", "0"), "checkpoint-every: expected"),
        (("--threads", "0"), "threads: expected"),
        (("--keep-best",), "keep-best: expected --val-inputs and --val-logits beside it, as it watches the validation loss, got neither"),
        (("--patience", "2"), "patience: expected --val-inputs and --val-logits beside it, as it watches the validation loss, got neither"),
        (("--val-inputs", "x.npy"), "val-logits: expected it beside --val-inputs, as validation takes both"),
        (("--val-logits", "x.npy"), "val-inputs: expected it beside --val-logits, as validation takes both"),
        (("--out", "/nowhere/s.safetensors"), "/nowhere/s.safetensors"),
        (("--pca", "--rank", "7"), "rank: expected a bottleneck of at most 6 units"),
        (("--resume",), "s.safetensors.checkpoint', got no file; a run that comes to its end removes its own"),
        (("--resume-with", "lr"), "resume-with: expected --resume beside it, got it alone"),
        (("--resume", "--fresh"), "fresh: expected it or --resume, got both"),
    ],
)
def test_wrong_options_of_distill(files, options, says, capsys):
    assert distil(files, *options) == 1
    assert says in only_line(capsys)
    assert not list(files.glob("*.safetensors*"))


def test_principal_components_need_a_bottleneck(files, capsys):
    asked = ("distill", "--inputs", files / "x.npy", "--logits", files / "t.npy", "--hidden", "8", "--out", files / "s.safetensors")
    assert call(*asked, "--pca") == 1
    assert "pca: expected --rank beside it, as it starts the bottleneck, got no bottleneck" in only_line(capsys)


def test_no_bottleneck_is_written_as_none(capsys):
    assert call("info", "--plan", "512,784,none,8192,10") == 0
    assert str(pymimic.plan(512, 784, 784, 8192, 10)) in capsys.readouterr().out


def test_info_says_which_backend_a_trainer_takes(capsys):
    assert call("info") == 0
    said = capsys.readouterr().out
    trainer = pymimic.Trainer(Student(D, 8, C), pymimic.AdamW(), epochs=1).backend or "cpu"
    assert re.search(rf"^backend: +\w+ for ops and predictions, {trainer} for a Trainer$", said, re.MULTILINE)
    assert "amx_model" not in said or "in use:               amx_model, which computes" in said


# What goes on, with a line on standard error


def test_a_run_that_did_not_learn_says_so_in_one_line(files, capsys):
    assert distil(files, "--lr", "1e3") == 0
    said = "student: expected a loss below 0\\.\\d+, that of the same answer for every row, got "
    assert re.fullmatch(rf"{WARNING}{said}.*\n", capsys.readouterr().err)


def test_a_bottleneck_wider_than_the_inputs_is_pointed_out(files, capsys):
    assert distil(files, "--rank", "7", "--epochs", "30", "--lr", "0.01") == 0
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert said.startswith(f"{WARNING}rank: expected at most 6 units, the inputs, got 7")


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3.4e38])
@pytest.mark.parametrize("rows", [[5], [0, 5, ROWS - 1]])
def test_predict_says_which_rows_are_of_no_use(files, monkeypatch, value, rows, capsys):
    monkeypatch.setattr("pymimic.commands.predict._SLAB", 100)
    x = np.load(files / "x.npy")
    student = Student(D, 40, C, seed=1)
    student.save(files / "s.safetensors")
    asked = ("predict", files / "s.safetensors", "--inputs", files / "x.npy", "--out", files / "y.npy")
    assert call(*asked) == 0
    assert capsys.readouterr().err == ""
    x[rows, 2] = value
    np.save(files / "x.npy", x)
    assert call(*asked) == 0
    what = f"{np.float32(value)}" if not np.isfinite(value) else "values up to 3.4e+38"
    others = f" and {len(rows) - 1} more rows" * (len(rows) > 1)
    said = f"inputs: expected finite values, with finite logits, got {what} in row {rows[0]}{others}: their logits are of no use"
    assert capsys.readouterr().err == f"{WARNING}{said}\n"
    assert np.flatnonzero(~np.isfinite(np.load(files / "y.npy")).all(axis=1)).tolist() == rows


@pytest.mark.parametrize(("dtype", "cure"), [(int, ": pass .astype(np.float32)"), ("U3", "")])
def test_predict_names_its_option_where_the_dtype_is_wrong(files, dtype, cure, capsys):
    Student(D, 40, C).save(files / "s.safetensors")
    np.save(files / "x.npy", np.ones((3, D)).astype(dtype))
    assert call("predict", files / "s.safetensors", "--inputs", files / "x.npy", "--out", files / "y.npy") == 1
    assert only_line(capsys) == f"pymimic: inputs: expected dtype float32 or float64, got {np.dtype(dtype)}{cure}\n"
    assert not (files / "y.npy").exists()


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


# Where the output goes


@pytest.mark.parametrize("arguments", [["info"], ["--help"], ["distill", "--help"], ["frob"]])
def test_nobody_reads(arguments):
    read, write = os.pipe()
    os.close(read)
    process = subprocess.Popen([sys.executable, "-m", "pymimic", *arguments], stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    said = process.communicate(timeout=60)[1].decode()
    assert (process.returncode, said) in [(2, "pymimic: No such command 'frob'.\n")] if arguments == ["frob"] else [(1, ""), (141, "")]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs a full device")
@pytest.mark.parametrize("arguments", [["info"], ["--help"], ["distill", "--help"], ["--version"]], ids=" ".join)
def test_a_full_device_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run([sys.executable, "-m", "pymimic", *arguments], stdout=full, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 1
    assert done.stderr == "pymimic: No space left on device\n"


def test_without_standard_output_and_error_it_works(files):
    code = "import os, sys; os.close(1); os.close(2); os.execv(sys.executable, [sys.executable, '-m', 'pymimic', *sys.argv[1:]])"
    asked = ["distill", "--inputs", files / "x.npy", "--logits", files / "t.npy", *SIZES, "--out", files / "s.safetensors"]
    assert subprocess.run([sys.executable, "-c", code, *map(str, asked)]).returncode == 0
    assert (files / "s.safetensors").exists()


def test_without_typer_one_line_says_what_to_install():
    code = "import sys; sys.modules['typer'] = None; from pymimic.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "pymimic: the command line needs typer and rich: pip install typer rich\n"


@pytest.mark.skipif(os.name == "nt", reason="sends signals")
def test_the_demo_hears_sigterm():
    pytest.importorskip("sklearn")
    process = run_module("demo")
    assert b"fitting the teacher" in process.stderr.readline()
    process.terminate()
    assert process.communicate(timeout=60)[1].decode().splitlines()[-1] == "pymimic: interrupted"
    assert process.returncode == 143


def test_the_demo_needs_scikit_learn_for_letter_alone(monkeypatch, capsys, tmp_path):
    from pymimic.demo import datasets

    monkeypatch.setitem(sys.modules, "sklearn", None)
    monkeypatch.setattr(datasets, "letter", lambda folder, seed: datasets.mnist1d(seed))
    assert call("demo", "--data", "letter", "--path", tmp_path) == 1
    assert "pip install scikit-learn" in only_line(capsys)


def test_demo_writes_what_it_is_asked_for(tmp_path, monkeypatch, capsys):
    from pymimic.demo import datasets, recipes, run
    from pymimic.demo.students import Training
    from pymimic.demo.teachers import DeepRecipe

    ways = {name: recipes.Way(name, "generated", (Training("mimic", 1e-2, 2, 64),)) for name in ("labels", "mimic")}
    tiny = recipes.Recipe(32, 8, DeepRecipe(hidden=(32,), epochs=2), recipes.Munged(1, 0.2, 5.0), ways)
    monkeypatch.setattr(run, "recipe", lambda name, fast: tiny)
    monkeypatch.setattr(datasets, "_CURVES_TRAIN", 300)
    wanted = {kind: tmp_path / f"d.{kind}" for kind in ("json", "plot", "out")}
    assert call("demo", "--seed", "2", *(part for kind, path in wanted.items() for part in (f"--{kind}", path))) == 0
    assert json.loads(wanted["json"].read_text())["seed"] == 2
    assert wanted["plot"].read_bytes()[:4] == b"\x89PNG"
    assert Student.load(wanted["out"]).hidden == 32
    for path in (wanted["json"], tmp_path / "empty"):
        path.touch()
        formats.demand_json_or_none("json", path)  # the next run may replace it
    for path in (wanted["plot"], tmp_path / "empty"):
        formats.demand_png_or_none("plot", path)
    assert '"mimic" takes' in capsys.readouterr().out


# What a run says


def test_a_diverging_run_advises_a_lower_rate(files, capsys):
    assert distil(files, "--lr", "1e6", "--optimizer", "sgd", "--schedule", "constant") == 1
    assert re.match(r"pymimic: training diverged at step \d+: expected .*: try a lower --lr", only_line(capsys))


def test_one_epoch_is_one(files, capsys):
    assert distil(files, "--epochs", "1") == 0
    assert " in 1 epoch, " in capsys.readouterr().out


def test_fewer_epochs_than_were_done_are_refused(files, capsys, monkeypatch):
    monkeypatch.setattr(Student, "save", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    assert distil(files, "--schedule", "constant") == 1
    assert "No space left" in only_line(capsys)
    monkeypatch.undo()
    checkpoint = files / "s.safetensors.checkpoint"
    before = checkpoint.read_bytes()
    assert distil(files, "--schedule", "constant", "--epochs", "2", "--resume") == 1
    assert "pymimic: epochs: expected at least 3, as the checkpoint in" in only_line(capsys)
    assert checkpoint.read_bytes() == before
    assert not (files / "s.safetensors").exists()


def test_a_device_that_is_not_there_is_the_options_fault(files, capsys, monkeypatch):
    get = pymimic.backends.get

    def missing(name):
        if name == "cuda":
            raise pymimic.BackendUnavailableError(f"backend: {name!r} is not available: none here")
        return get(name)

    monkeypatch.setattr("pymimic.backends.get", missing)
    Student(D, 8, C).save(files / "s.st")
    pymimic.TransferSet(np.load(files / "x.npy"), np.load(files / "t.npy")).save(files / "set", progress=False)
    for asked in (
        ("predict", files / "s.st", "--inputs", files / "x.npy", "--out", files / "y.npy"),
        ("distill", "--set", files / "set", "--out", files / "d.st", *SIZES),
        ("compress", files / "s.st", "--prune", "0.5", "--transfer", files / "set", "--out", files / "c.st"),
    ):
        assert call(*asked, "--device", "cuda") == 1
        assert only_line(capsys) == "pymimic: device: 'cuda' is not available: none here\n"


def test_a_wrong_dtype_names_option_and_file(files, capsys):
    np.save(files / "t.npy", np.ones((ROWS, C), int))
    assert distil(files) == 1
    assert re.search(r"pymimic: logits: expected .*, got int64: pass .astype\(np.float32\) \(in '.*t.npy'\)\n", only_line(capsys))


def test_inputs_that_are_too_far_apart_name_the_option(files, capsys):
    x = np.load(files / "x.npy")
    x[:, 2] = np.where(np.arange(ROWS) == 5, 3e38, -3e38)
    np.save(files / "x.npy", x)
    assert distil(files) == 1
    assert only_line(capsys).startswith("pymimic: inputs: expected inputs that float32 still holds when their mean is subtracted")


@pytest.mark.parametrize(
    ("message", "says"),
    [
        ("path: no such thing", "student: no such thing"),  # the library's name of the argument
        ("folder: full", "out: full"),
        ("student: gone", "student: gone"),
        ("others: say this", "student: others: say this"),
        ("gone", "student: gone"),
    ],
)
def test_an_option_is_named_in_place_of_the_librarys_argument(message, says):
    with pytest.raises(OSError, match=re.escape(says)) as caught, option("student", path="student", folder="out"):
        raise OSError(2, message, "f")
    assert (caught.value.errno, caught.value.strerror, caught.value.filename) == (2, says, "f")


def test_the_version(capsys):
    assert call("--version") == 0
    assert capsys.readouterr().out == f"pymimic {pymimic.__version__}\n"
