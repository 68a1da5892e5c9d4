"""Sets that are kept: those that earlier versions wrote open, go on and train, and any set is written again in other bytes."""

import shutil
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
from slope_teacher import TEACHER, C, D, contents, rows, says

from pymimic import ManifestError, TransferSet, from_callable
from pymimic.data import labelling

OLD = Path(__file__).parent / "support" / "old_sets"  # written by version 0.1.0 before it knew top_logits and compress
X = np.linspace(-4, 4, 100, dtype=np.float32).reshape(20, 5)
WEIGHTS = np.linspace(0, 1, 20, dtype=np.float32)
ALL = np.arange(20)
SMALL = {"inputs_dtype": "uint8", "logits_dtype": "float16", "inputs_range": (-4, 4)}


@pytest.fixture
def old(tmp_path):
    return Path(shutil.copytree(OLD, tmp_path / "old"))


# Earlier versions' sets


def test_a_complete_set_opens_with_its_moments(old):
    ts = TransferSet.open(old / "plain")
    x, t, weights = ts.batch(ALL)
    assert np.array_equal(x, X)
    assert np.allclose(t, says(X), atol=1e-5)
    assert np.array_equal(weights, WEIGHTS)
    assert np.allclose(ts.standardised().mean, says(X).mean(axis=0), atol=1e-5)
    before = contents(old / "plain")
    again = TransferSet.create(old / "plain", TEACHER, X, WEIGHTS, rows_per_shard=12, source={"rows": 20}, standardise=True)
    assert len(again) == 20
    assert contents(old / "plain") == before


def test_a_set_in_fewer_bytes_opens(old):
    x, t, weights = TransferSet.open(old / "small").batch(ALL)
    assert 0 < np.abs(x - X).max() <= 4 / 255 + 1e-6
    assert np.allclose(t, says(x), rtol=2**-10, atol=1e-5)
    assert weights is None


def test_an_unfinished_set_goes_on_in_its_own_bytes(old):
    folder = old / "unfinished"
    for other in ({"top_logits": 1}, {"compress": True}, {"logits_dtype": "float32"}):
        with pytest.raises(ManifestError, match=r"^storage.\w+: expected .*, as .*manifest.json says, got "):
            TransferSet.create(folder, TEACHER, X, rows_per_shard=12, **{**SMALL, **other})
    assert contents(folder) == contents(OLD / "unfinished")
    made = TransferSet.create(folder, TEACHER, X, rows_per_shard=12, **SMALL)
    assert contents(folder).keys() == contents(OLD / "small").keys()
    assert all(np.allclose(a, b, rtol=2**-9, atol=1e-5) for a, b in zip(made.batch(ALL)[:2], TransferSet.open(OLD / "small").batch(ALL)))


# Written again


@pytest.mark.parametrize("of", ["memory", "maps", "folder", "compressed folder"])
def test_any_set_is_written_as_create_would_write_it(tmp_path, of):
    x, weights = rows(50), np.linspace(0, 1, 50).astype(np.float32)
    more = {"rows_per_shard": 20, "progress": False, "standardise": True, **SMALL, "inputs_range": (-5, 5), "compress": True}
    if "folder" in of:
        ts = TransferSet.create(tmp_path / "a", TEACHER, x, weights, rows_per_shard=7, progress=False, compress="compressed" in of)
    elif of == "maps":
        for name, array in (("x", x), ("t", says(x)), ("w", weights)):
            np.save(tmp_path / f"{name}.npy", array)
        ts = TransferSet(*(np.load(tmp_path / f"{name}.npy", mmap_mode="r") for name in "xtw"))
    else:
        ts = TransferSet(x, says(x), weights)
    saved = ts.save(tmp_path / "saved", **more)
    assert repr(saved) == f"<TransferSet: 50 rows, {D} inputs -> {C} outputs, in {str(tmp_path / 'saved')!r}>"
    recorded = from_callable(lambda _: next(answers), "slope")
    answers = iter(np.split(says(x), [20, 40]))
    TransferSet.create(tmp_path / "created", recorded, x, weights, **more)
    one, other = contents(tmp_path / "saved"), contents(tmp_path / "created")
    if "folder" not in of:
        assert b'"kind": "logits"' in one.pop("manifest.json")
        del other["manifest.json"]
    assert one == other


def test_the_largest_logits_of_a_set(tmp_path):
    ts = TransferSet(rows(50), 9 * says(rows(50)))
    t = ts.save(tmp_path, top_logits=2).batch(np.arange(50))[1]
    order = np.argsort(t, axis=1)
    assert np.array_equal(np.take_along_axis(t, order[:, 1:], 1), np.take_along_axis(9 * says(rows(50)), order[:, 1:], 1))
    with pytest.raises(ValueError, match="top_logits: expected fewer than the teacher's 3 logits, got 3"):
        ts.save(tmp_path / "more", top_logits=3)


def test_what_stands_there_is_not_written_again_nor_mixed(tmp_path):
    x = rows(50)
    ts = TransferSet(x, says(x))
    ts.save(tmp_path, rows_per_shard=20)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    ts.save(tmp_path, rows_per_shard=20)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == before
    for other in (TransferSet(x + 1, says(x)), TransferSet(x, -says(x))):
        with pytest.raises(ManifestError, match=r"^(inputs|logits): expected the rows in .*-00000.npy, got"):
            other.save(tmp_path, rows_per_shard=20)
    with pytest.raises(ManifestError, match=r"^storage: expected None, as .* says, got "):
        TransferSet.open(tmp_path).save(tmp_path, rows_per_shard=20, compress=True)


def corrected(t, row):
    """The logits with one that is another, by less than a teacher's answers may differ."""
    other = t.copy()
    other[row, t[row].argmax()] += 2**-8
    return other


@pytest.mark.parametrize("stopped", [False, True])
@pytest.mark.parametrize("kept", [{}, {"logits_dtype": "float16"}, {"top_logits": 2}, {"compress": True}])
def test_logits_that_differ_in_one_row_are_refused_whichever_it_is(tmp_path, kept, stopped, monkeypatch):
    """Also behind a save that was stopped after two of four shards."""
    x, t, folder = rows(80), np.round(says(rows(80)), 2), tmp_path / "set"
    more = {"rows_per_shard": 20, "progress": False, **kept}
    if stopped:
        write, shards = labelling.write_shard, iter(range(2))
        monkeypatch.setattr(labelling, "write_shard", lambda *given: (next(shards), write(*given)))
    with pytest.raises(StopIteration) if stopped else nullcontext():
        TransferSet(x, t).save(folder, **more)
    monkeypatch.undo()
    before = contents(folder)
    for row in range(1, 40):
        with pytest.raises(ManifestError, match=rf"^logits: expected the rows in .*-0000{row // 20}.npy\S*, got another in row {row}:"):
            TransferSet(x, corrected(t, row)).save(folder, **more)
    with pytest.raises(ManifestError, match=r"^logits: expected 3 columns, as in .*logits-00000.npy\S*, got 4"):
        TransferSet(x, np.hstack([t, t[:, :1]])).save(folder, **more)
    assert contents(folder) == before
    TransferSet(x, t).save(folder, **more)
    TransferSet(x, t).save(tmp_path / "fresh", **more)
    assert contents(folder) == contents(tmp_path / "fresh")


def test_what_a_folder_cannot_hold_is_refused(tmp_path):
    ts = TransferSet(rows(5), says(rows(5)), labels=np.zeros(5, int))
    for bad, kind in (
        (ts, "labels"),
        (ts.standardised().set, "standardised logits"),
        (TransferSet(rows(5), says(rows(5))).standardised().set, "standard"),
    ):
        with pytest.raises(ValueError, match=f"^save: expected a set of plain logits, as folders hold no others, got one with {kind}"):
            bad.save(tmp_path / "set")
    assert not (tmp_path / "set").exists()
