"""Formats are promises: files of version 0.1.0 are read by this one, and by readers that were written from docs/howto/formats.md alone.

The files were made by support/make_formats.py, which keeps beside them what they hold. They are never made again.
"""

import ast
import shutil
import sys
from pathlib import Path

import format_readers as readers
import make_formats as made
import numpy as np
import pytest

import pymimic as pm
from pymimic.files import read_safetensors

SUPPORT = Path(__file__).parent / "support"
FILES = SUPPORT / "formats"
KINDS = {"deepnet": pm.DeepNet, "convnet": pm.ConvNet}
MOST_BYTES = 200_000
EPSILON = 2.0**-23  # of float32
TERMS = 64  # roundings of one logit, at most: as many sums as a layer has inputs, over all layers


@pytest.fixture(scope="module")
def expected():
    with np.load(FILES / "expected.npz") as content:
        return dict(content)


def load(name):
    return KINDS.get(name, pm.Student).load(FILES / f"{name}.safetensors")


def of(expected, name):
    return {key.partition("/")[2]: array for key, array in expected.items() if key.startswith(f"{name}/")}


def assert_equal(got, wanted):
    assert got.keys() == wanted.keys()
    for key, array in wanted.items():
        assert got[key].dtype == array.dtype, key
        assert np.array_equal(got[key], array), key


@pytest.mark.parametrize("name", made.NETS)
def test_nets(expected, name):
    net = load(name)
    standards = {} if net.mean is None else {"mean": net.mean, "scale": net.scale}
    assert_equal(net.arrays() | standards, of(expected, name))
    assert net.bits == {"8": 8, "4": 4}.get(name.partition("-")[2][:1])
    kind, configuration, weights, standards = readers.net(FILES / f"{name}.safetensors")
    assert kind == net.file_kind
    assert configuration == net.configuration()
    assert_equal(weights, net.arrays())
    assert (standards is None) == (net.mean is None)
    if standards is not None:
        assert np.array_equal(standards, [net.mean, net.scale])


@pytest.mark.parametrize("name", made.NETS)
def test_what_nets_say(name):
    net = load(name)
    x = np.linspace(-1, 1, 6 * net.inputs, dtype=np.float32).reshape(6, net.inputs)
    wanted = readers.logits(FILES / f"{name}.safetensors", x)
    got = net.predict(x)
    scale = np.abs(wanted).max()
    assert 0 < scale < np.inf
    assert np.abs(got - wanted).max() <= TERMS * EPSILON * scale


@pytest.mark.parametrize("name", made.NETS)
def test_a_net_is_written_as_it_was(tmp_path, name):
    load(name).save(tmp_path / "again")
    assert (tmp_path / "again").read_bytes() == (FILES / f"{name}.safetensors").read_bytes()


@pytest.mark.parametrize("name", made.RUNS)
def test_checkpoints(expected, name):
    groups, metadata = readers.checkpoint(FILES / f"{name}.checkpoint")
    arrays, same = read_safetensors(FILES / f"{name}.checkpoint", "checkpoint")
    assert_equal({f"{group}.{key}": array for group, members in groups.items() for key, array in members.items()}, arrays)
    assert same == {key: value for key, value in metadata.items() if key != "sha256"}
    optimizer = {key.removeprefix("optimizer."): array for key, array in of(expected, name).items()}
    assert_equal(groups["optimizer"], optimizer)
    assert (metadata["counters"]["step"], metadata["counters"]["epoch"], metadata["counters"]["position"]) == (5, 1, 40)
    assert len(metadata["history"]["records"]) == 1
    assert not metadata["finished"]


@pytest.mark.parametrize("name", made.RUNS)
def test_a_run_goes_on_from_its_checkpoint(tmp_path, expected, name):
    trainer = made.trainer(name)
    validation = pm.TransferSet(made.X[:20], made.T[:20]) if "patience" in made.RUNS[name] else None
    history = trainer.fit(made.data(), validation, resume=shutil.copy(FILES / f"{name}.checkpoint", tmp_path / "run"))
    assert [record.epoch for record in history] == [1, 2, 3]
    wanted = of(expected, f"{name}-end")
    for key, array in trainer.student.arrays().items():
        # Steps of size 1e-2 differ between instruction sets by roundings alone: of bfloat16's operands, or of float32.
        bound = 2.0**-7 if "bfloat16" in name else 2.0**-12
        assert np.abs(array - wanted[key]).max() <= bound * np.abs(wanted[key]).max(), key
    assert np.allclose(trainer.student.mean, wanted["mean"], rtol=1e-6)


@pytest.mark.parametrize("name", made.SETS)
def test_transfer_sets(expected, name):
    wanted = of(expected, name)
    x, t, weights = pm.TransferSet.open(FILES / name).batch(np.arange(made.N))
    assert_equal({"inputs": x, "logits": t} | ({} if weights is None else {"weights": weights}), wanted)
    inputs, logits, weights, manifest = readers.transfer_set(FILES / name)
    assert_equal({"inputs": inputs, "logits": logits} | ({} if weights is None else {"weights": weights}), wanted)
    if name == "plain":
        assert np.array_equal(inputs, made.X)
        assert np.array_equal(logits, made.T)
        assert np.allclose(manifest["standardisation"]["mean"], made.T.mean(axis=0))
        assert np.allclose(pm.TransferSet.open(FILES / name).standardised().mean, made.T.mean(axis=0))


@pytest.mark.parametrize("name", made.SETS)
def test_a_set_is_written_as_it_was(tmp_path, name):
    recorded = pm.TransferSet(made.X, made.T, made.WEIGHTS if name in ("plain", "compressed") else None)
    recorded.save(tmp_path / name, rows_per_shard=40, progress=False, **made.SETS[name])
    for path in (FILES / name).glob("*"):
        if path.suffix == ".npy":  # the manifest has compressed files' sums, and zlib's bytes may differ between its versions
            assert (tmp_path / name / path.name).read_bytes() == path.read_bytes(), path.name
    assert {path.name for path in (tmp_path / name).glob("*")} == {path.name for path in (FILES / name).glob("*")}


def test_the_files_are_small_and_all_of_them_are_read():
    names = {path.name for path in FILES.iterdir()}
    assert names == {
        "expected.npz",
        *made.SETS,
        *(f"{name}.safetensors" for name in made.NETS),
        *(f"{name}.checkpoint" for name in made.RUNS),
    }
    assert sum(path.stat().st_size for path in FILES.rglob("*") if path.is_file()) < MOST_BYTES


def test_the_readers_are_independent():
    imports = set()
    for node in ast.walk(ast.parse(Path(readers.__file__).read_text())):
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
            imports |= {name.partition(".")[0] for name in names}
    assert imports - set(sys.stdlib_module_names) == {"numpy"}


def test_a_damaged_file_is_told_by_the_readers_too(tmp_path):
    damaged = bytearray((FILES / "student.safetensors").read_bytes())
    damaged[-1] ^= 1
    (tmp_path / "damaged").write_bytes(damaged)
    with pytest.raises(AssertionError):
        readers.safetensors(tmp_path / "damaged")
