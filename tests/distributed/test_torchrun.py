"""`torchrun -m pymimic distill`: the same command, in several processes, and what becomes of it when some are killed."""

import importlib.util
import os
import random
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from command_line import ROWS, C, D, write_inputs_and_logits
from slope_teacher import contents

import pymimic as pm

KILLS = int(os.environ.get("PYMIMIC_RANK_KILLS", "3"))
SECONDS = 240
HOW = (
    "--hidden",
    "600",
    "--rank",
    "4",
    "--epochs",
    "40",
    "--batch-size",
    "64",
    "--dropout",
    "0.2",
    "--reproducible",
    "--checkpoint-every",
    "5",
)
needs_torch = pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="needs torch")
pytestmark = [needs_torch, pytest.mark.slow]


def torchrun(size, folder, *more, restarts=0, stderr=subprocess.PIPE):
    """Start `pymimic distill`."""
    return started(size, folder, command(folder, *more), restarts, stderr=stderr)


def started(size, folder, words, restarts=0, program=("-m", "pymimic"), stderr=subprocess.PIPE):
    launcher = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--standalone",
        "--nproc-per-node",
        str(size),
        "--max-restarts",
        str(restarts),
    ]
    launcher += ["--monitor-interval", "0.1"]
    return subprocess.Popen(
        [*launcher, *program, *words], stdout=subprocess.PIPE, stderr=stderr, text=True, cwd=folder,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip


def command(folder, *more):
    return [
        "distill",
        "--inputs",
        str(folder / "x.npy"),
        "--logits",
        str(folder / "t.npy"),
        "--out",
        str(folder / "s.safetensors"),
        *HOW,
        *more,
    ]


def weights(folder):
    return {name: array.tobytes() for name, array in pm.Student.load(folder / "s.safetensors").arrays().items()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The weights that one process comes to."""
    folder = tmp_path_factory.mktemp("one")
    write_inputs_and_logits(folder)
    subprocess.run([sys.executable, "-m", "pymimic", *command(folder)], check=True, capture_output=True)
    return weights(folder)


@pytest.fixture
def files(tmp_path):
    write_inputs_and_logits(tmp_path)
    return tmp_path


def test_two_processes_write_what_one_does(files, undisturbed):
    done = torchrun(2, files)
    out, err = done.communicate(timeout=SECONDS)
    assert done.returncode == 0, err
    assert out.count("\n") == 1
    assert out.startswith(f"{files / 's.safetensors'} and 2 files of units beside it: ")
    assert weights(files) == undisturbed
    assert {path.name.partition(".")[0] for path in files.iterdir()} == {"x", "t", "s"}
    assert not list(files.glob("*checkpoint*"))
    both = []
    for size in (1, 2):
        words = ["predict", str(files / "s.safetensors"), "--inputs", str(files / "x.npy"), "--out", str(files / f"y{size}.npy")]
        done = started(size, files, words)
        out, err = done.communicate(timeout=SECONDS)
        assert done.returncode == 0, err
        assert out == f"{files / f'y{size}.npy'}: {ROWS} rows of {C} logits\n"
        both.append(np.load(files / f"y{size}.npy"))
    np.testing.assert_allclose(*both, atol=1e-5)


def test_two_processes_write_one_set(files, tmp_path):
    """And train on it: the same files as one process writes."""
    done = torchrun(2, files, "--set", str(files / "set"), "--logits-dtype", "float16")
    assert done.wait(SECONDS) == 0, done.stderr.read()
    one = pm.TransferSet(np.load(files / "x.npy"), np.load(files / "t.npy"))
    one.save(tmp_path / "one", logits_dtype="float16", progress=False)
    assert contents(files / "set") == contents(tmp_path / "one")
    assert len(weights(files)) == 5


def test_a_mistake_is_one_line(files):
    done = torchrun(2, files, "--hidden", "20")
    _, err = done.communicate(timeout=SECONDS)
    assert done.returncode != 0
    assert err.count("pymimic: ") == 1
    assert "pymimic: hidden: expected at least 33 units" in err


def test_what_one_process_alone_finds_is_said(files):
    """The second one looks for inputs where there are none."""
    script = files / "inputs_of_rank_0.py"
    script.write_text(
        "import os, sys\nfrom pymimic.cli import run\n"
        "run([word.replace('x.npy', 'none.npy') if os.environ['RANK'] == '1' else word for word in sys.argv[1:]])\n"
    )
    for words in (command(files), ["predict", str(files / "s"), "--inputs", str(files / "x.npy"), "--out", str(files / "y.npy")]):
        pm.Student(D, 64, C).save(files / "s")
        _, err = started(2, files, words, program=[str(script)]).communicate(timeout=SECONDS)
        assert err.count("pymimic: ") == 1
        assert "rank 1 stopped with FileNotFoundError: [Errno 2] inputs: No such file or directory" in err


def test_a_fresh_run_is_restarted_too(files, undisturbed):
    """After one with other options, whose checkpoint is there, and of which nothing is to be left."""
    first = torchrun(1, files, "--checkpoint", str(files / "run"), "--checkpoint-every", "1", "--lr", "0.01")
    until = time.monotonic() + SECONDS
    while not (files / "run").exists():
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(workers(first)[0], signal.SIGKILL)
    first.communicate(timeout=SECONDS)
    environment = {"TORCHELASTIC_RUN_ID": "x", "TORCHELASTIC_RESTART_COUNT": "1"}
    words = [sys.executable, "-m", "pymimic", *command(files, "--checkpoint", str(files / "run"), "--fresh")]
    subprocess.run(words, check=True, capture_output=True, env=os.environ | environment)
    assert weights(files) == undisturbed
    assert not list(files.glob("run*"))


def test_shares_are_looked_at_in_one_process_too(files):
    for shares, said in (("1,2", "expected one for each of 1 process, got '1,2'"), ("much", "expected measured, or numbers such as")):
        words = [sys.executable, "-m", "pymimic", *command(files, "--shares", shares)]
        assert f"pymimic: shares: {said}" in subprocess.run(words, capture_output=True, text=True, check=False).stderr


def workers(launcher):
    """The processes that a launcher has started."""
    try:
        with open(f"/proc/{launcher.pid}/task/{launcher.pid}/children") as file:
            return [int(number) for number in file.read().split()]
    except OSError:
        return []


@pytest.mark.timeout(60 + 40 * KILLS)
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
def test_killed_ranks_lose_nothing(files, undisturbed):
    """Torchrun starts the run again after each SIGKILL, and it comes to the weights of the run that nobody disturbed."""
    rng, killed = random.Random(0), 0
    while killed < KILLS:
        for path in files.glob("s.*"):
            path.unlink()
        with open(files / "said", "w") as said:  # a pipe that nobody reads yet would fill up and stop torchrun
            launcher = torchrun(2, files, restarts=1000, stderr=said)
        while launcher.poll() is None and killed < KILLS:
            time.sleep(rng.uniform(0.5, 4))
            if alive := workers(launcher):
                try:
                    os.kill(rng.choice(alive), signal.SIGKILL)
                    killed += 1
                except ProcessLookupError:
                    pass
        launcher.communicate(timeout=SECONDS)
        assert launcher.returncode == 0, (files / "said").read_text()
        assert weights(files) == undisturbed


def test_a_run_goes_on_with_fewer_processes(files, undisturbed):
    first = torchrun(3, files, "--checkpoint", str(files / "run"))
    until = time.monotonic() + SECONDS
    while not (files / "run").exists():
        assert first.poll() is None
        assert time.monotonic() < until
        time.sleep(0.05)
    os.kill(random.Random(1).choice(workers(first)), signal.SIGKILL)
    first.communicate(timeout=SECONDS)
    assert first.returncode != 0
    rest = torchrun(2, files, "--checkpoint", str(files / "run"), "--resume")
    _, err = rest.communicate(timeout=SECONDS)
    assert rest.returncode == 0, err
    assert weights(files) == undisturbed
    assert not list(files.glob("run*"))


def test_who_owns_what():
    said = subprocess.run(
        [sys.executable, "-m", "pymimic", "info", "--plan", f"64,{D},4,1000,{C}", "--ranks", "3"],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    assert "units 0 to 352" in said
    assert "units 672 to 1000" in said
    assert f"{4 * 64 * (4 + C)} bytes a step" in said
