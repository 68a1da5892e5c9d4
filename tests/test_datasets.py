"""The readers of labelled sets: their splits, and what they say of files that are not the publisher's."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from pymimic import FileFormatError
from pymimic.demo import datasets

SHARED = Path(__file__).parents[2] / "shared" / "data"


def letter_lines():
    """20,000 lines whose first four integers are the line's number in base 16, and whose class is its remainder by 26."""
    return [f"{chr(65 + i % 26)},{i >> 12 & 15},{i >> 8 & 15},{i >> 4 & 15},{i & 15}" + ",7" * 12 for i in range(20_000)]


def write_letter(folder, lines):
    (folder / "letter-recognition.data").write_text("\n".join(lines) + "\n")
    return folder


def numbers(rows):
    """The lines' numbers, from the features."""
    digits = np.rint(rows.x[:, :4].astype(np.float64) * 15).astype(int)
    return digits @ [4096, 256, 16, 1]


def idx(values):
    values = np.asarray(values, np.uint8)
    return bytes([0, 0, 8, values.ndim]) + np.array(values.shape, ">u4").tobytes() + values.tobytes()


def write_mnist(folder, pack=True):
    for prefix, rows in (("train", 60_000), ("t10k", 10_000)):
        images = np.zeros((rows, 28, 28), np.uint8)
        images[:, 0, 0], images[:, 0, 1], images[:, 27, 27] = np.arange(rows) >> 8, np.arange(rows) & 255, 255
        for kind, values in (("images-idx3", images), ("labels-idx1", np.arange(rows) % 10)):
            name, content = f"{prefix}-{kind}-ubyte", idx(values)
            if pack:
                (folder / f"{name}.gz").write_bytes(gzip.compress(content, 1))
            else:
                (folder / name).write_bytes(content)
    return folder


def test_letter_tests_on_the_last_4000_rows_and_trains_on_others(tmp_path):
    data = datasets.load("letter", write_letter(tmp_path, letter_lines()), 5)
    train, validation, test = (numbers(part) for part in (data.train, data.validation, data.test))
    assert np.array_equal(test, np.arange(16_000, 20_000))
    assert [len(train), len(validation)] == [4000, 2000]
    assert len(np.unique(np.concatenate([train, validation]))) == 6000
    assert max(train.max(), validation.max()) < 16_000
    for part, rows in ((data.train, train), (data.validation, validation), (data.test, test)):
        assert np.array_equal(part.labels, rows % 26)
    assert (data.inputs, data.outputs, data.train.x.dtype) == (16, 26, np.float32)
    assert np.array_equal(numbers(datasets.letter(tmp_path, 5).train), train)
    assert not np.array_equal(numbers(datasets.letter(tmp_path, 6).train), train)


@pytest.mark.parametrize(
    "line", ["t,2,8,3,5,1,8,13,0,6,6,10,8,0,8,0,8", "T,2,8", "T" + ",16" * 16, "T" + ",-1" * 16, "TT" + ",1" * 16, "", "T" + ",1.5" * 16]
)
def test_a_bad_line_of_letter_is_named(tmp_path, line):
    lines = letter_lines()
    lines[41] = line
    with pytest.raises(FileFormatError, match=r"letter-recognition.data': expected a letter A-Z and 16 integers .* in line 42, got"):
        datasets.letter(write_letter(tmp_path, lines), 0)


def test_letter_of_another_length_is_refused(tmp_path):
    with pytest.raises(FileFormatError, match="expected 20000 lines, got 19999"):
        datasets.letter(write_letter(tmp_path, letter_lines()[1:]), 0)


@pytest.mark.parametrize("pack", [True, False])
def test_mnist_validates_on_the_last_10000_training_images(tmp_path, pack):
    data = datasets.load("mnist", write_mnist(tmp_path, pack), 0)
    for part, first, rows in ((data.train, 0, 50_000), (data.validation, 50_000, 10_000), (data.test, 0, 10_000)):
        here = np.arange(first, first + rows)
        assert part.x.shape == (rows, 784)
        assert np.array_equal(np.rint(part.x[:, 0] * 255) * 256 + np.rint(part.x[:, 1] * 255), here)
        assert (part.x[:, -1] == 1).all()
        assert np.array_equal(part.labels, here % 10)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (gzip.compress(idx(np.zeros((3, 2))))[:-9], "expected a whole gzip file"),
        (b"not gzip at all", "expected a whole gzip file"),
        (b"", "expected an IDX file"),
        (
            gzip.compress(b"\0\0\x0d\x02" + bytes(100)),
            "expected an IDX file of bytes .* begins with 00000802, got '00000d02'",
        ),
        (gzip.compress(idx(np.zeros(6))), "expected an IDX file of bytes with 2 axes"),
        (gzip.compress(idx(np.zeros((3, 2)))[:6]), "expected an IDX file"),
        (gzip.compress(idx(np.zeros((2, 3)))), r"expected sizes \(3, 2\), got \(2, 3\)"),
        (gzip.compress(idx(np.zeros((3, 2)))[:-1]), "expected 6 values, got 5"),
        (gzip.compress(idx(np.zeros((3, 2))) + b"!"), "expected 6 values, got 7"),
    ],
    ids=[
        "truncated gzip", "no gzip", "empty", "floats", "one axis", "truncated header", "other sizes", "truncated", "too long",
    ],
)  # fmt: skip
def test_a_bad_idx_file_is_named(tmp_path, content, message):
    path = tmp_path / "some.gz"
    path.write_bytes(content)
    with pytest.raises(FileFormatError, match=f"some.gz': {message}"):
        datasets.read_idx(path, (3, 2))


def test_mnist_labels_beyond_nine_are_refused(tmp_path):
    write_mnist(tmp_path)
    labels = np.zeros(10_000)
    labels[77] = 10
    (tmp_path / "t10k-labels-idx1-ubyte.gz").write_bytes(gzip.compress(idx(labels), 1))
    with pytest.raises(FileFormatError, match=r"t10k-labels.*expected labels in \[0, 9\], got 10 in row 77"):
        datasets.mnist(tmp_path)


def test_wrong_arguments(tmp_path):
    with pytest.raises(ValueError, match="data: expected one of mnist1d, letter, mnist, got 'cifar'"):
        datasets.load("cifar", None, 0)
    with pytest.raises(ValueError, match="path: expected none with data 'mnist1d'"):
        datasets.load("mnist1d", tmp_path, 0)
    for name in ("letter", "mnist"):
        with pytest.raises(ValueError, match=f"path: expected the folder with {name}'s files, got none"):
            datasets.load(name, None, 0)
        with pytest.raises(FileNotFoundError, match=f"expected the folder with {name}'s files.*nowhere"):
            datasets.load(name, tmp_path / "nowhere", 0)
        with pytest.raises(FileNotFoundError, match=r"letter-recognition.data|train-images"):
            datasets.load(name, tmp_path, 0)
    with pytest.raises(ValueError, match="seed: expected"):
        datasets.mnist1d(-1)


@pytest.mark.skipif(not (SHARED / "letter").is_dir(), reason="the publisher's Letter file is not here")
def test_letter_itself():
    data = datasets.letter(SHARED / "letter", 0)
    assert np.array_equal(np.rint(data.test.x[-1] * 15), [4, 9, 6, 6, 2, 9, 5, 3, 1, 8, 1, 8, 2, 7, 2, 8])
    assert data.test.labels[-1] == 0


@pytest.mark.skipif(not (SHARED / "mnist").is_dir(), reason="MNIST's files are not here")
def test_mnist_itself():
    data = datasets.mnist(SHARED / "mnist")
    assert data.train.labels[:5].tolist() == [5, 0, 4, 1, 9]
    assert np.bincount(data.test.labels).tolist() == [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
    assert 0.1 < data.train.x.mean() < 0.16


@pytest.mark.parametrize("line", ["A" + ",1" * 15 + "," + "1" * 5000, "A," + "1" * 5000 + ",1" * 15, "A" + ",0000001" * 16])
def test_long_numbers_in_letter_are_a_line_that_is_named(tmp_path, line):
    with pytest.raises(FileFormatError, match=r"letter-recognition.data': expected a letter A-Z and 16 integers .* in line 3, got"):
        datasets.letter(write_letter(tmp_path, [*letter_lines()[:2], line, *letter_lines()[3:]]), 0)


def test_a_letter_file_of_any_size_is_not_read_whole(tmp_path):
    path = write_letter(tmp_path, letter_lines())
    with open(path / "letter-recognition.data", "ab") as file:
        file.truncate(1 << 40)  # sparse: no room on disk
    with pytest.raises(FileFormatError, match=r"letter-recognition.data': expected 20000 lines of at most 64 bytes, got more"):
        datasets.letter(path, 0)
