"""Each op beside the same in NumPy: what it computes is checked, its operations and least bytes are counted."""

import numpy as np
import pytest
from side_by_side import compare

from pymimic import SGD, AdamW, ShallowWeights, ops
from pymimic.bench.shapes import SHAPES

BOTTLENECKS = [name for name, shape in SHAPES.items() if shape.k is not None]
FLIPS = 5e-3  # relu's gate may flip where a pre-activation is within rounding of 0


def nbytes(*arrays):
    return sum(array.nbytes for array in arrays)


@pytest.fixture
def wide(shape, values):
    """z, U, b, W, c and dy of the wide layer, with z about normal."""
    rng = np.random.default_rng(1)
    z = rng.standard_normal((shape.B, shape.rank), np.float32)
    dy = rng.standard_normal((shape.B, shape.C), np.float32)
    return z, values["U"], values["b"], values["W"], values["c"], dy


def hidden(z, U, b):
    h = z @ U.T
    h += b
    return np.maximum(h, 0, out=h)


def shallow_gradients(dy, z, U, b, W):
    h = hidden(z, U, b)
    da = dy @ W.T
    da *= h > 0
    return da @ U, da.T @ z, da.sum(0), h.T @ dy, dy.sum(0)


def test_shallow_forward(benchmark, shape, wide):
    z, U, b, W, c, dy = wide
    operations = 2 * shape.B * shape.H * (shape.rank + shape.C)
    compare(
        benchmark, lambda: ops.shallow_forward(z, U, b, W, c), lambda: hidden(z, U, b) @ W + c,
        operations=operations, moved=nbytes(z, U, b, W, c, dy),
    )  # fmt: skip


@pytest.mark.parametrize("keep", [False, True], ids=["recompute", "keep"])
def test_shallow_backward(benchmark, shape, wide, keep):
    z, U, b, W, c, dy = wide
    saved = ops.shallow_forward(z, U, b, W, c, save=True)[1] if keep else None
    products = shape.rank * (3 - keep) + 2 * shape.C
    compare(
        benchmark, lambda: tuple(ops.shallow_backward(dy, z, U, b, W, saved=saved)), lambda: shallow_gradients(dy, z, U, b, W),
        operations=2 * shape.B * shape.H * products, moved=nbytes(z, dy, z) + 2 * nbytes(U, b, W), tolerance=FLIPS,
    )  # fmt: skip


@pytest.mark.parametrize("optimizer", [SGD(1e-6), SGD(1e-6, momentum=0.9), AdamW(1e-6)], ids=["sgd", "momentum", "adamw"])
def test_shallow_step(benchmark, shape, wide, optimizer):
    """The update inside the backward pass beside the same backward pass and updates apart: `x apart` is what the fusion wins."""
    z, U, b, W, c, dy = wide
    weights, apart = ShallowWeights(U, b, W, c), {"U": U.copy(), "b": b.copy(), "W": W.copy(), "c": c.copy()}
    fused, plain = (type(optimizer).__new__(type(optimizer)) for _ in range(2))
    for copy in (fused, plain):
        copy.__dict__.update(optimizer.__dict__, slots={})

    def unfused():
        grads = ops.shallow_backward(dy, z, apart["U"], apart["b"], apart["W"])
        plain.advance()
        for name, param in apart.items():
            plain.update(name, param, getattr(grads, name))
        return grads.z

    np.testing.assert_array_equal(weights.step(dy, z, fused), unfused())
    for name, param in apart.items():
        np.testing.assert_allclose(weights.arrays(copy=False)[name], param, rtol=1e-6, atol=1e-7)
    slots = len(optimizer.slot_names)
    compare(
        benchmark, lambda: weights.step(dy, z, fused), apart=unfused,
        operations=2 * shape.B * shape.H * (3 * shape.rank + 2 * shape.C), moved=2 * (1 + slots) * nbytes(U, b, W) + nbytes(z, dy, z),
    )  # fmt: skip


def test_dropout_in_the_tiles(benchmark, shape, wide):
    """Forward and backward with dropout; `x without` is the time without it over the time with it."""
    z, U, b, W, c, dy = wide

    def both(dropout):
        ops.shallow_forward(z, U, b, W, c, dropout=dropout, seed=3)
        return ops.shallow_backward(dy, z, U, b, W, dropout=dropout, seed=3)

    assert not np.array_equal(both(0.5).U, both(0.0).U)
    operations = 2 * shape.B * shape.H * (4 * shape.rank + 3 * shape.C)
    compare(benchmark, lambda: both(0.5), without=lambda: both(0.0), operations=operations, moved=nbytes(z, dy, z) + 2 * nbytes(U, b, W))


@pytest.mark.parametrize("shape", BOTTLENECKS, indirect=True)
def test_factorized_matmul(benchmark, shape, values):
    x, V, U = values["x"], values["V"], values["U"]
    h = np.empty((shape.B, shape.H), np.float32)
    operations = 2 * shape.B * shape.rank * (shape.D + shape.H)
    compare(
        benchmark, lambda: ops.factorized_matmul(x, V, U, out=h), lambda: np.matmul(x @ V.T, U.T),
        operations=operations, moved=nbytes(x, V, U, h),
    )  # fmt: skip


@pytest.mark.parametrize("shape", BOTTLENECKS, indirect=True)
def test_factorized_matmul_backward(benchmark, shape, values):
    x, V, U = values["x"], values["V"], values["U"]
    da = np.random.default_rng(1).standard_normal((shape.B, shape.H), np.float32)

    def plain():
        z, dz = x @ V.T, da @ U
        return dz @ V, dz.T @ x, da.T @ z, da.sum(0)

    operations = 2 * shape.B * shape.rank * (3 * shape.D + 2 * shape.H)
    moved = nbytes(da, x, x) + 2 * nbytes(V, U)
    compare(benchmark, lambda: tuple(ops.factorized_matmul_backward(da, x, V, U)), plain, operations=operations, moved=moved)


def test_linear(benchmark, shape, values):
    """A layer of a deep net, inputs to bottleneck or to hidden units: relu(x weight^T + bias)."""
    x, weight = values["x"], values.get("V", values["U"])
    bias = np.linspace(-0.1, 0.1, len(weight), dtype=np.float32)
    operations = 2 * shape.B * weight.size
    moved = nbytes(x, weight, bias) + 4 * shape.B * len(weight)
    compare(benchmark, lambda: ops.linear_dropout(x, weight, bias), lambda: hidden(x, weight, bias), operations=operations, moved=moved)


def test_linear_backward(benchmark, shape, values):
    x, weight = values["x"], values.get("V", values["U"])
    out = hidden(x, weight, np.zeros(len(weight), np.float32))
    dout = np.random.default_rng(1).standard_normal(out.shape, np.float32)

    def plain():
        da = dout * (out > 0)
        return da @ weight, da.T @ x, da.sum(0)

    operations, moved = 4 * shape.B * weight.size, nbytes(dout, out, x, x) + 2 * nbytes(weight)
    compare(benchmark, lambda: tuple(ops.linear_dropout_backward(dout, x, weight, out)), plain, operations=operations, moved=moved)


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
def test_dropout(benchmark, shape, backward):
    """h masked: beside a copy of the same bytes, and, where torch is installed, its dropout of a relu."""
    h = np.random.default_rng(1).standard_normal((shape.B, shape.H), np.float32)
    out, op = np.empty_like(h), ops.dropout_backward if backward else ops.dropout
    kept = op(np.ones_like(h), 0.5, seed=3)
    assert 0.45 < np.count_nonzero(kept) / kept.size < 0.55
    rivals = {"copy": lambda: np.copyto(out, h)}
    if benchmark.enabled:
        rivals.update(torch_dropout(h, backward))
    compare(benchmark, lambda: op(h, 0.5, seed=3, out=out), lambda: h * kept, moved=2 * nbytes(h), **rivals)


def torch_dropout(h, backward):
    try:
        import torch
    except ImportError:
        return {}
    a = torch.from_numpy(h).requires_grad_(backward)
    if not backward:
        return {"torch": lambda: torch.nn.functional.dropout(torch.relu(a), 0.5)}
    y, dy = torch.nn.functional.dropout(torch.relu(a), 0.5), torch.ones_like(a)
    return {"torch": lambda: torch.autograd.grad(y, a, dy, retain_graph=True)}


def test_losses(benchmark, shape, values):
    y, t = values["t"], values["t"][::-1].copy()
    residual = y - t

    def plain():
        return np.float32(np.vdot(residual, residual) / (2 * len(y))), (y - t) / np.float32(len(y))

    compare(benchmark, lambda: ops.mimic_loss(y, t), plain, operations=4 * y.size, moved=3 * nbytes(y))
