"""Nets written as ONNX models answer in ONNX Runtime as the library does, and files are treated as everywhere."""

import errno
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import pymimic as pm
from pymimic.backends.interface import quantised
from pymimic.onnx import export, exporter, packages

ROOT = Path(__file__).parents[1]
D, H, C, ROWS = 12, 300, 5, 33


@pytest.fixture(scope="module")
def onnx():
    return pytest.importorskip("onnx", packages.LEAST["onnx"])


@pytest.fixture(scope="module")
def runtime():
    return pytest.importorskip("onnxruntime", packages.LEAST["onnxruntime"])


def student(rank=4, activation="relu", mean=None, seed=0, hidden=H):
    net, rng = pm.Student(D, hidden, C, rank, activation, seed=seed), np.random.default_rng(seed)
    net.set_arrays(b=rng.normal(size=hidden), c=rng.normal(size=C))
    if mean is not None:
        net.set_standardisation(rng.normal(size=D) + mean, 1 / (1 + rng.random(D)))
    return net


def deep_net(activation="tanh"):
    net = pm.DeepNet([D, 40, 30, C], activation)
    net.set_standardisation(np.full(D, 0.3), np.full(D, 2.0))
    return net


def rows(mean=0.0, count=ROWS):
    return (np.random.default_rng(1).normal(size=(count, D)) + mean).astype(np.float32)


def answer(runtime, path, x):
    return runtime.InferenceSession(path, providers=["CPUExecutionProvider"]).run(["y"], {"x": x})[0]


def error(y, wanted):
    """The largest, as a share of the largest |y|."""
    return np.abs(y - wanted).max() / np.abs(wanted).max()


def in_float64(net, stored, x):
    """y of a student whose matrices are `stored(matrix)`."""
    a = {name: stored(array) if array.ndim == 2 else array for name, array in net.arrays().items()}
    z = x if net.mean is None else (x - net.mean.astype(np.float64)) * net.scale
    z = z @ a["V"].T if "V" in a else z
    return np.maximum(z @ a["U"].T + a["b"], 0) @ a["W"] + a["c"]


# What models compute


@pytest.mark.parametrize("mean", [None, 0.0, 1e4])
@pytest.mark.parametrize("rank", [None, 4])
def test_a_student_in_float32_is_predict(onnx, runtime, tmp_path, activation, rank, mean):
    net, x = student(rank, activation, mean), rows(mean or 0.0)
    export(net, tmp_path / "s.onnx")
    assert error(answer(runtime, tmp_path / "s.onnx", x), net.predict(x)) < 1e-5
    nodes = [node.op_type for node in onnx.load(tmp_path / "s.onnx").graph.node]
    assert ("Sub" in nodes) == (mean == 1e4)  # the others are folded
    assert nodes.count("Gemm") == (2 if rank is None else 3)


@pytest.mark.parametrize("mean", [None, 1.0])
@pytest.mark.parametrize("rank", [None, 4])
def test_float16_and_int8_round_weights_alone(onnx, runtime, tmp_path, rank, mean):
    net, x = student(rank, mean=mean), rows(mean or 0.0)
    stored = {
        "float16": lambda matrix: matrix.astype(np.float16).astype(np.float64),
        "int8": lambda matrix: np.multiply(*(part.astype(np.float64).reshape(len(matrix), -1) for part in quantised(matrix))),
    }
    for precision, rounded in stored.items():
        export(net, tmp_path / "s.onnx", precision)
        y = answer(runtime, tmp_path / "s.onnx", x)
        assert error(y, in_float64(net, rounded, x)) < 1e-5
        assert error(y, net.predict(x)) > 1e-5  # weights were rounded


@pytest.mark.parametrize("rank", [None, 4])
def test_int8_is_the_predictors(onnx, runtime, tmp_path, activation, rank):
    net, x = student(rank, activation, 1.0), rows(1.0)
    export(net, tmp_path / "s.onnx", "int8")
    assert error(answer(runtime, tmp_path / "s.onnx", x), pm.Predictor(net, "int8").predict(x)) < 1e-3
    assert error(pm.Predictor(net, "int8").predict(x), net.predict(x)) > 1e-3  # it is the rounding that they share


def test_integers_that_a_net_has_are_kept(onnx, runtime, tmp_path):
    """Those of 4 bits too, whose largest would have another scale."""
    rng, net, sizes = np.random.default_rng(0), student(), {"V": (4, D), "U": (H, 4), "W": (H, C)}
    net.set_integers(
        4, **{name: (rng.integers(-7, 8, size).astype(np.int8), rng.random(size[0], np.float32)) for name, size in sizes.items()}
    )
    export(net, tmp_path / "s.onnx", "int8")
    assert error(answer(runtime, tmp_path / "s.onnx", rows()), net.predict(rows())) < 1e-5


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_a_deep_net(onnx, runtime, tmp_path, activation, precision):
    net, x = deep_net(activation), rows()
    export(net, tmp_path / "d.onnx", precision)
    assert error(answer(runtime, tmp_path / "d.onnx", x), net.predict(x)) < {"float32": 1e-5, "float16": 3e-3, "int8": 0.05}[precision]


def test_any_number_of_rows(onnx, runtime, tmp_path):
    net = student()
    export(net, tmp_path / "s.onnx")
    for count in (0, 1, 100):
        assert answer(runtime, tmp_path / "s.onnx", rows(count=count)).shape == (count, C)


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_extreme_scales_are_not_folded(onnx, runtime, tmp_path, scale):
    net = pm.Student(D, H, C)
    net.set_standardisation(np.zeros(D), np.full(D, scale))
    export(net, tmp_path / "s.onnx")
    x = (rows() / (scale or 1)).astype(np.float32)
    assert error(answer(runtime, tmp_path / "s.onnx", x) + 1, net.predict(x) + 1) < 1e-5


# What models are


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
@pytest.mark.parametrize("net", [student(None, "gelu", 1e3), student(4, "gelu", 1.0), deep_net()], ids=["without V", "with V", "deep"])
def test_models_are_strictly_right(onnx, tmp_path, net, precision):
    export(net, tmp_path / "s.onnx", precision)
    onnx.checker.check_model(tmp_path / "s.onnx", full_check=True)
    model = onnx.load(tmp_path / "s.onnx")
    assert [opset.version for opset in model.opset_import] == [13 if precision == "int8" else 9]
    assert (model.producer_name, model.producer_version) == ("pymimic", pm.__version__)
    assert json.loads({entry.key: entry.value for entry in model.metadata_props}["pymimic"]) == {"precision": precision, **net.describe()}
    sizes = [
        [size.dim_param or size.dim_value for size in end.type.tensor_type.shape.dim] for end in (*model.graph.input, *model.graph.output)
    ]
    assert sizes == [["B", D], ["B", C]]


def test_precisions_take_fewer_bytes(onnx, tmp_path):
    sizes = {}
    for precision in ("float32", "float16", "int8"):
        export(student(None, hidden=3000), tmp_path / "s.onnx", precision)
        sizes[precision] = (tmp_path / "s.onnx").stat().st_size
    assert sizes["float16"] < 0.6 * sizes["float32"]
    assert sizes["int8"] < 0.45 * sizes["float32"]


@pytest.mark.parametrize("precision", ["float32", "float16", "int8"])
def test_large_weights_go_to_a_file_of_their_own(onnx, runtime, tmp_path, monkeypatch, precision):
    net, x = student(), rows()
    export(net, tmp_path / "whole.onnx", precision)
    monkeypatch.setattr(exporter, "_MOST_BYTES", 2000)
    export(net, tmp_path / "s.onnx", precision)
    (data,) = tmp_path.glob("s.onnx.*.data")
    assert data.stat().st_size >= (tmp_path / "whole.onnx").stat().st_size * 0.8
    assert (tmp_path / "s.onnx").stat().st_size < 10_000
    onnx.checker.check_model(tmp_path / "s.onnx", full_check=True)
    assert np.array_equal(answer(runtime, tmp_path / "s.onnx", x), answer(runtime, tmp_path / "whole.onnx", x))
    export(student(seed=1), tmp_path / "s.onnx", precision)  # the first model's data are still there, for copies of it
    assert len(list(tmp_path.glob("s.onnx.*.data"))) == 2


def test_a_data_file_that_cannot_be_written_leaves_the_model(onnx, tmp_path, monkeypatch):
    export(student(), tmp_path / "s.onnx")
    before = (tmp_path / "s.onnx").read_bytes()
    monkeypatch.setattr(exporter, "_MOST_BYTES", 2000)
    replacing = exporter.replacing

    def full(path):
        if str(path).endswith(".data"):
            raise OSError(errno.ENOSPC, "no space left", path)
        return replacing(path)

    monkeypatch.setattr(exporter, "replacing", full)
    with pytest.raises(OSError, match="no space left"):
        export(student(seed=1), tmp_path / "s.onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["s.onnx"]
    assert (tmp_path / "s.onnx").read_bytes() == before


# What is refused


def test_wrong_arguments(onnx, tmp_path):
    path = tmp_path / "s.onnx"
    with pytest.raises(TypeError, match=r"student: expected a pymimic\.Student or a pymimic\.DeepNet, got ConvNet"):
        export(pm.ConvNet((1, 8), [pm.Convolution(2, 3)], 2), path)
    with pytest.raises(ValueError, match="precision: expected one of float32, float16, int8, got 'bfloat16'"):
        export(student(), path, "bfloat16")
    net = student()
    net.set_arrays(W=np.full((H, C), 1e5))
    with pytest.raises(ValueError, match=r"precision: expected 'float32' for weights beyond 65504, got 'float16' with 100000 in W"):
        export(net, path, "float16")
    net.set_arrays(W=np.full((H, C), np.nan))
    with pytest.raises(ValueError, match="W: expected finite values, got nan in row 0"):
        export(net, path)
    with pytest.raises(OSError, match="folder that exists"):
        export(student(), tmp_path / "none" / "s.onnx")
    assert list(tmp_path.iterdir()) == []


def test_import_pymimic_imports_neither_package():
    code = "import sys, pymimic, pymimic.onnx; print(sorted({'onnx', 'onnxruntime', 'google.protobuf'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_missing_and_old_packages_are_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'onnx: expected version 1\.16 or later, got none .*: pip install -U "onnx>=1\.16"'):
        export(student(), tmp_path / "s.onnx")
    monkeypatch.setitem(sys.modules, "onnx", type(sys)("onnx"))
    sys.modules["onnx"].__version__ = "1.9.0"
    with pytest.raises(ImportError, match=r'onnx: expected version 1\.16 or later, got 1\.9\.0: pip install -U "onnx>=1\.16"'):
        export(student(), tmp_path / "s.onnx")


def test_least_versions_are_those_of_the_extra():
    if not (ROOT / "pyproject.toml").is_file():
        pytest.skip("not a checkout")
    extra = re.search(r"^onnx = \[(.+)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[1]
    assert dict(re.findall(r'"(\w+)>=([\d.]+)"', extra)) == packages.LEAST


# The command


@pytest.fixture
def shell(onnx, tmp_path, monkeypatch):
    """`call`, in a folder with a saved student."""
    pytest.importorskip("typer")
    from command_line import call

    monkeypatch.chdir(tmp_path)
    student().save("s.safetensors")
    return call


@pytest.mark.parametrize(("precision", "opset"), [("float32", 9), ("float16", 9), ("int8", 13)])
def test_the_command_writes_what_the_function_does(shell, capsys, precision, opset):
    assert shell("export", "s.safetensors", "s.onnx", "--precision", precision) == 0
    size = Path("s.onnx").stat().st_size
    assert capsys.readouterr().out == f"s.onnx: {size} bytes, opset {opset}\n"
    export(student(), "again.onnx", precision)
    assert Path("s.onnx").read_bytes() == Path("again.onnx").read_bytes()
    assert shell("export", "s.safetensors", "s.onnx", "--precision", precision) == 0  # over one of ours


def test_the_command_takes_a_deep_net(shell, runtime):
    net = deep_net()
    net.save("d.safetensors")
    assert shell("export", "d.safetensors", "d.onnx") == 0
    assert error(answer(runtime, "d.onnx", rows()), net.predict(rows())) < 1e-5


def test_the_command_refuses_in_one_line(shell, onnx, capsys):
    from command_line import only_line

    Path("text.onnx").write_text("no model")
    net = pm.ConvNet((1, 8), [pm.Convolution(2, 3)], 2)
    net.save("c.safetensors")
    export(student(), "other.onnx")
    other = onnx.load("other.onnx")
    other.producer_name = "pytorch"
    onnx.save(other, "other.onnx")
    cases = [
        (("s.safetensors", "./s.safetensors"), "out: expected another file than net's"),
        (
            ("s.safetensors", "text.onnx"),
            "out: expected no file, or an ONNX model that pymimic wrote to be replaced, got another: 'text.onnx'",
        ),
        (("s.safetensors", "other.onnx"), "out: expected no file, or an ONNX model that pymimic wrote to be replaced, got another"),
        (("s.safetensors", "none/s.onnx"), "out: expected a file in a folder that exists"),
        (("none.safetensors", "s.onnx"), "net: No such file or directory: 'none.safetensors'"),
        (("text.onnx", "s.onnx"), "net: 'text.onnx': expected a whole safetensors file"),
        (("c.safetensors", "s.onnx"), "net: expected a student or a deepnet, got a 'convnet' file: 'c.safetensors'"),
        (("s.safetensors", "s.onnx", "--precision", "int4"), "precision: expected one of float32, float16, int8, got 'int4'"),
    ]
    before = {path.name: path.read_bytes() for path in Path().iterdir()}
    for arguments, says in cases:
        assert shell("export", *arguments) == 1
        assert says in only_line(capsys)
    assert {path.name: path.read_bytes() for path in Path().iterdir()} == before


def test_the_command_says_what_to_install(shell, monkeypatch, capsys):
    from command_line import only_line

    monkeypatch.setitem(sys.modules, "onnx", None)
    assert shell("export", "s.safetensors", "s.onnx") == 1
    assert 'pip install -U "onnx>=1.16"' in only_line(capsys)
    assert not Path("s.onnx").exists()
