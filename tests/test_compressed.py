"""Compressed transfer sets: the same rows, unpacked into files that nobody sees, and nothing that is damaged or larger than it says."""

import errno
import gzip
import hashlib
import io
import json
import os
import pickle
import tempfile
import tracemalloc

import numpy as np
import pytest
from slope_teacher import TEACHER, C, D, contents, rows

from pymimic import AdamW, ManifestError, Student, Trainer, TransferSet, from_callable

ALL = np.arange(25)
SMALL = {"inputs_dtype": "uint8", "inputs_range": (-4, 4), "logits_dtype": "float16", "top_logits": 2}
WEIGHTS = np.linspace(0, 1, 25).astype(np.float32)


def create(folder, x, **more):
    return TransferSet.create(folder, TEACHER, x, rows_per_shard=10, progress=False, **{"compress": True, **more})


def same(a, b):
    return all(np.array_equal(one, other) for one, other in zip(a.batch(ALL), b.batch(ALL)))


@pytest.fixture
def scratch(tmp_path, monkeypatch):
    """Where temporary files go."""
    (tmp_path / "scratch").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "scratch"))
    return tmp_path / "scratch"


@pytest.mark.filterwarnings("ignore:logits. expected top_logits")
@pytest.mark.parametrize("compress", [True, 1, np.int64(9), np.True_])
@pytest.mark.parametrize("more", [{}, SMALL])
def test_the_rows_are_those_of_a_set_that_is_not_compressed(tmp_path, more, compress):
    x = rows(25)
    plain = create(tmp_path / "plain", x, weights=WEIGHTS, compress=False, standardise=True, **more)
    made = create(tmp_path / "small", x, weights=WEIGHTS, compress=compress, standardise=True, **more)
    assert same(made, plain)
    assert same(TransferSet.open(tmp_path / "small"), plain)
    assert same(pickle.loads(pickle.dumps(made)), plain)
    view, mean, scale = made.standardised()
    assert same(view, plain.standardised().set)
    assert np.array_equal(mean, plain.standardised().mean)
    assert np.array_equal(scale, plain.standardised().scale)


def test_the_files_are_npy_files_in_gzips_format_that_the_manifest_vouches_for(tmp_path):
    x = rows(25)
    create(tmp_path, x, compress=3)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert manifest["storage"]["compress"] == 3
    assert {path.name for path in tmp_path.iterdir()} == {"manifest.json", *(file["name"] for file in manifest["files"])}
    for file in manifest["files"]:
        data = (tmp_path / file["name"]).read_bytes()
        assert (hashlib.sha256(data).hexdigest(), len(data)) == (file["sha256"], file["size"])
    assert np.array_equal(np.load(io.BytesIO(gzip.decompress((tmp_path / "inputs-00002.npy.gz").read_bytes()))), x[20:])


def test_many_equal_values_take_few_bytes_and_higher_levels_fewer(tmp_path):
    x = np.random.default_rng(0).integers(0, 3, (4000, D)).astype(np.float32)
    sizes = []
    for level in (False, 1, True, 9):
        TransferSet.create(tmp_path / str(level), TEACHER, x, progress=False, compress=level)
        sizes.append(sum(path.stat().st_size for path in (tmp_path / str(level)).glob("inputs*")))
    assert sizes[0] > 5 * sizes[1] > 5 * sizes[2] > 5 * sizes[3]


def test_rows_in_any_order_take_little_memory_and_the_temporary_files_have_no_names(tmp_path, scratch):
    x, teacher = np.repeat(rows(5000, width=200), 4, axis=0), from_callable(lambda x: x[:, :2])  # 16 MB
    ts = TransferSet.create(tmp_path / "set", teacher, x, rows_per_shard=4000, progress=False, compress=1)
    tracemalloc.start()
    for seed in range(3):
        numbers = np.random.default_rng(seed).permutation(20_000)[:500]
        assert np.array_equal(ts.batch(numbers)[0], x[numbers])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 << 20
    assert os.name == "nt" or list(scratch.iterdir()) == []


def test_a_set_is_unpacked_once_and_only_when_rows_are_asked_for(tmp_path, monkeypatch):
    create(tmp_path, rows(25))
    opened, real = [], tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: opened.append(0) or real())
    ts = TransferSet.open(tmp_path)
    assert (len(ts), ts.inputs, ts.outputs, opened) == (25, D, C, [])
    ts.batch([3, 12])
    assert len(opened) == 4  # two kinds of two shards
    for _ in range(3):
        ts.batch(ALL)
    assert len(opened) == 6
    for path in tmp_path.glob("*.gz"):  # nobody reads them any more
        path.unlink()
    assert np.array_equal(ts.batch(ALL)[0], rows(25))


def test_a_student_learns_the_same_bits(tmp_path):
    x, arrays = rows(200), []
    for compress in (False, True):
        ts = TransferSet.create(tmp_path / str(compress), TEACHER, x, rows_per_shard=64, progress=False, compress=compress)
        student = Student(D, 32, C)
        Trainer(student, AdamW(1e-2), epochs=2, batch_size=50).fit(ts)
        arrays.append(student.arrays())
    assert all(np.array_equal(arrays[0][name], arrays[1][name]) for name in arrays[0])


def test_labelling_goes_on_to_the_same_files_and_another_level_is_refused(tmp_path):
    x = rows(25)
    create(tmp_path / "whole", x)
    stopped = tmp_path / "stopped"

    def stopping():
        yield x[:20]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        create(stopped, stopping())
    before = contents(stopped)
    for other, got in ((9, "9"), (False, "None")):
        with pytest.raises(ManifestError, match=rf"^storage.*: expected .*, as .*manifest.json says, got {got}$"):
            create(stopped, x, compress=other)
    with pytest.raises(ManifestError, match=r"inputs: expected the rows in .*inputs-00000.npy.gz, got others"):
        create(stopped, rows(25, seed=1))
    assert contents(stopped) == before
    create(stopped, x)
    assert contents(stopped) == contents(tmp_path / "whole")


def test_files_of_the_users_own_are_not_overwritten(tmp_path):
    for name in ("inputs-00000.npy.gz", "logits-00000.npy"):
        (tmp_path / name).write_bytes(b"mine")
        for compress in (True, False):
            with pytest.raises(FileExistsError, match=f"got {name}, and no manifest.json is there"):
                create(tmp_path, rows(25), compress=compress)
        assert contents(tmp_path) == {name: b"mine"}
        (tmp_path / name).unlink()


@pytest.mark.parametrize(
    ("compress", "error", "message"),
    [
        (10, ValueError, r"compress: expected an int in \[0, 10\), got 10"),
        (-1, ValueError, r"compress: expected an int in \[0, 10\), got -1"),
        ("gzip", TypeError, "compress: expected True, False or a level from 1 to 9, got str"),
        (None, TypeError, "compress: expected True, False or a level from 1 to 9, got NoneType"),
        (6.0, TypeError, "compress: expected True, False or a level from 1 to 9, got float"),
    ],
)
def test_levels_that_are_none_are_refused(tmp_path, compress, error, message):
    with pytest.raises(error, match=message):
        create(tmp_path, rows(25), compress=compress)


# Damage


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


X1 = rows(25)[10:20]
DAMAGE = {
    "flipped": lambda data: data[:200] + bytes([data[200] ^ 1]) + data[201:],
    "flipped checksum": lambda data: data[:-8] + bytes([data[-8] ^ 1]) + data[-7:],
    "cut": lambda data: data[: len(data) // 2],
    "cut checksum": lambda data: data[:-3],
    "empty": lambda data: b"",
    "text": lambda data: b"not an array" * 30,
    "not compressed": lambda data: npy(X1),
    "text inside": lambda data: gzip.compress(b"not an array" * 30),
    "shorter inside": lambda data: gzip.compress(npy(X1)[:-4]),
    "longer inside": lambda data: gzip.compress(npy(X1) + b"more"),
    "garbage behind": lambda data: data + b"more",
    "other dtype": lambda data: gzip.compress(npy(X1.view(np.int32))),
    "other shape": lambda data: gzip.compress(npy(X1[:9])),
    "other order": lambda data: gzip.compress(npy(np.asfortranarray(X1))),
    "pickle": lambda data: gzip.compress(b"\x93NUMPY\x01\x00" + npy(np.array([{}]))[8:]),
    "of version 2": lambda data: gzip.compress(npy(X1).replace(b"NUMPY\x01", b"NUMPY\x02", 1)),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_a_damaged_file_is_named_when_it_is_opened_or_read(tmp_path, kind):
    """Without checksums too, and where the manifest has the damaged file's size."""
    create(tmp_path, rows(25))
    path, manifest = tmp_path / "inputs-00001.npy.gz", tmp_path / "manifest.json"
    before = path.read_bytes()
    path.write_bytes(DAMAGE[kind](before))
    with pytest.raises(ManifestError, match=r"inputs-00001.npy.gz: expected (sha256|\d+ bytes)"):
        TransferSet.open(tmp_path)
    changed = json.loads(manifest.read_text())
    changed["files"][2]["size"] = max(1, path.stat().st_size)
    manifest.write_text(json.dumps(changed))
    with pytest.raises(ManifestError, match=r"inputs-00001.npy.gz: expected (a whole .npy file in gzip's format, got |1 bytes)"):
        TransferSet.open(tmp_path, verify=False).batch([13])


def test_a_missing_file_is_named(tmp_path):
    ts = create(tmp_path, rows(25))
    (tmp_path / "inputs-00001.npy.gz").unlink()
    with pytest.raises(ManifestError, match=r"inputs-00001.npy.gz: expected a file, as the manifest says, got none"):
        TransferSet.open(tmp_path)
    with pytest.raises(ManifestError, match=r"inputs-00001.npy.gz: expected a file, as the manifest says, got none"):
        ts.batch([13])


def test_a_file_that_another_takes_the_place_of_is_named(tmp_path):
    create(tmp_path / "other", rows(25, seed=1))
    ts = create(tmp_path / "set", rows(25))
    os.replace(tmp_path / "other" / "inputs-00001.npy.gz", tmp_path / "set" / "inputs-00001.npy.gz")
    with pytest.raises(ManifestError, match=r"inputs-00001.npy.gz: expected .*, got one that was written to since it was opened"):
        ts.batch([13])


def test_a_bomb_is_refused_before_memory_or_disk_is_taken(tmp_path, scratch, monkeypatch):
    create(tmp_path / "set", rows(25))
    path, manifest = tmp_path / "set" / "inputs-00001.npy.gz", tmp_path / "set" / "manifest.json"
    head = npy(X1)
    path.write_bytes(gzip.compress(head + bytes(1 << 28), 9))
    written = []
    real = tempfile.TemporaryFile

    def counted():
        file = real()
        write = file.write

        class Counted:
            def __getattr__(self, name):
                return getattr(file, name)

            def __enter__(self):
                return self

            def __exit__(self, *_):
                file.close()

            def write(self, data):
                written.append(len(data))
                return write(data)

        return Counted()

    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    changed = json.loads(manifest.read_text())
    changed["files"][2]["size"] = path.stat().st_size
    manifest.write_text(json.dumps(changed))
    tracemalloc.start()
    with pytest.raises(ManifestError, match=r"inputs-00001.npy.gz: expected a whole .npy file in gzip's format, got a longer one"):
        TransferSet.open(tmp_path / "set", verify=False).batch([13])
    assert sum(written) == len(head)
    written.clear()
    for kind in (2, 3):
        changed["files"][kind]["rows"] = 1 << 40  # what the manifest says cannot be in so small a file
    manifest.write_text(json.dumps(changed))
    with pytest.raises(ManifestError, match=r"inputs-00001.npy.gz: expected .*, got one that is too small for 21990232555520 bytes"):
        TransferSet.open(tmp_path / "set", verify=False).batch([13])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written == []
    assert peak < 4 << 20


def test_a_full_disk_is_named_with_the_folder_that_is_full(tmp_path, monkeypatch):
    ts = create(tmp_path, rows(25))

    class Full(io.BytesIO):
        def write(self, data):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(tempfile, "TemporaryFile", Full)
        with pytest.raises(OSError, match=r"unpacked into .*, which TMPDIR names: No space left.*inputs-00000.npy.gz") as caught:
            ts.batch([3])
    assert caught.value.errno == errno.ENOSPC
    assert np.array_equal(ts.batch([3])[0], rows(25)[3:4])
