"""The ops on device arrays, against the reference in float64."""

import cases
import numpy as np
import pytest
from ml_dtypes import bfloat16
from on_device import BOUND, close, moved

from pymimic import Workspace, ops
from pymimic.backends import reference
from pymimic.backends.interface import Mask

TRAINING = [name for name in BOUND if name != "cuda-fp16"]
SIZES = [
    {"B": 37, "k": 16, "H": 65, "C": 32},  # no padding
    {"B": 5, "k": 20, "H": 130, "C": 11},
    {"B": 1, "k": 1, "H": 1, "C": 1},
    {"B": 0, "k": 3, "H": 4, "C": 2},
]
HOW = {"dropout": 0.5, "seed": 2**63 + 3, "offset": 7, "origin": (16, 64)}


@pytest.mark.parametrize("backend", BOUND)
@pytest.mark.parametrize("size", SIZES)
def test_shallow_forward(device, size, backend):
    arrays = cases.shallow(size, "float32")
    expected = ops.shallow_forward(*arrays.wide.forward, activation="gelu", **HOW, backend="reference")
    given = moved(device.xp, arrays.forward)
    close(ops.shallow_forward(*given, activation="gelu", **HOW, backend=backend), expected, backend)
    out = device.xp.empty(expected.shape, np.float32)
    assert ops.shallow_forward(*given, activation="gelu", **HOW, backend=backend, out=out) is out
    close(out, expected, backend)


def test_the_backend_follows_the_arrays(device):
    arrays = cases.shallow(SIZES[0], "float32")
    given = moved(device.xp, arrays.forward)
    same = [ops.shallow_forward(*given, backend=name).get() for name in (None, "cuda")]
    assert np.array_equal(*same)
    assert isinstance(ops.shallow_forward(*arrays.forward), np.ndarray)


@pytest.mark.parametrize("backend", TRAINING)
@pytest.mark.parametrize("size", SIZES)
def test_shallow_backward(device, size, backend):
    arrays = cases.shallow(size, "float32")
    expected = ops.shallow_backward(*arrays.wide.backward, activation="tanh", **HOW, backend="reference")
    given = moved(device.xp, arrays.backward)
    for name, gradient in ops.shallow_backward(*given, activation="tanh", **HOW, backend=backend)._asdict().items():
        close(gradient, getattr(expected, name), backend)
    out = ops.ShallowGrads(*(device.xp.full(gradient.shape, np.nan, np.float32) for gradient in expected))
    got = ops.shallow_backward(*given, activation="tanh", **HOW, backend=backend, out=out)
    for have, room, want in zip(got, out, expected):
        assert have is room
        close(have, want, backend)
    only = ops.shallow_backward(*given, needs=("U",), backend=backend)
    assert [name for name, gradient in only._asdict().items() if gradient is not None] == ["U"]


@pytest.mark.parametrize("shape", [(40, 70), (3, 17, 33), (0, 5)])
def test_dropout(device, shape):
    x = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
    expected = ops.dropout(x, 0.3, seed=5, offset=6, origin=(32, 32), backend="reference")
    for seed, offset in ((5, 6), (device.xp.asarray(np.array(5)), device.xp.asarray(np.array(6)))):
        got = ops.dropout(device.xp.asarray(x), 0.3, seed=seed, offset=offset, origin=(32, 32))
        assert np.array_equal(got.get(), expected)
        assert np.array_equal(ops.dropout_backward(device.xp.asarray(x), 0.3, seed=seed, offset=offset, origin=(32, 32)).get(), expected)


@pytest.mark.parametrize("backend", TRAINING)
@pytest.mark.parametrize("size", [(19, 13, 40), (0, 3, 4)])
def test_linear_dropout(device, size, backend, activation):
    rng = np.random.default_rng(1)
    B, inputs, units = size
    shapes = ((B, inputs), (units, inputs), (units,), (B, units))
    x, weight, bias, dout = (rng.standard_normal(shape).astype(np.float32) for shape in shapes)
    how = {"activation": activation, "dropout": 0.25, "seed": 9}
    out = ops.linear_dropout(x, weight, bias, **how, backend="reference")
    expected = ops.linear_dropout_backward(dout, x, weight, out, bias=bias, **how, backend="reference")
    x, weight, bias, dout = moved(device.xp, (x, weight, bias, dout))
    got = ops.linear_dropout(x, weight, bias, **how, backend=backend)
    close(got, out, backend)
    grads = ops.linear_dropout_backward(dout, x, weight, device.xp.asarray(out), bias=bias, **how, backend=backend)
    for gradient, wanted in zip(grads, expected):
        close(gradient, wanted, backend)


def test_factorized_matmul(device):
    rng = np.random.default_rng(2)
    host = [rng.standard_normal(shape).astype(np.float32) for shape in ((7, 9), (4, 9), (21, 4), (21,))]
    x, V, U, b = moved(device.xp, host)
    close(ops.factorized_matmul(x, V, U, b, activation="relu"), ops.factorized_matmul(*host, activation="relu"), "cuda")
    da = rng.standard_normal((7, 21)).astype(np.float32)
    expected = ops.factorized_matmul_backward(da, *host[:3])
    for got, wanted in zip(ops.factorized_matmul_backward(device.xp.asarray(da), x, V, U), expected):
        close(got, wanted, "cuda")


@pytest.mark.parametrize("rows", [17, 0])
def test_losses(device, rows):
    rng = np.random.default_rng(3)
    y, t = (rng.standard_normal((rows, 11)).astype(np.float32) for _ in range(2))
    weights, labels = rng.random(rows).astype(np.float32), rng.integers(0, 11, rows)
    for op, arguments in (
        (ops.mimic_loss, (y, t)), (ops.mimic_loss, (y, t, weights)), (ops.cross_entropy, (y, labels)),
        (ops.cross_entropy, (y, labels, weights)), (ops.distillation_loss, (y, t, 2.0)),
    ):  # fmt: skip
        loss, dy = op(*(device.xp.asarray(a) if isinstance(a, np.ndarray) else a for a in arguments))
        expected, wanted = op(*(a.astype(np.float64) if getattr(a, "dtype", None) == np.float32 else a for a in arguments))
        assert loss.shape == ()
        assert float(loss) == pytest.approx(expected, rel=1e-5, abs=1e-12)
        close(dy, wanted, "cuda")


def test_the_same_call_gives_the_same_bits(device):
    given = moved(device.xp, cases.shallow(SIZES[0], "float32").forward)
    first = ops.shallow_forward(*given, **HOW).get()
    assert all(np.array_equal(ops.shallow_forward(*given, **HOW).get(), first) for _ in range(3))


def test_calls_can_be_captured_inside_a_workspace(device):
    xp = device.xp
    x = xp.asarray(np.ones((20, 40), np.float32))
    given = moved(xp, cases.shallow(SIZES[0], "float32").forward)
    workspace, stream = Workspace(), xp.cuda.Stream(non_blocking=True)
    seed = xp.asarray(np.array(1))

    def calls():
        return ops.dropout(x, 0.5, seed=seed), ops.shallow_forward(*given)

    with workspace:
        calls()
    held = workspace.nbytes
    xp.cuda.get_current_stream().synchronize()
    with stream:
        stream.begin_capture()
        with pytest.raises(ValueError, match=r"workspace: expected a pymimic.Workspace around calls that are captured"):
            calls()
        with workspace:
            y, _ = calls()
            with pytest.raises(ValueError, match=r"workspace: expected the calls, and the shapes, that it was filled with"):
                calls()
        graph = stream.end_capture()
        assert workspace.nbytes == held
        for number in (2, 3):
            seed[...] = number
            graph.launch()
            stream.synchronize()
            assert np.array_equal(y.get(), reference.multiplier((20, 40), Mask(128, number), np.dtype(np.float32)))
    with workspace, pytest.raises(ValueError, match=r"workspace: expected none to be in use"), workspace:
        pass


def test_a_captured_cross_entropy_does_not_look_at_labels(device):
    """Of any integer type; a replay sees those that are there then."""
    xp, rng = device.xp, np.random.default_rng(0)
    y, labels = xp.asarray(rng.standard_normal((6, 5)).astype(np.float32)), xp.asarray(np.zeros(6, np.int32))
    workspace, stream = Workspace(), xp.cuda.Stream(non_blocking=True)
    xp.cuda.get_current_stream().synchronize()
    with stream:
        with workspace:
            ops.cross_entropy(y, labels)
        stream.begin_capture()
        with workspace:
            loss, dy = ops.cross_entropy(y, labels)
        graph = stream.end_capture()
        for last in (1, 4):
            labels[...] = np.int32(last)
            graph.launch()
            stream.synchronize()
            expected, wanted = ops.cross_entropy(y.get(), np.full(6, last))
            assert float(loss) == pytest.approx(expected, rel=1e-5)
            close(dy, wanted, "cuda")


def test_kept_h_is_of_the_same_seed(device):
    """Seeds in a device's memory are the same where they lie in the same place: nobody looks at them."""
    xp, arrays = device.xp, moved(device.xp, cases.shallow({"B": 3, "k": 513, "H": 9, "C": 4}, "float32"))
    dy, z, U, b, W, c = arrays
    seed, other = xp.asarray(np.array(1)), xp.asarray(np.array(1))
    _, saved = ops.shallow_forward(z, U, b, W, c, dropout=0.5, seed=seed, save=True)
    ops.shallow_backward(dy, z, U, b, W, dropout=0.5, seed=seed[...], saved=saved)
    for wrong in (other, 1):
        with pytest.raises(ValueError, match=r"^saved: expected what shallow_forward\(save=True\) returned for the same seed"):
            ops.shallow_backward(dy, z, U, b, W, dropout=0.5, seed=wrong, saved=saved)


@pytest.mark.parametrize("size", SIZES)
def test_bfloat16_arrays(device, size):
    """Rounded operands, float32 results, as on the CPU; without packing where k and C are multiples of 16."""
    arrays = cases.shallow(size, "float32")
    narrow = cases.Shallow(*(a if a.ndim == 1 else a.astype(bfloat16) for a in arrays))
    expected = ops.shallow_forward(*narrow.forward, activation="tanh", **HOW, backend="reference")
    grads = ops.shallow_backward(*narrow.backward, activation="tanh", **HOW, backend="reference")
    there = cases.Shallow(*moved(device.xp, narrow))
    close(ops.shallow_forward(*there.forward, activation="tanh", **HOW), expected, "cuda-bf16")
    for name, gradient in ops.shallow_backward(*there.backward, activation="tanh", **HOW)._asdict().items():
        close(gradient, getattr(grads, name), "cuda-bf16")


def test_the_binding_says_what_a_launch_will_do(device):
    """Float32 runs on the same kernels on every chip. tests/simt/test_plans.py compares plans with launches."""
    (precision, *size), core = (3, 130, 20, 4200, 10), device.core
    forward, rows = (plan(precision, *size, 0) for plan in (core.shallow_forward_plan, core.shallow_backward_rows_plan))
    units = core.shallow_backward_units_plan(precision, *size, True, True)
    assert [plan.kernel for plan in (forward, rows, units)] == ["forward_sm80", "backward_rows_sm80", "backward_units_sm80"]
    assert [(plan.row_block, plan.slab, plan.splits, plan.column_chunks) for plan in (forward, rows, units)] == [
        (128, 64, 8, 1), (128, 32, 15, 1), (64, 64, 1, 1),
    ]  # fmt: skip
    assert [plan.workspace for plan in (forward, rows, units)] == [8 * 130 * 10 * 4, 15 * 130 * 20 * 4, 0]
    assert units.in_place
    assert not core.shallow_backward_units_plan(precision, 130, 20, 4096, 10, True, True).in_place
