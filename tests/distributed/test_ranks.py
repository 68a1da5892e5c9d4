"""Several processes train one net."""

import signal
import time

import in_ranks as there
import numpy as np
import pytest
import ranks

import pymimic as pm
from pymimic.distributed import Group
from pymimic.files import read_safetensors
from pymimic.unit_files import read_arrays


def test_two_ranks_make_the_steps_of_one(tmp_path):
    want = there.fifty_steps(pm.ShallowWeights(**there.WEIGHTS))
    both = ranks.together(2, there.stepped, tmp_path)
    for name in ("loss", "dz", "c"):
        assert both[0][name].tobytes() == both[1][name].tobytes()
        np.testing.assert_allclose(both[0][name], want[name], rtol=1e-6, atol=1e-6 * np.abs(want[name]).max())
    for name in "UbW":
        units = np.concatenate([own[name] for own in both])
        np.testing.assert_allclose(units, want[name], rtol=1e-6, atol=1e-6 * np.abs(want[name]).max())


@pytest.mark.parametrize("size", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_fixed_parts_give_the_bits_of_one_process(tmp_path, size):
    want = there.stepped(Group(), reproducible=True)
    found = ranks.together(size, there.stepped, tmp_path, reproducible=True)
    for name in "UbW":
        assert np.concatenate([own[name] for own in found]).tobytes() == want[name].tobytes()
    for own in found:
        assert all(own[name].tobytes() == np.asarray(want[name]).tobytes() for name in ("loss", "dz", "c"))


@pytest.mark.parametrize("hidden", [10_000, pytest.param(100_000, marks=pytest.mark.slow)])
def test_a_step_sends_the_same_bytes_whatever_H_is(tmp_path, hidden):
    for own in ranks.together(2, there.counted, tmp_path, hidden=hidden):
        assert own["bytes"] == 4 * there.B * (there.C + there.K)


@pytest.mark.slow
@pytest.mark.parametrize("settings", [{}, {"ema": 0.9, "clip_norm": 0.5, "keep_best": True}], ids=["plain", "everything"])
def test_a_student_on_two_ranks_is_that_of_one_process(tmp_path, settings):
    want = there.run(**settings)
    for found in ranks.together(2, there.trained, tmp_path, **settings):
        assert there.digest(found) == there.digest({name: np.asarray(array) for name, array in want.items()})


@pytest.mark.slow
def test_without_fixed_parts_it_is_near(tmp_path):
    want, found = there.run(reproducible=False), ranks.together(2, there.trained, tmp_path, reproducible=False)
    assert there.digest(found[0]) == there.digest(found[1])
    np.testing.assert_allclose(found[0]["losses"], want["losses"], rtol=1e-5)


@pytest.mark.slow
def test_a_mesh_of_rows_and_units_is_near(tmp_path):
    """Two by two; the masks are those of one process."""
    want = there.run(reproducible=False, clip_norm=1e9)
    found = ranks.together(4, there.in_a_mesh, tmp_path)
    assert sorted((int(own.pop("rank")), int(own.pop("row"))) for own in found) == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert len({there.digest(own) for own in found}) == 1
    np.testing.assert_allclose(found[0]["losses"], want["losses"], rtol=1e-4)
    assert len(list(tmp_path.glob("run.*"))) == 2


@pytest.mark.slow
def test_a_checkpoint_goes_from_four_ranks_to_two_and_to_one(tmp_path):
    want = {name: np.asarray(array) for name, array in there.run(epochs=4).items()}
    where = str(tmp_path / "run")
    ranks.together(4, there.trained, tmp_path / "four", checkpoint=where, epochs=2, whole=False)
    assert len(list(tmp_path.glob("run.*"))) == 4
    ranks.together(2, there.trained, tmp_path / "two", checkpoint=where, resume=where, epochs=3, whole=False)
    assert len(list(tmp_path.glob("run.*"))) == 2
    last = there.run(Group(), checkpoint=where, resume=where, epochs=4, whole=False)
    assert list(tmp_path.glob("run.*")) == []
    assert there.digest({name: np.asarray(array) for name, array in last.items()}) == there.digest(want)


def test_a_sharded_student_is_saved_by_all_and_read_by_one(tmp_path):
    both = ranks.together(2, there.saved, tmp_path)
    for own in both:
        assert own["before"].tobytes() == own["after"].tobytes() == both[0]["before"].tobytes()
        assert own["first"].tobytes() == own["before"][:3].tobytes()
    whole = pm.Student.load(tmp_path / "student")
    np.testing.assert_allclose(whole.predict(there.X), both[0]["before"], atol=1e-5)
    assert whole.score(there.X, there.T.argmax(axis=1)) == pytest.approx(both[0]["accuracy"], abs=2e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("data", "rows: expected the same on all 2 processes"),
        ("rate", "learning_rate: expected the same on all 2 processes"),
        ("weights", "student: expected the same on all 2 processes"),
        ("shares", "units: expected the same on all 2 processes"),
        ("one row", "data: expected the same rows on all processes, got others, as their weights came to differ: V: "),
        ("standardisation", "mean: expected the same on all 2 processes"),
        ("validation", "validation: expected the same on all 2 processes"),
        ("checkpoint", "checkpoint: expected the same on all 2 processes"),
        ("checkpoint_every", "checkpoint_every: expected the same on all 2 processes"),
        ("patience", "patience: expected the same on all 2 processes"),
        ("calls", "group: expected all processes to make the same calls, but rank "),
        ("units", "hidden: expected at least 33 units, 32 for each of 2 processes, got 32"),
    ],
)
def test_ranks_that_differ_are_told_so(tmp_path, what, said):
    for own in ranks.together(2, there.refused, tmp_path, what=what):
        assert said in str(own["error"])


def test_an_error_on_one_rank_ends_the_others(tmp_path):
    fine, odd = ranks.together(2, there.refused, tmp_path, what="shape")
    assert str(odd["error"]).startswith("ValueError: data: ")
    assert str(fine["error"]).startswith("GroupError: group: expected all 2 processes to go on, but rank 1 stopped with ValueError: data: ")


def test_what_another_run_writes_meanwhile_is_not_overwritten(tmp_path):
    first, other = (str(own["error"]) for own in ranks.together(2, there.overtaken, tmp_path))
    assert first.startswith("ValueError: checkpoint: expected no file, or this run's, in ")
    assert other.startswith("GroupError: group: expected all 2 processes to go on, but rank 0 stopped with ValueError: checkpoint: ")
    assert list(read_safetensors(tmp_path / "run")[0]) == ["c"]


def under_way(folder, processes):
    """Wait for the first checkpoint."""
    waited = time.monotonic() + ranks.SECONDS
    while not (folder / "run").exists():
        assert time.monotonic() < waited
        assert all(process.poll() is None for process in processes)
        time.sleep(0.05)


def test_a_rank_that_is_killed_ends_the_others_and_loses_nothing(tmp_path):
    processes = ranks.begin(2, there.until_killed, tmp_path)
    under_way(tmp_path, processes)
    processes[1].send_signal(signal.SIGKILL)
    began = time.monotonic()
    codes, said = ranks.end(processes)
    assert time.monotonic() - began < 60
    assert codes[1] == -signal.SIGKILL
    assert codes[0] != 0
    assert "rank 0 waits for rank 1, which is gone" in said[0]
    assert read_arrays(tmp_path / "run", "checkpoint")[1]["counters"]["step"] >= 1


@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_others(tmp_path):
    processes = ranks.begin(2, there.until_killed, tmp_path, patience=10)
    under_way(tmp_path, processes)
    processes[1].send_signal(signal.SIGSTOP)
    began = time.monotonic()
    _, said = processes[0].communicate(timeout=ranks.SECONDS)
    assert 5 < time.monotonic() - began < 60
    assert processes[0].returncode != 0
    assert "rank 0 waits for another one, which is on another host or does not answer" in said
    processes[1].kill()
    processes[1].communicate()
    assert read_arrays(tmp_path / "run", "checkpoint")[1]["counters"]["step"] >= 1


@pytest.mark.slow
def test_an_interrupt_of_one_rank_stops_all_after_the_same_step(tmp_path):
    processes = ranks.begin(2, there.until_killed, tmp_path)
    under_way(tmp_path, processes)
    processes[1].send_signal(signal.SIGINT)
    codes, said = ranks.end(processes)
    assert 0 not in codes
    assert all("KeyboardInterrupt: stopped in epoch" in words for words in said)
    assert len(list(tmp_path.glob("run.*"))) == 2
    assert read_arrays(tmp_path / "run", "checkpoint")[1]["counters"]["step"] >= 1
