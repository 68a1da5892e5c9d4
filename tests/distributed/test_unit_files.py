"""Files that several processes wrote, read in any number of parts, and what is said of those that don't belong together."""

import json
import os
import shutil

import numpy as np
import pytest

import pymimic as pm
from pymimic.distributed import Units
from pymimic.distributed.group import Group
from pymimic.distributed.saving import remove, write_arrays
from pymimic.distributed.student import ShardedStudent
from pymimic.errors import FileFormatError
from pymimic.files import read_safetensors, write_safetensors
from pymimic.unit_files import is_of_units, read_arrays

H = 100
ARRAYS = {
    "weights.U": np.arange(3.0 * H).reshape(H, 3),
    "optimizer.b.mean": np.arange(float(H)),
    "weights.c": np.ones(4),
    "optimizer.steps": np.array(7),
}


class OneOf(Group):
    """One of several processes that take turns: what they tell each other is known beforehand."""

    def __init__(self, rank, ranges):
        self.rank, self.size, self._ranges, self._asked = rank, len(ranges), ranges, 0

    def told(self, value):
        self._asked += 1
        if isinstance(value, str):
            return ["0123abcd"] * self.size
        return [list(units) for units in self._ranges] if isinstance(value, list) else [None] * self.size


def write(path, ends, arrays=ARRAYS):
    """As processes do whose units end there."""
    ranges = [Units(first, end) for first, end in zip([0, *ends], ends)]
    for rank in reversed(range(len(ranges))):
        own = {name: array[ranges[rank].first : ranges[rank].end] if is_of_units(name) else array for name, array in arrays.items()}
        write_arrays(path, own, {"kind": "checkpoint", "step": 3}, OneOf(rank, ranges), ranges[rank])


@pytest.fixture
def path(tmp_path):
    write(tmp_path / "run", [32, 64, H])
    return tmp_path / "run"


@pytest.mark.parametrize("units", [None, (0, 100), (0, 32), (10, 20), (31, 65), (64, 100), (50, 51)])
def test_any_units_are_read(path, units):
    arrays, metadata = read_arrays(path, "checkpoint", units=units)
    assert metadata == {"format": 2, "kind": "checkpoint", "step": 3}
    first, end = units or (0, H)
    for name, array in ARRAYS.items():
        assert np.array_equal(arrays[name], array[first:end] if is_of_units(name) else array)


def test_units_of_a_whole_file(tmp_path):
    write_safetensors(tmp_path / "whole", ARRAYS, {"kind": "checkpoint"})
    arrays, _ = read_arrays(tmp_path / "whole", "checkpoint", units=(5, 9))
    assert np.array_equal(arrays["weights.U"], ARRAYS["weights.U"][5:9])
    assert np.array_equal(arrays["weights.c"], ARRAYS["weights.c"])


def test_a_writing_leaves_no_older_files_of_units(path):
    write(path, [64, H], {name: 2 * array for name, array in ARRAYS.items()})
    assert sorted(file.name for file in path.parent.iterdir()) == ["run", "run.0123abcd-0", "run.0123abcd-1"]
    assert np.array_equal(read_arrays(path, "checkpoint")[0]["weights.U"], 2 * ARRAYS["weights.U"])
    remove(path, Group())
    assert list(path.parent.iterdir()) == []


def test_a_file_of_someone_else_stays(path):
    for name in ("run.0123abcd-7", "run.notes"):
        path.with_name(name).write_text("mine")
    write(path, [H])
    assert path.with_name("run.0123abcd-7").read_text() == path.with_name("run.notes").read_text() == "mine"


def test_a_file_of_units_that_is_missing(path):
    path.with_name("run.0123abcd-1").unlink()
    with pytest.raises(FileFormatError, match=r"^path: '.*run': expected its units 32 to 64 in '.*run.0123abcd-1', which is missing"):
        read_arrays(path, "checkpoint")
    read_arrays(path, "checkpoint", units=(0, 32))


def test_a_file_of_other_units(path):
    shutil.copy(path.with_name("run.0123abcd-0"), path.with_name("run.0123abcd-1"))
    with pytest.raises(FileFormatError, match=r"expected its units 32 to 64 in '.*', got others"):
        read_arrays(path, "checkpoint")


def test_a_file_of_fewer_arrays(path):
    where = path.with_name("run.0123abcd-1")
    arrays, metadata = read_safetensors(where)
    write_safetensors(where, {"weights.U": arrays["weights.U"]}, metadata)
    said = r"expected the same arrays of all its units, got others in .*-1': optimizer.b.mean: expected 'float64 \(\)', got nothing"
    with pytest.raises(FileFormatError, match=said):
        read_arrays(path, "checkpoint")


def test_one_process_alone_leaves_no_files_of_units(tmp_path):
    student = pm.Student(3, H, 4)
    path = tmp_path / "run"
    write(path, [32, 64, H])
    student.save(path)
    assert list(tmp_path.iterdir()) == [path]


def test_a_damaged_file_of_units(path):
    where = path.with_name("run.0123abcd-2")
    data = bytearray(where.read_bytes())
    data[-1] ^= 1
    where.write_bytes(data)
    with pytest.raises(FileFormatError, match="the file is damaged"):
        read_arrays(path, "checkpoint")


@pytest.mark.parametrize(
    "shards",
    [7, [], {"token": "0123abcd"}, {"token": "../../etc", "units": [[0, 4]]}, {"token": "0123abcd", "units": [[0, 4], [5, 9]]},
     {"token": "0123abcd", "units": [[1, 4]]}, {"token": "0123abcd", "units": []}, {"token": "0123abcd", "units": [[0, 1 << 62]]}],
)  # fmt: skip
def test_forged_lists_of_units(tmp_path, shards):
    write_safetensors(tmp_path / "f", {}, {"kind": "checkpoint", "shards": shards})
    with pytest.raises(FileFormatError, match=r"^path: "):
        read_arrays(tmp_path / "f", "checkpoint")


def test_whose_process_finds_no_files_of_the_others_is_told(tmp_path):
    ranges = [Units(0, 32), Units(32, H)]
    own = {name: array[:32] if is_of_units(name) else array for name, array in ARRAYS.items()}
    with pytest.raises(FileNotFoundError, match="in a folder that all processes share"):
        write_arrays(tmp_path / "run", own, {"kind": "checkpoint"}, OneOf(0, ranges), ranges[0])
    assert list(tmp_path.iterdir()) == []


def test_what_a_file_of_units_says(path):
    arrays, metadata = read_safetensors(path.with_name("run.0123abcd-1"))
    assert sorted(arrays) == ["optimizer.b.mean", "weights.U"]
    assert json.loads(json.dumps(metadata)) == {"format": 2, "kind": "shard", "token": "0123abcd", "units": [32, 64]}


def container(path):
    """A file as the page on formats says, without the library."""
    with open(path, "rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        content = file.read()
    arrays = {}
    for name, entry in header.items():
        if name != "__metadata__":
            start, end = entry["data_offsets"]
            arrays[name] = np.frombuffer(content[start:end], {"F64": "<f8", "I64": "<i8"}[entry["dtype"]]).reshape(entry["shape"])
    return arrays, json.loads(header["__metadata__"]["pymimic"])


def test_a_reader_written_from_the_page(path):
    arrays, metadata = container(path)
    shards = metadata["shards"]
    parts = [container(f"{path}.{shards['token']}-{rank}") for rank in range(len(shards["units"]))]
    assert [part[1]["units"] for part in parts] == shards["units"] == [[0, 32], [32, 64], [64, H]]
    assert {part[1]["kind"] for part in parts} == {"shard"}
    for name in parts[0][0]:
        arrays[name] = np.concatenate([part[0][name] for part in parts])
    assert arrays.keys() == ARRAYS.keys()
    assert all(np.array_equal(arrays[name], array) for name, array in ARRAYS.items())


TWO = {"token": "0123abcd", "units": [[0, 32], [32, 64]]}
CONFIGURATION = pm.Student(3, 64, 2).configuration()


def forged(path, shards, *parts, **metadata):
    """A student's file and those of its units, of which one may be left out."""
    head = {"kind": "student", "configuration": CONFIGURATION, "input_standardisation": None, "bits": None, "shards": shards}
    write_safetensors(path, {"c": np.zeros(2, np.float32)}, head | metadata)
    for rank, part in enumerate(parts):
        if part is not None:
            write_safetensors(f"{path}.0123abcd-{rank}", part, {"kind": "shard", "token": "0123abcd", "units": shards["units"][rank]})
    return path


def units(**other):
    arrays = {"U": np.ones((32, 3), np.float32), "b": np.ones(32, np.float32), "W": np.ones((32, 2), np.float32)}
    return {name: array for name, array in (arrays | other).items() if array is not None}


FORGED = {
    "columns": units(U=np.ones((32, 4), np.float32)),
    "one column": units(U=np.ones((32, 1), np.float32)),
    "float64": units(U=np.full((32, 3), 1e300)),
    "integers": units(W=np.ones((32, 2), np.int64)),
    "no axes": units(b=np.float32(1)),
    "a missing array": units(U=None),
    "another array": units(V=np.ones((32, 3), np.float32)),
}


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("other", FORGED.values(), ids=FORGED)
def test_files_of_units_whose_arrays_are_not_alike(tmp_path, other, first):
    path = forged(tmp_path / "s", TWO, *((other, units()) if first else (units(), other)))
    for load in (pm.Student.load, ShardedStudent.load):
        with pytest.raises(FileFormatError, match=r"^path: '.*s': expected (the same arrays of all its units|its units \d+ to \d+)"):
            load(path)
    forged(path, TWO, units(), units())
    assert np.array_equal(pm.Student.load(path).arrays()["U"], np.ones((64, 3)))


@pytest.mark.parametrize("end", [2**50, 2**70, float("inf"), float("nan"), 64.0, "64", True, None, 0, 31])
def test_more_units_than_files_hold(tmp_path, end):
    for parts in ([units()], [units(), units()]):
        path = forged(tmp_path / "s", {"token": "0123abcd", "units": [[0, 32], [32, end]]}, *parts)
        for load in (pm.Student.load, ShardedStudent.load):
            with pytest.raises(FileFormatError, match=r"^path: '.*s': expected"):
                load(path)


def test_a_claim_of_units_takes_no_memory(tmp_path):
    many = {"token": "0123abcd", "units": [[0, 32], [32, 2**31 - 1]]}
    path = forged(tmp_path / "s", many, units(), units())
    with pytest.raises(FileFormatError, match=r"expected files for 2147483647 units, got \d+ bytes"):
        pm.Student.load(path)


@pytest.mark.parametrize("configuration", [None, [], "x", 3, {}, {"hidden": "64"}, {"hidden": 10**400}, {"hidden": None}, {"hidden": [64]}])
def test_a_forged_configuration_of_several_processes(tmp_path, configuration):
    path = forged(tmp_path / "s", TWO, units(), units(), configuration=configuration)
    for load in (pm.Student.load, ShardedStudent.load):
        with pytest.raises(FileFormatError, match=r"^path: '.*s': expected a student's configuration"):
            load(path)


def test_an_array_of_units_without_axes(tmp_path):
    arrays = pm.Student(3, 64, 2).arrays() | {"b": np.float32(1)}
    write_safetensors(
        tmp_path / "s", arrays, {"kind": "student", "configuration": CONFIGURATION, "input_standardisation": None, "bits": None}
    )
    for load in (pm.Student.load, ShardedStudent.load):
        with pytest.raises(FileFormatError, match=r"^path: '.*s': expected .*b: expected"):
            load(tmp_path / "s")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="makes a pipe")
def test_a_pipe_in_the_place_of_units_is_not_waited_for(tmp_path):
    path = forged(tmp_path / "s", TWO, units())
    os.mkfifo(tmp_path / "s.0123abcd-1")
    with pytest.raises(OSError, match=r"expected a plain file.*s.0123abcd-1"):
        pm.Student.load(path)
