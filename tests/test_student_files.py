"""A student's file: the same bits, readable by others, and refused where it is damaged or foreign."""

import json
from contextlib import nullcontext

import numpy as np
import pytest
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file
from small_students import inputs, same, trained

from pymimic import ConvNet, DeepNet
from pymimic.errors import FileFormatError
from pymimic.nets.student import Student


@pytest.mark.parametrize("rank", [None, 5])
def test_save_and_load_give_the_same_bits(tmp_path, rank):
    for student in (trained(rank=rank, activation="tanh", dropout=0.25, seed=9), Student(11, 203, 7, rank=rank)):
        student.save(tmp_path / "s.safetensors")
        loaded = Student.load(tmp_path / "s.safetensors")
        assert same(student, loaded)
        assert np.array_equal(loaded.predict(inputs(9, 11)), student.predict(inputs(9, 11)))


def test_the_file_is_safetensors_with_one_metadata_key(tmp_path):
    path, student = tmp_path / "s.safetensors", trained()
    student.save(path)
    assert all(np.array_equal(array, student.arrays()[name]) for name, array in load_file(path).items())
    raw = path.read_bytes()
    metadata = json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]
    assert list(metadata) == ["pymimic"]
    content = json.loads(metadata["pymimic"])
    assert content["format"] == 2
    assert content["configuration"] == student.configuration()
    assert np.array_equal(np.float32(content["input_standardisation"]["mean"]), student.mean)


def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path):
    path = tmp_path / "s.safetensors"
    trained(hidden=3).save(path)
    whole = path.read_bytes()
    for length in (0, 1, 7, 8, 9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:length])
        with pytest.raises(FileFormatError, match=r"s\.safetensors"):
            Student.load(path)
    path.write_bytes(whole + b"\0")
    with pytest.raises(FileFormatError, match=r"s\.safetensors"):
        Student.load(path)


def rewritten(path, change_arrays=lambda arrays: None, change_metadata=lambda metadata: None):
    """Change a student's file, and give it the form of earlier versions, which had no checksum."""
    raw = path.read_bytes()
    metadata = json.loads(json.loads(raw[8 : 8 + int.from_bytes(raw[:8], "little")])["__metadata__"]["pymimic"])
    arrays = load_file(path)
    metadata.pop("sha256")
    metadata.update(format=1)
    change_arrays(arrays)
    change_metadata(metadata)
    save_file(arrays, path, {"pymimic": json.dumps(metadata)})


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "f.safetensors"
    save_file({"U": np.zeros(3)}, path)
    with pytest.raises(FileFormatError, match=r"f\.safetensors.*metadata key 'pymimic'"):
        Student.load(path)
    save_file({"U": np.zeros(3)}, path, {"pymimic": "no JSON"})
    with pytest.raises(FileFormatError, match=r"f\.safetensors"):
        Student.load(path)
    path.write_bytes(b"PK\x03\x04" + bytes(1000))
    with pytest.raises(FileFormatError, match=r"f\.safetensors"):
        Student.load(path)
    changes = [
        ({"change_metadata": lambda m: m.update(format=3)}, "format 2 or an earlier one, got 3"),
        ({"change_metadata": lambda m: m.update(kind="checkpoint")}, "expected a student, got a 'checkpoint'"),
        (
            {"change_metadata": lambda m: m["configuration"].update(hidden=4)},
            r"U: expected 'float32 \(4, 5\)', got 'float32 \(3,",
        ),
        ({"change_metadata": lambda m: m["configuration"].update(activation="step")}, "activation"),
        ({"change_metadata": lambda m: m["configuration"].pop("rank")}, "rank"),
        ({"change_metadata": lambda m: m["input_standardisation"].update(mean=[1.0])}, "mean"),
        ({"change_arrays": lambda a: a.update(U=a["U"].astype(np.float64))}, r"got: U: expected 'float32 \(.*\)', got 'float64 \(.*\)'$"),
        ({"change_arrays": lambda a: a.pop("c")}, r"got: c: expected 'float32 \(.*\)', got nothing$"),
    ]
    for change, message in changes:
        trained(hidden=3).save(path)
        rewritten(path, **change)
        with pytest.raises(FileFormatError, match=message) as caught:
            Student.load(path)
        assert "f.safetensors" in str(caught.value)


def test_a_file_of_an_earlier_version_loads(tmp_path):
    path, student = tmp_path / "s.safetensors", trained(hidden=3)
    student.save(path)
    rewritten(path)
    assert same(Student.load(path), student)


def test_a_flipped_bit_is_noticed_in_any_byte(tmp_path):
    path, student, bits = tmp_path / "s.safetensors", Student(2, 2, 1, rank=1), np.random.default_rng(0)
    student.set_standardisation(np.ones(2, np.float32), np.ones(2, np.float32))
    student.save(path)
    whole = path.read_bytes()
    for place in range(len(whole)):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << bits.integers(8)
        path.write_bytes(damaged)
        with pytest.raises(FileFormatError, match=r"s\.safetensors"):
            Student.load(path)


def test_a_standardisation_too_long_to_be_loaded_again_is_not_saved(tmp_path, monkeypatch):
    path, student = tmp_path / "s.safetensors", Student(2000, 1, 1)
    student.set_standardisation(np.full(2000, np.float32(1 / 3)), np.full(2000, np.float32(1 / 3)))
    monkeypatch.setattr("pymimic.files._LONGEST_HEADER", 50_000)
    with pytest.raises(ValueError, match=r"path: expected at most 50000 bytes of names and metadata for .*s\.safetensors', got \d+"):
        student.save(path)
    assert not path.exists()
    monkeypatch.undo()
    student.save(path)
    assert same(Student.load(path), student)


@pytest.mark.slow
def test_the_longest_header_is_the_librarys(tmp_path):
    from pymimic import files

    text = json.dumps({"__metadata__": {"x": ""}})
    for more in (0, 16):
        padded = text[:-3] + "y" * (files._LONGEST_HEADER - len(text) + more) + text[-3:]
        (tmp_path / "f").write_bytes(len(padded).to_bytes(8, "little") + padded.encode())
        with pytest.raises(SafetensorError) if more else nullcontext():
            load_file(tmp_path / "f")


def test_home_is_known_by_its_sign(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    student = trained(hidden=3)
    student.save("~/s.safetensors")
    assert (tmp_path / "s.safetensors").exists()
    assert same(Student.load("~/s.safetensors"), student)


def test_a_missing_file_or_folder_is_an_oserror_that_names_it(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.safetensors"):
        Student.load(tmp_path / "absent.safetensors")
    with pytest.raises(FileNotFoundError, match="nowhere"):
        trained().save(tmp_path / "nowhere" / "s.safetensors")
    with pytest.raises(OSError, match="expected a plain file"):
        trained().save(tmp_path)


def test_a_missing_file_names_the_argument(tmp_path):
    for net in (Student, DeepNet, ConvNet):
        with pytest.raises(FileNotFoundError, match="path: No such file") as found:
            net.load(tmp_path / "nope")
        assert (found.value.errno, found.value.filename) == (2, str(tmp_path / "nope"))
