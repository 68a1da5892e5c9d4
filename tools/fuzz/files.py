"""Targets that read files: small files as pymimic writes them, and what reads them."""

from __future__ import annotations

import functools
import gzip
import os
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mutate
import numpy as np

import pymimic as pm
from pymimic.data.mapped import map_npy
from pymimic.demo import datasets
from pymimic.errors import FileFormatError, ManifestError, TrainingDivergedError
from pymimic.files import read_metadata
from pymimic.paper.ledger import COLUMNS, Ledger

D, C = 3, 2


@dataclass(frozen=True)
class Target:
    """Something that takes what strangers made.

    Parameters
    ----------
    seeds : the corpus, made anew each time
    mutate : another input from one
    run : takes an input; the folder is its own, and empty
    allowed : the documented exceptions.
    says : whether each message must say what was expected, on one line that can be printed
    names_file : whether it must name the file too
    megabytes : of memory that an input may take, whose own size is below 0.1
    """

    seeds: Callable[[], Iterable[bytes]]
    mutate: mutate.Mutator
    run: Callable[[bytes, Path], None]
    allowed: tuple[type[Exception], ...]
    says: bool = True
    names_file: bool = True
    megabytes: int = 64


def nets() -> Iterator[Any]:
    """One of each kind, and of each way to store weights."""
    student = pm.Student(D, 5, C, 2)
    student.set_standardisation(np.ones(D), np.ones(D))
    yield student
    yield pm.Student(D, 5, C)
    for bits in (8, 4):
        yield pm.compress(student, bits=bits)
    yield pm.DeepNet([D, 4, 3, C], dropout=0.5)
    yield pm.ConvNet((2, 6), [(3, 2, 1, 1)], C, hidden=[4])
    yield pm.ConvNet((1, 4, 5), [pm.Convolution(2, (3, 2), 2, (1, 0)), (2, 2)], C)


def _saved(save: Callable[[str], Any]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "f")
        save(path)
        return Path(path).read_bytes()


def _read_net(data: bytes, folder: Path) -> None:
    """Whichever kind the file says it is."""
    path = folder / "f"
    path.write_bytes(data)
    kinds = {kind.file_kind: kind for kind in (pm.Student, pm.DeepNet, pm.ConvNet)}
    kind = read_metadata(path).get("kind")
    net = kinds.get(kind if isinstance(kind, str) else "", pm.Student).load(path)
    if net.inputs < 1 << 12:  # the rows are ours, and as wide as we like
        net.predict(np.ones((2, net.inputs), np.float32))
    net.describe(), repr(net), net.stored_nbytes
    assert all(np.isfinite(array).all() for array in net.arrays().values())


def _teacher(x: np.ndarray) -> np.ndarray:
    return np.stack([x.sum(1), *(x[:, i] for i in range(3))], axis=1)


def sets() -> Iterator[bytes]:
    """Folders of each way to store a set, and one that is not complete."""
    x, weights = np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3), np.ones(6, np.float32)
    teacher = pm.from_callable(_teacher, "t")
    ways: list[dict[str, Any]] = [
        {"weights": weights}, {"standardise": True}, {"inputs_dtype": "uint8", "logits_dtype": "float16"}, {"top_logits": 2},
        {"compress": True},
        {"compress": 1, "top_logits": 2, "weights": weights},
    ]  # fmt: skip
    for way in ways:
        with tempfile.TemporaryDirectory() as folder:
            pm.TransferSet.create(folder, teacher, x, rows_per_shard=4, progress=False, **way)
            files = {path.name: path.read_bytes() for path in sorted(Path(folder).iterdir())}
            yield mutate.pack(files)
            if "inputs-00001.npy" in files:
                files["manifest.json"] = files["manifest.json"].replace(b'"complete": true', b'"complete": false')
                yield mutate.pack(files)


def parts() -> Iterator[bytes]:
    """Folders that one of several processes has labelled two shards of three in."""
    x = np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3)
    for compress in (False, True):
        asked = 0

        def answer(rows: np.ndarray) -> np.ndarray:
            nonlocal asked
            asked += 1
            if asked > 2:
                raise KeyboardInterrupt
            return _teacher(rows)

        with tempfile.TemporaryDirectory() as folder:
            with suppress(KeyboardInterrupt):
                teacher = pm.from_callable(answer, "t")
                pm.TransferSet.create(folder, teacher, x, rows_per_shard=2, progress=False, part=(0, 2), compress=compress)
            yield mutate.pack(
                {str(path.relative_to(folder)): path.read_bytes() for path in sorted(Path(folder).rglob("*.*")) if path.is_file()}
            )


def _label_part(data: bytes, folder: Path) -> None:
    """Label what is left."""
    _write_all(data, folder)
    x = np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3)
    pm.TransferSet.create(folder, pm.from_callable(_teacher, "t"), x, rows_per_shard=2, progress=False, part=(0, 1))


def _write_all(data: bytes, folder: Path) -> None:
    for name, content in mutate.unpack(data).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _read_set(data: bytes, folder: Path) -> None:
    _write_all(data, folder)
    for verify in (False, True):
        rows = pm.TransferSet.open(folder, verify=verify)
        repr(rows)
        if rows.outputs < 1 << 16:  # with `top_logits` it stands in the manifest alone: as many logits a row as it says
            _, logits, _ = rows.batch(np.arange(len(rows)))
            if np.isfinite(logits).all():
                rows.standardised()


def _label(data: bytes, folder: Path) -> None:
    """Go on with labelling into the folder."""
    _write_all(data, folder)
    x = np.linspace(0, 1, 18, dtype=np.float32).reshape(6, 3)
    pm.TransferSet.create(folder, pm.from_callable(_teacher, "t"), x, rows_per_shard=4, progress=False)


def _trainer(kind: str, epochs: int, **more: Any) -> pm.Trainer:
    nets: dict[str, Callable[[], Any]] = {"student": lambda: pm.Student(D, 4, C, 2, dropout=0.25), "deepnet": lambda: pm.DeepNet([D, 4, C])}
    if kind == "plain":
        return pm.Trainer(pm.Student(D, 4, C), pm.SGD(0.01, momentum=0.9), epochs=epochs, batch_size=4, progress=False, **more)
    more |= {"ema": 0.9, "keep_best": True, "standardise_inputs": True, "standardise_targets": True}
    return pm.Trainer(nets[kind](), pm.AdamW(0.01), epochs=epochs, batch_size=4, progress=False, **more)


@functools.cache
def _rows() -> tuple[pm.TransferSet, pm.TransferSet]:
    x = np.random.default_rng(0).standard_normal((14, D), np.float32)
    t = np.stack([x.sum(1), np.abs(x).sum(1)], axis=1)
    return pm.TransferSet(x[:10], t[:10]), pm.TransferSet(x[10:], t[10:])


class _Stopping:
    """The rows to train on, up to one call of `batch`."""

    inputs, outputs = D, C

    def __init__(self, calls: int) -> None:
        self.calls = calls

    def __len__(self) -> int:
        return len(_rows()[0])

    def batch(self, indices: Any) -> Any:
        self.calls -= 1
        if self.calls < 0:
            raise KeyboardInterrupt
        return _rows()[0].batch(indices)


def checkpoints() -> Iterator[bytes]:
    """Of runs in the middle of an epoch, between two, and at their end."""
    for kind in ("student", "plain", "deepnet"):
        for calls in range(2, 9):
            with tempfile.TemporaryDirectory() as folder, suppress(FileNotFoundError):  # where it stopped before the first step
                path = Path(folder, "c")
                with suppress(KeyboardInterrupt):
                    _trainer(kind, 2, checkpoint=path, checkpoint_every=1).fit(_Stopping(calls), _rows()[1])
                yield path.read_bytes()


def _resume(data: bytes, folder: Path) -> None:
    path = folder / "f"
    path.write_bytes(data)
    configuration = read_metadata(path, "checkpoint").get("configuration")
    student = configuration.get("student") if isinstance(configuration, dict) else None
    kind = "deepnet" if isinstance(student, dict) and "layer_sizes" in student else "student"
    if isinstance(configuration, dict) and configuration.get("optimizer") == "SGD":
        kind = "plain"
    trainer = _trainer(kind, 2)
    with suppress(TrainingDivergedError):  # weights may be as large as float32 goes
        trainer.fit(*_rows(), resume=path)
    assert all(np.isfinite(array).all() for array in trainer.student.arrays().values())


def _npy() -> Iterator[bytes]:
    for array in (np.ones((4, 3), np.float32), np.ones((2, 2), ">f8"), np.arange(5), np.asfortranarray(np.ones((2, 3), "f4"))):
        yield _saved(lambda path, array=array: np.save(open(path, "wb"), array))  # noqa: SIM115


def _map(data: bytes, folder: Path) -> None:
    path = folder / "x.npy"
    path.write_bytes(data)
    array = map_npy("x", path)
    assert array.nbytes <= len(data)
    np.array(array)


IDX = bytes((0, 0, 8, 3, 0, 0, 0, 2, 0, 0, 0, 3, 0, 0, 0, 4)) + bytes(24)


def _read_idx(name: str) -> Callable[[bytes, Path], None]:
    def run(data: bytes, folder: Path) -> None:
        (folder / name).write_bytes(data)
        datasets.read_idx(folder / name, (2, 3, 4))

    return run


def _read_letter(data: bytes, folder: Path) -> None:
    (folder / "letter-recognition.data").write_bytes(data)
    datasets._LETTER_ROWS = 20
    datasets._read_letter(folder / "letter-recognition.data")


def _read_ledger(data: bytes, folder: Path) -> None:
    (folder / "e.csv").write_bytes(data)
    ledger = Ledger(folder, "e")
    ledger.has(0, "a", "b")
    for line in ledger.lines:
        ledger.net(line)


LETTER = b"".join(b"%c,%s\n" % (65 + i, b",".join(b"%d" % (j % 16) for j in range(i, i + 16))) for i in range(20))
LEDGER = ",".join(COLUMNS).encode() + b"\r\n" + b"\r\n".join(b"0,a,b%d" % i + b",1" * (len(COLUMNS) - 3) for i in range(3)) + b"\r\n"
_READ = (FileFormatError,)
TARGETS = {
    "nets": Target(lambda: (_saved(net.save) for net in nets()), mutate.safetensors, _read_net, _READ),
    "sets": Target(sets, mutate.folder, _read_set, (ManifestError, FileNotFoundError)),
    "labelling": Target(sets, mutate.folder, _label, (ManifestError, FileExistsError)),
    "parts": Target(parts, mutate.folder, _label_part, (ManifestError, FileExistsError, FileNotFoundError)),
    "checkpoints": Target(checkpoints, mutate.safetensors, _resume, (ValueError,)),
    "npy": Target(_npy, mutate.npy, _map, _READ),
    "idx": Target(lambda: [IDX], mutate.damaged, _read_idx("f"), _READ),
    "idx.gz": Target(lambda: [gzip.compress(IDX, mtime=0)], mutate.gz(mutate.damaged), _read_idx("f.gz"), _READ),
    "letter": Target(lambda: [LETTER], mutate.damaged, _read_letter, _READ),
    "ledger": Target(lambda: [LEDGER], mutate.damaged, _read_ledger, (ValueError,)),
}
