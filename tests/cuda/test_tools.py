"""The command line and the benchmark on a device."""

import importlib
import sys

import numpy as np
import pytest

from pymimic import Student, cli
from pymimic.bench import suite, worker
from pymimic.bench.shapes import SHAPES
from pymimic.bench.verify import write_case


def call(*arguments):
    """The exit status."""
    with pytest.raises(SystemExit) as stopped:
        cli.run([str(argument) for argument in arguments])
    return stopped.value.code


def test_info_names_the_device(device, capsys):
    assert call("info") == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("cuda:"))
    assert line.split(maxsplit=1)[1] == "; ".join(device.core.devices())


def test_distill_and_predict(device, tmp_path, capsys):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((100, 6)).astype(np.float32)
    t = np.tanh(x[:, :3]).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    np.save(tmp_path / "t.npy", t)
    out = tmp_path / "s.safetensors"
    sizes = ("--hidden", "32", "--rank", "4", "--epochs", "2", "--batch-size", "40")
    files = ("--inputs", tmp_path / "x.npy", "--logits", tmp_path / "t.npy", "--out", out)
    assert call("distill", *files, *sizes, "--device", "cuda", "--dtype", "bfloat16") == 0, capsys.readouterr().err
    assert call("predict", out, "--inputs", tmp_path / "x.npy", "--out", tmp_path / "y.npy", "--device", "cuda") == 0
    np.testing.assert_allclose(np.load(tmp_path / "y.npy"), Student.load(out).predict(x), rtol=1e-4, atol=1e-5)
    assert call("distill", *files, *sizes, "--device", "tpu") == 1
    assert "device: expected one of cpu, cuda, got 'tpu'" in capsys.readouterr().err


def test_contestants_of_either_device():
    everyone = suite.peer_names() + suite.peer_names("cuda")
    assert len(everyone) == len(set(everyone))
    assert suite.peer_names("cuda")[0] == "pymimic_cuda"
    assert all("cuda" in name for name in suite.default_peers("cuda"))
    assert not any("cuda" in name for name in suite.default_peers())


def forget_contestants(monkeypatch):
    """Those that know another CuPy."""
    for module in [module for module in sys.modules if module.startswith("peers.pymimic_cuda")]:
        monkeypatch.delitem(sys.modules, module)
        monkeypatch.delattr(sys.modules["peers"], module.removeprefix("peers."))


@pytest.mark.parametrize("name", ["pymimic_cuda", "pymimic_cuda_bf16", "pymimic_cuda_graph_bf16"])
@pytest.mark.parametrize("what", ["forward", "step", "adamw"])
@pytest.mark.parametrize("shape", ["letter-4k", "mnist-8k"])
def test_our_contestants(device, monkeypatch, tmp_path, name, what, shape):
    if name.endswith("bf16") and what == "adamw":
        monkeypatch.setattr("pymimic.bench.verify._ADAMW_TOLERANCE", 0.3)
    forget_contestants(monkeypatch)
    sized = SHAPES[shape].small()
    write_case(sized, tmp_path, {what})
    peer = worker.load(name)
    run, error = worker.make(peer, what, tmp_path, sized.B)
    assert 0 < error < 0.3
    timed = worker.time_calls_on_device(run, 2, 1)
    assert timed["seconds"] > 0
    assert peer.peak_bytes() > 0
    assert worker.introduction(peer)["functions"] == ["forward", "step", "adamw"]
    forget_contestants(monkeypatch)


def test_ceilings(device):
    ceilings = importlib.reload(importlib.import_module("ceilings_cuda"))
    found = ceilings.measure(2, 32, 4 << 20)
    assert found.keys() == {"float32", "bfloat16", "float64", "read", "copy"}
    assert list(found["read"]) == [str(1 << 20), str(4 << 20)]
    assert all(rate > 0 for rate in (found["float32"], found["bfloat16"], found["copy"], *found["read"].values()))
