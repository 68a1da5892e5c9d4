"""The whole command: every figure is there, bad options are refused, and nothing is left behind."""

import os
import signal
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip("typer")
pytest.importorskip("rich")

from bench_cases import comes_true

from pymimic.bench import command, machine, race, suite
from pymimic.bench.shapes import WHATS


def test_a_run_has_every_figure(result):
    rows = {(row["shape"], row["what"], row["peer"]): row for row in result["results"]}
    assert rows.keys() == {("mnist-8k", what, peer) for peer in ("pymimic", "numpy") for what in WHATS} | {
        ("mnist-8k", what, "pymimic_keep") for what in ("step", "adamw")
    }
    assert result["skipped"] == []
    assert not any(np.isnan(value) for row in rows.values() for value in row.values() if isinstance(value, float))
    for row in rows.values():
        assert row["B"] == (1 if row["what"] == "serving" else 37)
        assert 0 < row["low"] <= row["seconds"] <= row["high"]
        assert row["gflops"] * row["seconds"] * 1e9 == pytest.approx(row["operations"])
        assert row["of_ceiling"] > 0
        assert row["error"] < 2e-2
    assert rows["mnist-8k", "step", "pymimic"]["executed"] > rows["mnist-8k", "step", "pymimic_keep"]["executed"]
    assert result["machine"]["threads"] >= 1


def test_batches_replace_the_shapes_own_but_serving_is_one_row_once(monkeypatch, ceilings):
    seen = []
    monkeypatch.setattr(machine, "ceilings", lambda folder, **more: ceilings)
    monkeypatch.setattr(suite, "_run_case", lambda shape, whats, *rest: seen.append((shape.name, shape.B, list(whats))) or [])
    suite.run(["letter-4k"], ["step", "serving"], ["numpy"], [3, 5])
    suite.run(["letter-4k", "timit-8k"], ["serving"], ["numpy"])
    suite.run(["timit-50k"], ["forward"], ["numpy"])
    assert seen == [
        ("letter-4k", 3, ["step", "serving"]), ("letter-4k", 5, ["step"]), ("letter-4k", 1, ["serving"]), ("timit-8k", 1, ["serving"]),
        ("timit-50k", 1024, ["forward"]),
    ]  # fmt: skip


def test_what_is_terminated_leaves_nothing_behind(ceilings, tmp_path):
    code = (
        "from pymimic import cli\nfrom pymimic.bench import machine\n"
        f"machine.ceilings = lambda folder, **more: {ceilings}\n"
        "cli.run(['bench', '--shapes', 'mnist-8k', '--peers', 'numpy'])"
    )
    env = os.environ | {"PYTHONPATH": machine.python_path(), "TMPDIR": str(tmp_path)}
    run = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        assert comes_true(lambda: any(tmp_path.glob("pymimic-bench-*/expected_c.npy")), 60)
        run.terminate()
        assert run.wait(30) == 128 + signal.SIGTERM
    finally:
        run.kill()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shapes": "letter"}, "shapes: expected names among letter-4k"),
        ({"peers": "matlab"}, "peers: expected names among pymimic"),
        ({"what": ","}, "what: expected at least one name"),
        ({"batch": "0"}, "batch: expected whole numbers of at least 1, got '0'"),
        ({"seconds": 0.0}, "seconds: expected more than 0, got 0.0"),
        ({"seconds": float("nan")}, "seconds: expected more than 0, got nan"),
    ],
)
def test_command_bad_input(options, message):
    with pytest.raises(ValueError, match=message):
        command.bench(**({"shapes": "letter-4k", "peers": "", "batch": "", "what": "forward"} | options))


def test_seconds_are_those_of_a_race(monkeypatch):
    paces = []
    monkeypatch.setattr(suite, "run", lambda *rest, pace, **more: paces.append(pace) or {"results": [], "skipped": []})
    command.bench(shapes="letter-4k", seconds=7.0)
    command.bench(shapes="letter-4k", fast=True)
    assert paces == [race.Pace(seconds=7.0), None]


def test_command_wants_a_folder_before_the_work(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        command.bench(json=tmp_path / "nowhere" / "a.json")
