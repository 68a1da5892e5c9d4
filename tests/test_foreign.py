"""What strangers made: files without end, JSON without bottom, text that a terminal would obey."""

import gzip
import json
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest

import pymimic as pm
from pymimic import ops
from pymimic.data.mapped import map_npy
from pymimic.demo import datasets
from pymimic.errors import FileFormatError, ManifestError
from pymimic.files import read_metadata
from pymimic.foreign import parsed, printable

DEEP = {
    "lists": "[" * 3000,
    "closed lists": "[" * 3000 + "]" * 3000,
    "objects": '{"a":' * 3000,
    "below Python's own limit": '{"a":' * 300 + "1" + "}" * 300,
    "mixed": '[{"a":' * 100 + "1" + "}]" * 100,
}


def nested(levels):
    return json.loads("[" * levels + "]" * levels)


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_json_without_bottom_is_a_value_error(text):
    """What has no end either is read to where it should be by a Python whose own limit is higher."""
    for given in (text, text.encode()):
        with pytest.raises(ValueError, match=r"at most 100 levels|^Expecting value: line 1 column"):
            parsed(given)


def test_json_of_a_hundred_levels_is_read():
    assert parsed(json.dumps(nested(100))) == nested(100)
    assert parsed('{"a": [1, {"b": [2]}], "c": "[[["}') == {"a": [1, {"b": [2]}], "c": "[[["}
    with pytest.raises(ValueError, match="at most 100 levels"):
        parsed(json.dumps(nested(101)))


def test_text_can_be_printed():
    assert printable("plain, \u00e4\u00f6\u00fc and \u4e2d") == "plain, \u00e4\u00f6\u00fc and \u4e2d"
    assert printable("a\x1b[31mb\nc\u202ed\ud800") == "a\\x1b[31mb\\nc\\u202ed\\ud800"
    assert len(printable("\x1b" * 10**6)) < 10_000
    assert printable("a" * 2000) == "a" * 2000
    assert printable("a" + "b" * 3000 + "c").startswith("abb")
    assert printable("a" + "b" * 3000 + "c").endswith("bbc")


def header(path, inner, described=""):
    """A safetensors file of nothing but a header."""
    text = ('{"__metadata__":{"pymimic":' + json.dumps(inner) + "}" + described + "}").encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text)
    return path


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
@pytest.mark.parametrize("read", [pm.Student.load, pm.DeepNet.load, pm.ConvNet.load, read_metadata])
def test_a_nets_metadata_without_bottom_is_a_file_format_error(tmp_path, read, text):
    with pytest.raises(FileFormatError, match=r"path: .*f': expected"):
        read(header(tmp_path / "f", text))


@pytest.mark.parametrize("text", DEEP.values(), ids=DEEP)
def test_a_manifest_without_bottom_is_a_manifest_error(tmp_path, text):
    (tmp_path / "manifest.json").write_text(text)
    for call in (pm.TransferSet.open, lambda folder: pm.TransferSet.create(folder, pm.Student(2, 3, 2), np.ones((3, 2), np.float32))):
        with pytest.raises(ManifestError, match=r"manifest\.json: expected"):
            call(tmp_path)


NAMES = {
    "escapes": "\x1b]0;x\x07\x1b[2J",
    "right to left": "\u202etxt.exe",
    "half of a pair": "\ud800",
    "a long one": "x" * 3_000_000,
    "lines": "\n" * 99,
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
def test_messages_about_files_are_a_line_that_can_be_printed(tmp_path, name):
    configuration = {"inputs": 2, "hidden": 3, "outputs": 2, name: 1}
    metadata = {"format": 1, "kind": "student", "configuration": configuration, "input_standardisation": None}
    kinds = [metadata, metadata | {"kind": name}, metadata | {"format": name}, {name: metadata}, name]
    for content in kinds:
        with pytest.raises(FileFormatError) as caught:
            pm.Student.load(header(tmp_path / "f", json.dumps(content)))
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 10_000
    (tmp_path / "manifest.json").write_text(json.dumps({"format": 1, name: 2}))
    with pytest.raises(ManifestError) as caught:
        pm.TransferSet.open(tmp_path)
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 10_000


def test_a_file_whose_name_a_terminal_would_obey(tmp_path):
    pytest.importorskip("typer")
    path = tmp_path / "\x1b[31mred\n\x07"
    path.write_bytes(b"nothing")
    with pytest.raises(FileFormatError, match=r"\\x1b\[31mred\\n\\x07") as caught:
        pm.Student.load(path)
    assert str(caught.value).isprintable()
    for option in ([path, "--inputs", path], [tmp_path / "\x1b[2J", "--inputs", path]):
        ended = subprocess.run(
            [sys.executable, "-m", "pymimic", "predict", *option, "--out", tmp_path / "y"], capture_output=True, text=True
        )
        assert ended.returncode in (1, 2)
        assert ended.stderr.removesuffix("\n").isprintable(), ended.stderr


@pytest.fixture
def fifo(tmp_path):
    """A pipe that nobody writes to: opening it would wait for ever."""
    os.mkfifo(tmp_path / "fifo.gz")
    return tmp_path / "fifo.gz"


READERS = {
    "Student": pm.Student.load,
    "DeepNet": pm.DeepNet.load,
    "metadata": read_metadata,
    "npy": lambda path: map_npy("x", path),
    "idx": lambda path: datasets.read_idx(path, (2, 3)),
    "letter": datasets._read_letter,
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_a_pipe_is_not_waited_for(fifo, read):
    with pytest.raises(OSError, match="expected a plain file"):
        read(fifo)
    with pytest.raises(OSError, match="expected a plain file"):
        read("/dev/zero" if read is not datasets._read_letter else fifo.parent)


@pytest.mark.parametrize("compress", [False, True])
@pytest.mark.parametrize("name", ["manifest.json", "inputs-00000.npy"])
def test_a_pipe_in_a_set_is_not_waited_for(tmp_path, name, compress):
    pm.TransferSet.create(tmp_path, pm.from_callable(lambda x: x, "t"), np.ones((3, 2), np.float32), progress=False, compress=compress)
    (place,) = tmp_path.glob(name + "*")
    size = place.stat().st_size
    place.unlink()
    os.mkfifo(place)
    with pytest.raises((OSError, ManifestError), match=f"expected (a plain file|{size} bytes)"):
        pm.TransferSet.open(tmp_path).batch([0])


def test_a_pipe_is_no_model(fifo):
    pytest.importorskip("onnxruntime")
    from pymimic.onnx import teacher

    with pytest.raises(OSError, match="model: expected a plain file"):
        teacher(fifo)


@pytest.mark.parametrize("there", ["nothing", "a file", "a set that is not complete"])
def test_a_link_at_the_manifests_name_is_not_followed_out_of_the_folder(tmp_path, there):
    x, teacher, (victim, folder) = np.ones((3, 2), np.float32), pm.from_callable(lambda x: x, "t"), (tmp_path / "v", tmp_path / "set")
    if there == "a set that is not complete":
        pm.TransferSet.create(tmp_path / "other", teacher, x, progress=False)
        manifest = json.loads((tmp_path / "other" / "manifest.json").read_text())
        victim.write_text(json.dumps(manifest | {"complete": False, "files": []}))
    elif there == "a file":
        victim.write_text("mine")
    before = victim.read_bytes() if victim.exists() else None
    folder.mkdir()
    (folder / "manifest.json").symlink_to(victim)
    with pytest.raises((OSError, ManifestError), match="expected"):
        pm.TransferSet.create(folder, teacher, x, progress=False)
    assert (victim.read_bytes() if victim.exists() else None) == before
    assert os.listdir(folder) == ["manifest.json"]


RECORDS = {
    "a file elsewhere": lambda record: record["inputs"].update(name="../../mine"),
    "a path from the root": lambda record: record["inputs"].update(name="/etc/hostname"),
    "another shard's file": lambda record: record["inputs"].update(name="inputs-00002.npy"),
    "another kind of file": lambda record: record.update(mine=record["inputs"]),
    "no inputs": lambda record: record.pop("inputs"),
    "rows below 0": lambda record: record["inputs"].update(rows=-1),
    "rows that are True": lambda record: record["inputs"].update(rows=True),
    "a sum that is none": lambda record: record["inputs"].update(sha256=3),
    "no sum": lambda record: record["inputs"].pop("sha256"),
}


@pytest.mark.parametrize("change", RECORDS.values(), ids=RECORDS)
def test_notes_of_labelling_in_parts_lead_to_no_other_files(tmp_path, change):
    folder, mine, x = tmp_path / "set", tmp_path / "mine", np.ones((6, 2), np.float32)
    answers = iter([1, 1])

    def stops(rows):
        next(answers)
        return rows

    def label(function):
        pm.TransferSet.create(folder, pm.from_callable(function, "t"), x, rows_per_shard=2, progress=False, part=(0, 1))

    with pytest.raises((StopIteration, RuntimeError)):
        label(stops)
    note = folder / ".labelling" / "00001.json"
    record = json.loads(note.read_text())
    change(record)
    note.write_text(json.dumps(record))
    mine.write_text("mine")
    with pytest.raises(ManifestError, match=r"00001\.json: expected a note of shard 1's files"):
        label(lambda rows: rows)
    assert mine.read_text() == "mine"
    assert not (folder / "manifest.json").exists()


class Lying(np.ndarray):
    """Says of itself what it is not."""

    shape = property(lambda self: (1 << 20, 1 << 20))
    ndim = property(lambda self: 3)
    size = property(lambda self: 1 << 40)
    dtype = property(lambda self: np.dtype(np.float64))

    def __len__(self):
        return 1 << 30


def test_what_an_array_says_of_itself_is_not_believed():
    a, student = np.arange(16, dtype=np.float32).reshape(4, 4), pm.Student(4, 6, 3, seed=1)
    lying = a.view(Lying)
    for call in (
        lambda x: ops.dropout(x, 0.5, seed=0),
        lambda x: ops.shallow_forward(x, *(student.arrays()[name] for name in "UbWc")),
        lambda x: ops.mimic_loss(x, 2 * a)[1],
        student.predict,
        pm.Predictor(student).predict,
        lambda x: pm.TransferSet(x, a).batch([1, 2])[0],
        lambda x: pm.label(pm.from_callable(lambda rows: 2 * rows, "t"), x),
    ):
        assert np.array_equal(call(lying), call(a))
    out = np.zeros((4, 4), np.float32)
    assert ops.linear_dropout(a, a, np.zeros(4, np.float32), out=out.view(Lying)).shape == (4, 4)
    assert out.any()


def test_a_packed_idx_file_takes_no_more_memory_than_was_asked_for(tmp_path):
    path = tmp_path / "x.gz"
    path.write_bytes(gzip.compress(bytes((0, 0, 8, 1, 0, 0, 0, 9)) + bytes(40 << 20), 9))
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match="expected 9 values, got 10 or more"):
            datasets.read_idx(path, (9,))
        assert tracemalloc.get_traced_memory()[1] < 4 << 20  # bytes; zlib's window and gzip's buffers are below 1 MiB
    finally:
        tracemalloc.stop()


def test_a_header_that_asks_for_layers_without_end_is_refused_at_once(tmp_path):
    metadata = {"format": 1, "input_standardisation": None}
    rest = {"activation": "relu", "dropout": 0.0, "input_dropout": 0.0, "seed": 0}
    deep = metadata | {"kind": "deepnet", "configuration": {"layer_sizes": [1] * 10**5} | rest}
    wide = {"input_shape": [1, 4], "convolutions": [[1, 1, 1, 0]] * 10**5, "outputs": 1, "hidden": []}
    for net, content in ((pm.DeepNet, deep), (pm.ConvNet, metadata | {"kind": "convnet", "configuration": wide | rest})):
        path = header(tmp_path / "f", json.dumps(content))
        tracemalloc.start()
        try:
            with pytest.raises(FileFormatError, match=r"(layer_sizes|convolutions): expected at most 10000"):
                net.load(path)
            # a list of a few bytes in the file is an object, and its place in another, of some hundred
            assert tracemalloc.get_traced_memory()[1] < 50 * path.stat().st_size
        finally:
            tracemalloc.stop()


@pytest.mark.parametrize("sizes", [[2**30, 2**30], [2**31 - 1, 2**31 - 1, 2], [10**9] * 9])
def test_a_header_that_asks_for_gigabytes_is_refused_before_they_are_taken(tmp_path, sizes):
    metadata = {"format": 1, "kind": "deepnet", "input_standardisation": None}
    configuration = {"layer_sizes": sizes, "activation": "relu", "dropout": 0.0, "input_dropout": 0.0, "seed": 0}
    path = header(tmp_path / "f", json.dumps(metadata | {"configuration": configuration}))
    tracemalloc.start()
    try:
        with pytest.raises(FileFormatError, match="weight0: expected"):
            pm.DeepNet.load(path)
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()


def test_a_convolution_whose_rows_take_gigabytes_is_refused():
    layers = [(1, 1, 1, 2**20), (1, 1, 2**20)]  # weights of four bytes, and outputs that its stride makes few again
    with pytest.raises(ValueError, match=r"convolutions\[0\]: expected at most 2\^30 numbers in a row's outputs"):
        pm.ConvNet((1, 4, 4), layers, 1)
    with pytest.raises(ValueError, match=r"convolutions\[1\]: expected at most 2\^30 numbers"):
        pm.ConvNet((1, 2**15, 2**15), [(1, 1), (4, 3, 1, 1), (1, 2, 2**14)], 1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(tmp_path, value):
    from safetensors.numpy import load_file, save_file

    net = pm.Student(2, 3, 2)
    net.save(tmp_path / "f")
    before = (tmp_path / "f").read_bytes()
    net.set_arrays(U=np.array([[0, 0], [0, value], [0, 0]]))
    with pytest.raises(ValueError, match=rf"U: expected finite values, got {value} in row 1"):
        net.save(tmp_path / "f")
    assert (tmp_path / "f").read_bytes() == before
    metadata = json.loads(json.loads(before[8 : 8 + int.from_bytes(before[:8], "little")])["__metadata__"]["pymimic"])
    save_file(
        load_file(tmp_path / "f") | {"b": np.float32([0, 0, value])}, tmp_path / "f", {"pymimic": json.dumps(metadata | {"format": 1})}
    )
    with pytest.raises(FileFormatError, match=rf"b: expected finite values, got {value} in row 2"):
        pm.Student.load(tmp_path / "f")


def test_what_a_command_says_of_its_file_can_be_printed(tmp_path):
    pytest.importorskip("typer")
    np.save(tmp_path / "x.npy", np.ones((3, 2), np.float32))
    pm.Student(2, 3, 2).save(tmp_path / "s")
    out = tmp_path / "\x1b[2Jred\n\x07.npy"
    command = [sys.executable, "-m", "pymimic", "predict", tmp_path / "s", "--inputs", tmp_path / "x.npy", "--out", out]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 0
    assert out.exists()
    assert ended.stdout.removesuffix("\n").isprintable()
    assert r"\x1b[2Jred\n\x07.npy: 3 rows" in ended.stdout
