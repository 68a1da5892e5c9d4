"""Labelling into a folder: whatever stops it, what stands there is whole and it goes on, and damage is found."""

import contextlib
import errno
import hashlib
import json
import multiprocessing
import os
import signal
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from slope_teacher import TEACHER, C, D, contents, rows, says, uneven

from pymimic.data.teacher import from_callable
from pymimic.data.transfer import TransferSet
from pymimic.differences import differences
from pymimic.errors import ManifestError
from pymimic.progress import Progress


@pytest.fixture
def made(tmp_path):
    """A folder with 25 rows in shards of 10, and the inputs."""
    x = rows(25)
    TransferSet.create(tmp_path / "set", TEACHER, x, rows_per_shard=10)
    return tmp_path / "set", x


# The folder


def test_the_manifest_vouches_for_each_file(tmp_path):
    x = rows(25)
    TransferSet.create(tmp_path, TEACHER, uneven(x), rows_per_shard=10, source={"copies": 2}, standardise=True)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert (manifest["inputs"], manifest["outputs"], manifest["complete"]) == (D, C, True)
    assert manifest["teacher"] == {"kind": "callable", "name": "slope"}
    assert manifest["source"] == {"copies": 2}
    assert [(file["name"], file["rows"]) for file in manifest["files"]] == [
        (f"{kind}-0000{shard}.npy", n) for shard, n in enumerate([10, 10, 5]) for kind in ("inputs", "logits")
    ]
    for file in manifest["files"]:
        assert hashlib.sha256((tmp_path / file["name"]).read_bytes()).hexdigest() == file["sha256"]
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", *(file["name"] for file in manifest["files"])}
    assert np.array_equal(np.load(tmp_path / "inputs-00002.npy"), x[20:])
    assert np.allclose(manifest["standardisation"]["mean"], says(x).mean(0), atol=1e-6)


def test_moments_that_are_whole_numbers_of_many_digits_are_numbers(made):
    path = made[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    manifest["standardisation"] = {"mean": [0] * manifest["outputs"], "scale": [1 << 64] * manifest["outputs"]}
    path.write_text(json.dumps(manifest))
    assert TransferSet.open(made[0]).standardised().scale.tolist() == [2.0**64] * manifest["outputs"]


def flip(path):
    data = bytearray(path.read_bytes())
    data[-3] ^= 1
    path.write_bytes(data)


def cut(path):
    path.write_bytes(path.read_bytes()[:-4])


def without_bytes(path):
    """NumPy itself crashes there."""
    path.write_bytes(b"\x93NUMPY\x01\x00\x3b\x00{'descr': '<U0', 'fortran_order': False, 'shape': (-1,)}  \n")


def lengthen(path):
    path.write_bytes(path.read_bytes() + b"more")


def other_dtype(path):
    np.save(path, np.load(path).view(np.int32))


def other_shape(path):
    np.save(path, np.load(path).T.copy())


def text(path):
    path.write_text("not an array")


def pickled(path):
    np.save(path, np.array([{}]), allow_pickle=True)


@pytest.mark.parametrize("verify", [True, False])
@pytest.mark.parametrize("damage", [flip, cut, lengthen, without_bytes, other_dtype, other_shape, text, pickled, os.unlink])
@pytest.mark.parametrize("name", ["inputs-00001.npy", "logits-00002.npy"])
def test_a_file_that_is_not_the_manifests_is_named(made, name, damage, verify):
    folder, x = made
    damage(folder / name)
    if damage is flip and not verify:
        assert len(TransferSet.open(folder, verify=False)) == len(x)
        return
    with pytest.raises(ManifestError, match=f"{name}: expected"):
        TransferSet.open(folder, verify=verify)
    with pytest.raises(ManifestError, match=f"{name}: expected"):  # nor is it built upon
        TransferSet.create(folder, TEACHER, x, rows_per_shard=10)


def test_files_are_compared_with_their_sums_unless_told_otherwise(made):
    folder, _ = made
    flip(folder / "inputs-00001.npy")
    with pytest.raises(ManifestError, match=r"inputs-00001.npy: expected sha256"):
        TransferSet.open(folder)


def test_a_manifest_of_another_version_says_so(made):
    folder, x = made
    path = folder / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 7'))
    for call in (lambda: TransferSet.open(folder), lambda: TransferSet.create(folder, TEACHER, x, rows_per_shard=10)):
        with pytest.raises(ManifestError, match=r"manifest.json: .*got format 7 where this version of pymimic knows 1"):
            call()


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.update(format=2), lambda m: m.pop("format"), lambda m: m.pop("teacher"), lambda m: m.update(more=1),
        lambda m: m["files"].reverse(), lambda m: m["files"].pop(), lambda m: m["files"][0].update(name="../inputs-00000.npy"),
        lambda m: m["files"][0].update(rows="10"), lambda m: m["files"][0].pop("sha256"), lambda m: m.update(files=3),
        lambda m: m.update(files=[]), lambda m: m.update(standardisation={"mean": [0.0]}),
        lambda m: m.update(standardisation={"mean": [0.0], "scale": [1.0]}),
    ],
)  # fmt: skip
def test_a_manifest_that_is_not_ours_is_refused(made, change):
    path = made[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    change(manifest)
    path.write_text(json.dumps(manifest))
    with pytest.raises(ManifestError, match=r"manifest.json: expected a transfer set's manifest"):
        TransferSet.open(made[0])


def test_no_manifest_or_a_broken_one(made, tmp_path):
    folder, _ = made
    for broken in (b"{", b"\xff\xfe", b"[]", b"3", b"null", b'{"format": 1, "files": [3]}'):
        (folder / "manifest.json").write_bytes(broken)
        with pytest.raises(ManifestError, match=r"manifest.json: expected a transfer set's manifest"):
            TransferSet.open(folder)
    with pytest.raises(FileNotFoundError, match=r"directory: expected the folder of a transfer set, got no such folder.*nowhere"):
        TransferSet.open(tmp_path / "nowhere")
    with pytest.raises(FileNotFoundError, match=r"directory: expected a folder that TransferSet.create made, got one without manifest"):
        TransferSet.open(tmp_path)


def test_a_file_is_no_folder(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError, match=r"directory: expected the folder of a transfer set, got a file.*file"):
        TransferSet.open(tmp_path / "file")
    with pytest.raises(NotADirectoryError, match=r"directory: expected a folder, or a path where nothing is, got a file.*file"):
        TransferSet.create(tmp_path / "file", TEACHER, rows(25))


@pytest.mark.parametrize("place", [3, None, b"folder", ["folder"]])
def test_what_is_no_path_is_refused(place):
    with pytest.raises(TypeError, match=r"directory: expected a str or a pathlib.Path"):
        TransferSet.open(place)
    with pytest.raises(TypeError, match=r"directory: expected a str or a pathlib.Path"):
        TransferSet.create(place, TEACHER, rows(25))


def test_home_is_home(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert len(TransferSet.create("~/set", TEACHER, rows(25))) == 25
    assert len(TransferSet.open("~/set")) == 25
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_inputs_must_be_arrays(tmp_path):
    for inputs in (3, None, 2.5):
        with pytest.raises(TypeError, match=r"inputs: expected an array, or an iterable of arrays, got builtins\."):
            TransferSet.create(tmp_path / "set", TEACHER, inputs)


@given(st.dictionaries(st.sampled_from("abc"), st.one_of(st.integers(), st.lists(st.integers(), max_size=3)), min_size=1), st.data())
def test_a_message_has_what_differs_and_nothing_else(description, data):
    """One value of a nested description is another: its name and both values are said."""
    key = data.draw(st.sampled_from(sorted(description)))
    other = {**description, key: "other"}
    stored = {"kind": "x", "of": [description, {"same": 1}]}
    assert list(differences("teacher", stored, {"kind": "x", "of": [other, {"same": 1}]})) == [
        (f"teacher.of[0].{key}", repr(description[key]), "'other'")
    ]
    del other[key]
    assert [found[2] for found in differences("", description, other)] == ["nothing"]


# Stopping and going on


def test_labelling_goes_on_behind_the_last_whole_shard(tmp_path):
    x, weights = rows(290), np.random.default_rng(1).random(290, np.float32)
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    TransferSet.create(whole, TEACHER, x, weights, rows_per_shard=30, standardise=True)
    labelled, again = [], []

    def tired(x):
        if len(x) == 16:  # of a shard on disk
            again.append(x)
            return says(x)
        if len(labelled) % 4 == 3:
            labelled.append(0)
            raise KeyboardInterrupt
        labelled.append(len(x))
        return says(x)

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            TransferSet.create(stopped, from_callable(tired, "slope"), uneven(x), weights, rows_per_shard=30, standardise=True)
        with pytest.raises(ManifestError, match="expected a complete set"):
            TransferSet.open(stopped)
        assert not list(stopped.glob(".*"))
    ts = TransferSet.create(stopped, from_callable(tired, "slope"), uneven(x), weights, rows_per_shard=30, standardise=True)
    assert sum(labelled) == 290  # no shard twice
    assert contents(stopped) == contents(whole)
    assert np.array_equal(ts.batch(np.arange(290))[1], says(x))
    assert len(again) == 2 * 3  # of the first and of the last whole shard, when it went on
    TransferSet.create(stopped, from_callable(tired, "slope"), x, weights, rows_per_shard=30, standardise=True)
    assert sum(labelled) == 290
    assert contents(stopped) == contents(whole)


def label_slowly(folder, x):
    def slow(x):
        time.sleep(0.002)
        return says(x)

    TransferSet.create(folder, from_callable(slow, "slope"), uneven(x), rows_per_shard=10, progress=False)


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork, to kill many processes in a short time")
def test_killed_at_any_moment_it_goes_on_to_the_same_files(tmp_path):
    x = rows(1000)
    TransferSet.create(tmp_path / "whole", TEACHER, x, rows_per_shard=10)
    folder = tmp_path / "killed"
    fork = multiprocessing.get_context("fork")
    delay = np.random.default_rng(0)
    killed = 0
    for _ in range(20):
        process = fork.Process(target=label_slowly, args=(folder, x))
        process.start()
        time.sleep(delay.uniform(0.005, 0.06))
        if process.is_alive():
            os.kill(process.pid, signal.SIGKILL)
        process.join()
        killed += process.exitcode == -signal.SIGKILL
        if folder.exists():  # whatever stands there is whole
            for path in folder.glob("[!.]*.npy"):
                np.load(path)
    assert killed >= 3
    label_slowly(folder, x)
    assert contents(folder) == contents(tmp_path / "whole")


def die_drawing():
    Progress.get_lock().acquire()
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.timeout(20)
@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork, which hands locks on")
def test_a_child_killed_while_it_draws_its_bar_stops_nobody_else(tmp_path):
    Progress.get_lock()
    process = multiprocessing.get_context("fork").Process(target=die_drawing)
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    assert len(TransferSet.create(tmp_path / "set", TEACHER, rows(25), rows_per_shard=10)) == 25


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"teacher": from_callable(says, "other")}, "^teacher.name: expected 'slope', as .*manifest.json says, got '[^']*'$"),
        ({"source": "munge"}, "source: expected None"),
        ({"rows_per_shard": 11}, "rows_per_shard: expected 10"),
        ({"weights": np.ones(25, np.float32)}, "weighted: expected False"),
        ({"inputs": rows(25, seed=1)}, "inputs: expected the rows in .*inputs-00000.npy, got others"),
        ({"inputs": rows(25)[:, :4].copy()}, "inputs: expected the rows in .*inputs-00000.npy, got others"),
        ({"inputs": rows(25)[:24]}, "inputs: expected the rows in .*inputs-00002.npy, got others"),
        ({"inputs": rows(25)[:20]}, "inputs: expected more than 20 rows"),
        ({"inputs": np.concatenate([rows(25), rows(1)])}, "inputs: expected the rows in .*inputs-00002.npy, got others"),
    ],
)
def test_labels_of_another_teacher_or_of_other_inputs_are_not_mixed_in(made, change, message):
    folder, x = made
    before = contents(folder)
    arguments = {"teacher": TEACHER, "inputs": x, "rows_per_shard": 10, **change}
    with pytest.raises(ManifestError, match=message):
        TransferSet.create(folder, **arguments)
    assert contents(folder) == before


@pytest.mark.parametrize("change", [lambda y: -y, lambda y: y + 0.1, lambda y: y[:, :2], lambda y: np.roll(y, 1, axis=0)])
@pytest.mark.parametrize("whole", [1, 2, 3])
def test_another_teacher_of_the_same_description_is_noticed(tmp_path, change, whole):
    """Whether the folder is complete or not."""
    x = rows(60)

    def stopping():
        yield x[: 20 * whole]
        if whole < 3:
            raise KeyboardInterrupt

    with contextlib.suppress(KeyboardInterrupt):
        TransferSet.create(tmp_path, TEACHER, stopping(), rows_per_shard=20)
    before = contents(tmp_path)
    other = from_callable(lambda x: change(says(x)), "slope")
    with pytest.raises(ManifestError, match=r"^teacher: expected .*logits-00000.npy.*, got"):
        TransferSet.create(tmp_path, other, x, rows_per_shard=20)
    assert contents(tmp_path) == before
    rounded = from_callable(lambda x: says(x).astype(np.float16), "slope")  # one that another machine runs
    assert len(TransferSet.create(tmp_path, rounded, x, rows_per_shard=20)) == 60


def test_a_teacher_that_changed_later_is_noticed_in_the_last_shard(tmp_path):
    x = rows(60)
    mixed = iter([says(x[:20]), -says(x[20:40])])

    with pytest.raises(StopIteration):
        TransferSet.create(tmp_path, from_callable(lambda x: next(mixed), "slope"), x, rows_per_shard=20)
    with pytest.raises(ManifestError, match=r"^teacher: expected .*logits-00001.npy.* in row [23]"):
        TransferSet.create(tmp_path, TEACHER, x, rows_per_shard=20)


@pytest.mark.parametrize("logits", [np.zeros((1, 3)), np.full((1, 3), 1e30), np.array([[1e-30, 5, 7.0]])])
def test_constant_and_extreme_logits_are_the_same_again(tmp_path, logits):
    teacher = from_callable(lambda x: np.repeat(logits, len(x), axis=0), "constant")
    for _ in range(2):
        assert len(TransferSet.create(tmp_path, teacher, rows(25), rows_per_shard=10)) == 25


def test_numpys_numbers_in_descriptions_are_numbers(tmp_path):
    class Described:
        def logits(self, x):
            return says(x)

        def describe(self):
            return {"rate": np.float32(0.5), "seeds": np.arange(2), "deep": [np.bool_(True)]}

    for _ in range(2):
        TransferSet.create(tmp_path, Described(), rows(5), rows_per_shard=np.int64(3), source={"copies": np.int64(2)})
    assert json.loads((tmp_path / "manifest.json").read_text())["teacher"] == {"rate": 0.5, "seeds": [0, 1], "deep": [True]}
    for name, change in (("source", {"source": object()}), ("teacher", {"teacher": says})):
        with pytest.raises(TypeError, match=f"^{name}: expected .*, got"):
            TransferSet.create(**{"directory": tmp_path, "teacher": TEACHER, "inputs": rows(5), **change})


def stops(x, after):
    yield x[:after]
    raise KeyboardInterrupt


@pytest.mark.parametrize(("columns", "offset"), [(1, -6e5), (1, 0), (3, -6e5), (3, 6e5), (3, 1e3), (3, 0), (3, "by row")])
def test_an_offset_of_the_logits_hides_no_other_teacher(tmp_path, columns, offset):
    x = rows(60)
    moved = 1e3 * x[:, :1] - 6e5 if offset == "by row" else offset
    kept = {row.tobytes(): i for i, row in enumerate(x)}

    def teacher(sign, noise=0.0):
        def logits(x):
            at = [kept[row.tobytes()] for row in x]
            here = moved[at] if offset == "by row" else moved
            return (sign * says(x)[:, :columns] * (1 + noise) + here).astype(np.float32)

        return from_callable(logits, "moved")

    with pytest.raises(KeyboardInterrupt):
        TransferSet.create(tmp_path, teacher(1), stops(x, 40), rows_per_shard=20)
    with pytest.raises(ManifestError, match=r"^teacher: expected the logits in .* again"):
        TransferSet.create(tmp_path, teacher(-1), x, rows_per_shard=20)
    assert len(TransferSet.create(tmp_path, teacher(1, 1e-4), x, rows_per_shard=20)) == 60


def test_a_description_with_nan_in_it_is_the_same_again(tmp_path):
    source = {"missing": float("nan"), "deep": [1, np.float64("nan")]}
    for _ in range(2):
        assert len(TransferSet.create(tmp_path, TEACHER, rows(5), source=source)) == 5
    with pytest.raises(ManifestError, match=r"source.missing: expected nan, as .* says, got 0"):
        TransferSet.create(tmp_path, TEACHER, rows(5), source=source | {"missing": 0})


def test_descriptions_that_json_cannot_hold_are_named(tmp_path):
    class Odd:
        logits = staticmethod(says)

        def __init__(self, description):
            self.describe = lambda: description

    circle, deep = [], []
    circle.append(circle)
    for _ in range(100_000):
        deep = [deep]
    for bad in ({(1, 2): 3}, circle, deep, {"a": {1, 2}}, b"bytes", np.longdouble(1), 1j, {np.int64(1): 2}):
        with pytest.raises(TypeError, match=r"^source: expected what JSON can hold, got "):
            TransferSet.create(tmp_path / "set", TEACHER, rows(5), source=bad)
        with pytest.raises(TypeError, match=r"^teacher: expected what JSON can hold, got "):
            TransferSet.create(tmp_path / "set", Odd(bad), rows(5))
    assert not (tmp_path / "set").exists()


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": "5"}, {"outputs": 3.0}, {"outputs": -1}, {"rows_per_shard": 0}, {"weighted": "no"}, {"complete": 1},
        *({"standardisation": {"mean": mean, "scale": scale}} for mean, scale in (
            ([0, 0, float("nan")], [1, 1, 1]), ([0, 0, 0], [1, 1, 0]), ([0, 0, "a"], [1, 1, 1]), ("abc", "abc"), ([0, 0, 0], [1, 1, -1]),
        )),
    ],
)  # fmt: skip
def test_a_manifest_with_values_that_are_none_is_refused(made, change):
    folder, _ = made
    path = folder / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ManifestError, match=r"manifest.json: expected a transfer set's manifest, got "):
        TransferSet.open(folder)


def test_a_folder_that_cannot_be_written_to_is_found_before_the_teacher_is_asked(tmp_path, monkeypatch):
    asked = []
    TransferSet.create(tmp_path / "whole", TEACHER, rows(5))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(PermissionError, match="expected a folder that can be written to"):
        TransferSet.create(tmp_path / "set", from_callable(lambda x: asked.append(x) or says(x)), rows(5))
    assert asked == []
    assert len(TransferSet.create(tmp_path / "whole", TEACHER, rows(5))) == 5  # nothing is to be written


def test_only_one_labels_into_a_folder(tmp_path):
    x, inner = rows(25), []

    def nosy(rows):
        with pytest.raises(BlockingIOError, match="expected a folder that nobody else labels into") as caught:
            TransferSet.create(tmp_path, TEACHER, x, rows_per_shard=10)
        inner.append(caught.value.filename)
        return says(rows)

    pytest.importorskip("fcntl")
    TransferSet.create(tmp_path, from_callable(nosy, "slope"), x, rows_per_shard=10)
    assert inner == [str(tmp_path)] * 3
    assert contents(tmp_path).keys() == {"manifest.json", *(f"{kind}-0000{i}.npy" for kind in ("inputs", "logits") for i in range(3))}
    TransferSet.create(tmp_path, TEACHER, x, rows_per_shard=10)  # the lock is gone


def test_where_there_are_no_locks_another_process_is_noticed_by_its_shards(tmp_path, monkeypatch):
    fcntl = pytest.importorskip("fcntl")

    def unsupported(*_):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", unsupported)
    x, calls = rows(25), []

    def slow(rows):
        calls.append(len(rows))
        if len(calls) == 2:
            TransferSet.create(tmp_path, TEACHER, x, rows_per_shard=10)
        return says(rows)

    with pytest.raises(ManifestError, match=r"manifest.json: expected 1 shards as this process left them, got others"):
        TransferSet.create(tmp_path, from_callable(slow, "slope"), x, rows_per_shard=10)
    assert np.array_equal(TransferSet.open(tmp_path).batch(np.arange(25))[1], says(x))


def test_rows_beyond_a_complete_set_are_refused(tmp_path):
    TransferSet.create(tmp_path, TEACHER, rows(20), rows_per_shard=10)
    with pytest.raises(ManifestError, match=r"inputs: expected 20 rows, as .* says, got more"):
        TransferSet.create(tmp_path, TEACHER, np.concatenate([rows(20), rows(5)]), rows_per_shard=10)


@pytest.mark.parametrize("call", range(26))
def test_a_full_disk_leaves_whole_shards_and_nothing_half_written(tmp_path, monkeypatch, call):
    """Eight calls of fsync a shard: the manifest, two files, the manifest again, and the folder after each; two more at the end."""
    x, calls, sync = rows(25), [], os.fsync

    def full(descriptor):
        calls.append(descriptor)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space left"):
            TransferSet.create(tmp_path, TEACHER, x, rows_per_shard=10)
    there = {path.name for path in tmp_path.iterdir()}
    manifest = json.loads((tmp_path / "manifest.json").read_text()) if there else {"files": []}
    assert there == {file["name"] for file in manifest["files"]} | ({"manifest.json"} if there else set())
    assert len(manifest["files"]) // 2 == (call + 1) // 8
    ts = TransferSet.create(tmp_path, TEACHER, x, rows_per_shard=10)
    assert np.array_equal(ts.batch(np.arange(25))[1], says(x))


@pytest.mark.parametrize("name", ["inputs-00000.npy", "logits-00002.npy", "weights-00000.npy", "inputs-123456.npy"])
def test_files_of_the_users_own_are_neither_overwritten_nor_removed(tmp_path, name):
    asked = []
    teacher = from_callable(lambda x: asked.append(x) or says(x), "slope")
    np.save(tmp_path / name, np.arange(6.0))
    before = contents(tmp_path)
    with pytest.raises(
        FileExistsError, match=f"directory: expected a folder without files of .*, got {name}, and no manifest.json"
    ) as caught:
        TransferSet.create(tmp_path, teacher, rows(25), np.ones(25, np.float32), rows_per_shard=10)
    assert caught.value.filename == str(tmp_path)
    assert asked == []
    assert contents(tmp_path) == before


def test_files_that_a_set_would_not_write_are_left_alone(tmp_path):
    (tmp_path / "weights-00000.npy").write_text("mine")
    (tmp_path / "inputs-0.npy").write_text("mine")
    TransferSet.create(tmp_path, TEACHER, rows(5))
    assert (tmp_path / "weights-00000.npy").read_text() == (tmp_path / "inputs-0.npy").read_text() == "mine"


def test_files_beside_an_unfinished_set_that_no_stop_left_are_not_overwritten(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        TransferSet.create(tmp_path, TEACHER, stops(rows(25), 10), rows_per_shard=10)
    (tmp_path / "logits-00002.npy").write_text("mine")
    with pytest.raises(FileExistsError, match=r"got logits-00002.npy, and manifest.json knows nothing of it"):
        TransferSet.create(tmp_path, TEACHER, rows(25), rows_per_shard=10)
    assert (tmp_path / "logits-00002.npy").read_text() == "mine"


@pytest.mark.parametrize("error", [OSError(errno.ENOSPC, "No space left on device"), TypeError("odd"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", range(4))
def test_what_fails_midway_removes_only_files_of_its_own(tmp_path, monkeypatch, error, call):
    (tmp_path / "notes.txt").write_text("mine")
    calls, replace = [], os.replace

    def fails(source, target):
        calls.append(target)
        if len(calls) > call:
            raise error
        replace(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", fails)
        with pytest.raises(type(error)):
            TransferSet.create(tmp_path, TEACHER, rows(5), progress=False)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def killed_in_shard(folder, x, shard, call, **more):
    """A process that labels, killed at that call of os.replace of that shard: two manifests' and, between them, two files'."""
    calls, replace = [], os.replace

    def dies(source, target):
        calls.append(target)
        if len(calls) > 4 * shard + call:
            os._exit(0)
        replace(source, target)

    def label():
        os.replace = dies
        TransferSet.create(folder, TEACHER, x, rows_per_shard=10, progress=False, **more)

    process = multiprocessing.get_context("fork").Process(target=label)
    process.start()
    process.join()
    assert process.exitcode == 0


needs_fork = pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="needs fork, to die in the midst of a call")


@needs_fork
@pytest.mark.parametrize("call", [1, 2, 3])
@pytest.mark.parametrize("shard", [0, 1])
def test_what_a_killed_process_left_of_a_shard_is_made_again(tmp_path, shard, call):
    x = rows(25)
    killed_in_shard(tmp_path, x, shard, call)
    left = {f"{kind}-0000{shard}.npy" for kind in ("logits", "inputs")} & contents(tmp_path).keys()
    assert len(left) == call - 1
    assert np.array_equal(TransferSet.create(tmp_path, TEACHER, x, rows_per_shard=10).batch(np.arange(25))[1], says(x))
    assert "unfinished" not in json.loads((tmp_path / "manifest.json").read_text())


@needs_fork
def test_a_folder_in_which_a_process_was_killed_before_its_first_shard_was_whole_is_begun_anew(tmp_path):
    killed_in_shard(tmp_path, rows(25, seed=1), 0, 3, compress=True)
    assert (tmp_path / "inputs-00000.npy.gz").exists()
    x, another = rows(25), from_callable(says, "another")
    assert np.array_equal(TransferSet.create(tmp_path, another, x, rows_per_shard=7).batch(np.arange(25))[1], says(x))
    assert not list(tmp_path.glob("*.gz"))


@needs_fork
@pytest.mark.parametrize("name", ["inputs-00001.npy", "logits-00001.npy"])
@pytest.mark.parametrize("call", [0, 1, 3])
def test_a_users_file_of_the_next_shards_name_is_not_overwritten(tmp_path, name, call):
    """Whether the process was killed before, in or after the shard's files."""
    x, asked = rows(25), []
    killed_in_shard(tmp_path, x, 1, call)
    (tmp_path / name).write_bytes(b"mine")
    teacher = from_callable(lambda x: asked.append(len(x)) or says(x), "slope")
    with pytest.raises(FileExistsError, match=f"got {name}, and manifest.json knows nothing of it: choose another folder, or move"):
        TransferSet.create(tmp_path, teacher, x, rows_per_shard=10)
    assert (tmp_path / name).read_bytes() == b"mine"
    assert asked == []
    (tmp_path / name).unlink()
    assert len(TransferSet.create(tmp_path, teacher, x, rows_per_shard=10)) == 25


def test_a_users_file_that_comes_while_rows_are_labelled_is_not_overwritten(tmp_path):
    def teacher(x):
        (tmp_path / "inputs-00000.npy").write_bytes(b"mine")
        return says(x)

    with pytest.raises(FileExistsError, match=r"got inputs-00000.npy, and no manifest.json is there"):
        TransferSet.create(tmp_path, from_callable(teacher), rows(5))
    assert contents(tmp_path) == {"inputs-00000.npy": b"mine"}


def test_it_is_silent_when_output_is_no_terminal(tmp_path, capfd):
    assert not sys.stderr.isatty()
    TransferSet.create(tmp_path, TEACHER, rows(25), rows_per_shard=10)
    assert capfd.readouterr() == ("", "")
