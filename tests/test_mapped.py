"""Data and teachers pickle for other processes, maps as their paths; files that change while they are read are noticed."""

import copy
import multiprocessing
import os
import pickle

import numpy as np
import pytest
from slope_teacher import TEACHER, rows, says

from pymimic import DeepNet, Ensemble, LabelledSet, ManifestError, TransferSet, from_callable, from_sklearn, munge
from pymimic.data.mapped import mapped_file

X = rows(25)


class Classifier:
    classes_ = np.arange(3)

    def predict_proba(self, x):
        return np.full((len(x), 3), 1 / 3)


def npy(path, array):
    np.save(path, array)
    return np.load(path, mmap_mode="r")


def same(a, b):
    return len(a) == len(b) and all(
        (one is None and other is None) or np.array_equal(one, other)
        for one, other in zip(a.batch(np.arange(len(a))), b.batch(np.arange(len(b))))
    )


def copies(thing):
    return pickle.loads(pickle.dumps(thing)), copy.copy(thing), copy.deepcopy(thing)


# Teachers


@pytest.mark.parametrize("teacher", [from_callable(says, "slope"), from_sklearn(Classifier()), Ensemble([TEACHER, DeepNet([5, 3])])])
def test_teachers_pickle(teacher):
    for again in copies(teacher):
        assert np.array_equal(again.logits(X), teacher.logits(X))
        assert again.describe() == teacher.describe()
        assert again.classes == teacher.classes


def test_a_fitted_classifiers_teacher_pickles():
    tree = pytest.importorskip("sklearn.tree").DecisionTreeClassifier(random_state=0).fit(X, np.arange(25) % 3)
    teacher = from_sklearn(tree, classes=range(4))
    for again in copies(teacher):
        assert np.array_equal(again.logits(X), teacher.logits(X))
        assert again.describe() == teacher.describe()


def test_what_cannot_be_pickled_is_what_python_cannot_pickle():
    with pytest.raises((AttributeError, pickle.PicklingError), match="lambda"):
        pickle.dumps(from_callable(lambda x: x))
    assert copy.deepcopy(from_callable(lambda x: x)).logits(X) is not None
    with pytest.raises(TypeError, match="generator"):
        pickle.dumps(munge(X, 1, 0.5, 1.0, 0))


# Sets


@pytest.mark.parametrize("weights", [None, np.random.default_rng(1).random(25, np.float32)])
def test_sets_in_memory_pickle_as_their_arrays(weights):
    ts = TransferSet(X, says(X), weights)
    for data in (ts, ts.standardised().set, LabelledSet(X, np.arange(25) % 3, 3, weights)):
        for again in copies(data):
            assert same(again, data)
            assert (again.inputs, again.outputs) == (data.inputs, data.outputs)


def from_maps(folder):
    return TransferSet(npy(folder / "x.npy", np.tile(X, (400, 1))), npy(folder / "t.npy", says(np.tile(X, (400, 1)))))


def part_of_a_map(folder):
    return LabelledSet(npy(folder / "x.npy", np.tile(X, (800, 1)))[3000:13000], np.zeros(10000, np.int64), 3)


def on_disk(folder):
    return TransferSet.create(folder / "set", TEACHER, np.tile(X, (400, 1)), rows_per_shard=1500, standardise=True)


def opened(folder):
    on_disk(folder)
    return TransferSet.open(folder / "set")


@pytest.mark.parametrize("make", [from_maps, part_of_a_map, on_disk, opened, lambda folder: opened(folder).standardised().set])
def test_mapped_sets_pickle_as_their_paths(tmp_path, make, monkeypatch):
    data = make(tmp_path)
    text = pickle.dumps(data)
    assert len(text) < 85_000 < data.batch(np.arange(10_000))[0].nbytes  # the labels of a LabelledSet are in it
    monkeypatch.chdir(tmp_path.parent)
    again = pickle.loads(text)
    assert same(again, data)
    assert mapped_file(again.x if isinstance(again, LabelledSet) else again._rows.shards[0][0]) is not None
    if isinstance(data, TransferSet) and data._undo is None:
        assert np.array_equal(again.standardised().mean, data.standardised().mean)


def test_a_relative_path_is_found_from_elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    TransferSet.create("set", TEACHER, X)
    np.save("x.npy", X)
    sets = TransferSet.open("set"), TransferSet(np.load("x.npy", mmap_mode="r"), X)
    texts = [pickle.dumps(data) for data in sets]
    (tmp_path / "sub").mkdir()
    monkeypatch.chdir("sub")
    for text, data in zip(texts, sets):
        assert same(pickle.loads(text), data)


def test_a_set_is_verified_again_as_it_was_when_it_was_opened(tmp_path):
    TransferSet.create(tmp_path, TEACHER, X, rows_per_shard=10)
    texts = {verify: pickle.dumps(TransferSet.open(tmp_path, verify=verify)) for verify in (True, False)}
    file = tmp_path / "inputs-00001.npy"
    data = bytearray(file.read_bytes())
    data[-1] ^= 1
    file.write_bytes(data)
    with pytest.raises(ManifestError, match=r"inputs-00001.npy: expected sha256"):
        pickle.loads(texts[True])
    assert len(pickle.loads(texts[False])) == 25


def test_another_set_in_the_same_place_is_not_the_one_that_was_pickled(tmp_path):
    text = pickle.dumps(TransferSet.create(tmp_path / "set", TEACHER, X, rows_per_shard=10))
    for path in (tmp_path / "set").iterdir():
        path.unlink()
    TransferSet.create(tmp_path / "set", TEACHER, X + 1, rows_per_shard=10)
    with pytest.raises(ManifestError, match=r"manifest.json: expected the set that was pickled, got another"):
        pickle.loads(text)
    text = pickle.dumps(from_maps(tmp_path))
    np.save(tmp_path / "x.npy", np.zeros((10_000, 5), np.float32))
    os.utime(tmp_path / "x.npy", (1, 1))
    with pytest.raises(ValueError, match=r"x.npy: expected the file as it was when the set was pickled, got one written since"):
        pickle.loads(text)


def test_maps_that_may_differ_from_their_files_pickle_as_their_values(tmp_path):
    np.save(tmp_path / "x.npy", X)
    changed = np.load(tmp_path / "x.npy", mmap_mode="c")
    changed[0] = 7
    ts = pickle.loads(pickle.dumps(TransferSet(changed, X)))
    assert np.array_equal(ts.batch([0])[0][0], np.full(5, 7))
    assert mapped_file(np.asfortranarray(np.load(tmp_path / "x.npy", mmap_mode="r"))) is None


def in_a_worker(data):
    return [None if part is None else part.sum() for part in data.batch(np.arange(len(data)))]


def test_a_spawned_worker_reads_the_set(tmp_path):
    data = opened(tmp_path)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(in_a_worker, [data]) == in_a_worker(data)


# Files that change


def shorten(path):
    with open(path, "r+b") as file:
        file.truncate(300)


def overwrite(path):
    with open(path, "r+b") as file:
        file.seek(-4, os.SEEK_END)
        file.write(b"\0\0\0\0")
    os.utime(path, (1, 1))  # a clock of any grain


def save_others(path):
    np.save(path, np.load(path) + 1)  # in its place, and as long
    os.utime(path, (1, 1))


@pytest.mark.parametrize("change", [shorten, overwrite])
def test_a_shard_that_is_written_to_while_it_is_read_is_noticed(tmp_path, change):
    """A map of a file that became shorter would kill the process."""
    data = TransferSet.create(tmp_path / "set", TEACHER, np.tile(X, (400, 1)), rows_per_shard=1500)
    standard = data.standardised().set
    change(tmp_path / "set" / "logits-00001.npy")
    with pytest.raises(ManifestError, match=r"logits-00001.npy: expected .*, got"):
        data.standardised()
    for view in (data, standard):
        with pytest.raises(ManifestError, match=r"logits-00001.npy: expected .*, got"):
            view.batch([0, 2000])
        assert len(view.batch([0, 5000])[0]) == 2


@pytest.mark.parametrize("make", [from_maps, part_of_a_map])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (shorten, r"x.npy: expected \d+ bytes, as when it was opened, got 300"),
        (save_others, r"x.npy: expected a file that nobody writes to, got one that was written to since it was opened"),
    ],
)
def test_a_map_whose_file_is_written_to_is_noticed(tmp_path, make, change, message):
    data = make(tmp_path)
    data.batch([0, 9999])
    change(tmp_path / "x.npy")
    with pytest.raises(ValueError, match=message):
        data.batch([0, 9999])


@pytest.mark.parametrize("change", [shorten, save_others])
def test_it_is_noticed_on_the_way_through_a_whole_set_too(tmp_path, change):
    slabs = TransferSet(npy(tmp_path / "x.npy", np.tile(X, (800, 1))), np.tile(X, (800, 1)))._rows.slabs("inputs")
    assert len(next(slabs)) < 20_000
    change(tmp_path / "x.npy")
    with pytest.raises(ManifestError, match=r"x.npy: expected .*, got"):
        next(slabs)


def test_a_file_of_ones_own_that_is_mapped_to_be_written_may_be_written(tmp_path):
    np.save(tmp_path / "x.npy", X)
    x = np.load(tmp_path / "x.npy", mmap_mode="r+")
    data = TransferSet(x, says(X))
    x[3] = 7
    x.flush()
    os.utime(tmp_path / "x.npy", (1, 1))
    assert np.array_equal(data.batch([3])[0], np.full((1, 5), 7))


@pytest.mark.skipif(os.name == "nt", reason="Windows keeps mapped files from being removed")
def test_a_file_that_is_removed_or_replaced_stays_readable(tmp_path):
    data = on_disk(tmp_path)
    before = data.batch(np.arange(10_000))
    (tmp_path / "set" / "inputs-00000.npy").unlink()
    np.save(tmp_path / "other.npy", np.zeros((1500, 5), np.float32))
    os.replace(tmp_path / "other.npy", tmp_path / "set" / "inputs-00001.npy")
    assert all(np.array_equal(a, b) for a, b in zip(before[:2], data.batch(np.arange(10_000))[:2]))
