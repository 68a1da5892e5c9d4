"""Atomic files: whatever goes wrong, the old file is whole and nothing half-written is left."""

import os
import resource
import signal
from pathlib import Path

import numpy as np
import pytest
from children import in_child

from pymimic import SGD, DeepNet, Student, Trainer, TransferSet
from pymimic.errors import FileFormatError
from pymimic.files import read_safetensors, write_safetensors


def test_arrays_of_any_layout_come_back(tmp_path):
    arrays = {
        "float64": np.arange(10.0),
        "scalar": np.array(3),
        "empty": np.zeros((0, 3), np.float32),
        "transposed": np.arange(12, dtype=np.float32).reshape(3, 4).T,
        "big-endian": np.arange(4, dtype=">f4"),
        "bytes": np.arange(3, dtype=np.uint8),
    }
    write_safetensors(tmp_path / "f", arrays, {"kind": "test", "x": [1, None, 0.1]})
    back, metadata = read_safetensors(tmp_path / "f", kind="test")
    assert metadata == {"format": 2, "kind": "test", "x": [1, None, 0.1]}
    assert back.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back[name].shape == array.shape
        assert back[name].dtype == array.dtype.newbyteorder("=")
        assert np.array_equal(back[name], array)


def test_all_data_are_on_disk_before_the_file_has_its_name(tmp_path, monkeypatch):
    path, sizes = tmp_path / "f", []
    monkeypatch.setattr(os, "fsync", lambda descriptor: sizes.append((os.fstat(descriptor).st_size, path.exists())))
    write_safetensors(path, {"a": np.arange(1000)}, {})
    assert sizes[0] == (path.stat().st_size, False)
    assert len(sizes) == 2  # the second is the folder's
    assert sizes[1][1]


@pytest.mark.parametrize("place", [3, 200, -1])
def test_what_comes_back_otherwise_never_takes_the_name(tmp_path, monkeypatch, place):
    path = tmp_path / "f"
    write_safetensors(path, {"a": np.arange(10)}, {})
    before = path.read_bytes()

    def forge(descriptor):
        part = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        if part.suffix == ".part":
            data = bytearray(part.read_bytes())
            data[place] ^= 4
            part.write_bytes(data)

    monkeypatch.setattr(os, "fsync", forge)
    with pytest.raises(OSError, match=r"expected the bytes that were written, got others when they were read back: '.*/f'"):
        write_safetensors(path, {"a": np.zeros(1000)}, {})
    assert path.read_bytes() == before
    assert os.listdir(tmp_path) == ["f"]


def test_a_flipped_bit_is_noticed_in_every_kind_of_file(tmp_path):
    data = TransferSet(np.ones((4, 3), np.float32), np.ones((4, 2), np.float32))
    net = DeepNet((3, 4, 2))
    Trainer(Student(3, 4, 2), SGD(0.1), epochs=1, checkpoint=tmp_path / "c", progress=False).fit(data)
    net.save(tmp_path / "d")

    def resume():
        Trainer(Student(3, 4, 2), SGD(0.1), epochs=2, progress=False).fit(data, resume=tmp_path / "c")

    for name, load in (("c", resume), ("d", lambda: DeepNet.load(tmp_path / "d"))):
        load()
        whole = (tmp_path / name).read_bytes()
        for place in (-1, len(whole) // 2, 100):
            damaged = bytearray(whole)
            damaged[place] ^= 4
            (tmp_path / name).write_bytes(damaged)
            with pytest.raises(FileFormatError, match=f"/{name}'"):
                load()


def test_the_same_content_gives_the_same_bytes(tmp_path):
    arrays = {"b": np.arange(3.0), "a": np.arange(5, dtype=np.float32)}
    write_safetensors(tmp_path / "f", arrays, {"x": 1})
    write_safetensors(tmp_path / "g", dict(reversed(arrays.items())), {"x": 1})
    assert (tmp_path / "f").read_bytes() == (tmp_path / "g").read_bytes()


def test_a_full_disk_leaves_the_old_file(tmp_path):
    path = tmp_path / "f.safetensors"
    write_safetensors(path, {"a": np.arange(10)}, {})

    def fill():
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))  # the write fails halfway, as on a full disk
        write_safetensors(path, {"a": np.zeros(1_000_000)}, {})

    line = in_child(fill)
    assert line.startswith("OSError")
    assert "f.safetensors" in line
    assert os.listdir(tmp_path) == ["f.safetensors"]
    assert np.array_equal(read_safetensors(path)[0]["a"], np.arange(10))


@pytest.mark.parametrize("function", ["os.fsync", "os.replace", "os.fdopen"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_failure_at_any_moment_leaves_the_old_file(tmp_path, monkeypatch, function, error):
    path = tmp_path / "f.safetensors"
    write_safetensors(path, {"a": np.arange(10)}, {})

    def fail(*arguments):
        raise error

    monkeypatch.setattr(f"pymimic.targets.{function}", fail)
    with pytest.raises(type(error)) as caught:
        write_safetensors(path, {"a": np.zeros(1000)}, {})
    monkeypatch.undo()
    if isinstance(error, OSError):
        assert "f.safetensors" in str(caught.value)
    assert os.listdir(tmp_path) == ["f.safetensors"]
    assert np.array_equal(read_safetensors(path)[0]["a"], np.arange(10))


def test_a_link_is_written_through(tmp_path):
    write_safetensors(tmp_path / "f", {"a": np.arange(3)}, {})
    os.symlink(tmp_path / "f", tmp_path / "link")
    write_safetensors(tmp_path / "link", {"a": np.arange(4)}, {})
    assert os.path.islink(tmp_path / "link")
    assert len(read_safetensors(tmp_path / "f")[0]["a"]) == 4


def test_devices_and_folders_are_not_replaced(tmp_path):
    for path in ("/dev/full", tmp_path):
        with pytest.raises(OSError, match="expected a plain file"):
            write_safetensors(path, {"a": np.zeros(3)}, {})


def test_dtypes_that_the_format_lacks_are_refused(tmp_path):
    with pytest.raises(TypeError, match="a: expected a float, int or unsigned dtype, got complex128"):
        write_safetensors(tmp_path / "f", {"a": np.zeros(3, complex)}, {})
    assert os.listdir(tmp_path) == []
