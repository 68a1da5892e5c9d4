"""Arrays of more than 2^31 elements, which no 32-bit index reaches. They take gigabytes: slow tests, skipped where memory is short."""

from pathlib import Path

import numpy as np
import pytest

import pymimic
from pymimic import SGD, ShallowWeights, ops

pytestmark = pytest.mark.slow
LONG, ROWS = 2**19 + 37, 4096  # units, or rows
MEMORY = Path("/proc/meminfo")


def demand_memory(gib):
    """Skips the test where its arrays would not fit."""
    assert LONG * ROWS > 2**31
    if not MEMORY.exists():
        pytest.skip("nothing says how much memory there is")
    available = next(int(line.split()[1]) for line in MEMORY.read_text().splitlines() if line.startswith("MemAvailable"))
    if available < (gib + 1) << 20:
        pytest.skip(f"takes {gib} GiB of memory, of which {available >> 20} GiB are free")


def last_unit_alone(k, C=1):
    """U, b, W and c: the last unit's h is 0.75 where z is all ones, and that of all others 0. Zero pages take no memory until written."""
    U, b, W, c = np.zeros((LONG, k), "float32"), np.zeros(LONG, "float32"), np.zeros((LONG, C), "float32"), np.zeros(C, "float32")
    U[-1, -1], b[-1], W[-1, -1] = 0.5, 0.25, 2
    return U, b, W, c


@pytest.mark.parametrize("h", ["keep", "keep-bf16"])
@pytest.mark.parametrize("activation", ["relu", "identity"])
def test_a_kept_h(h, activation):
    """All sums are of powers of two: exact, but for what is read from another place than it was written to."""
    demand_memory(9 if h == "keep" else 5)
    z, dy, (U, b, W, c) = np.ones((ROWS, 1), "float32"), np.ones((ROWS, 1), "float32"), last_unit_alone(1)
    plan = pymimic.plan(ROWS, 1, 1, LONG, 1, memory_budget=1 << 40, h=h)
    how = {"activation": activation, "backend": "cpu"}
    y, saved = ops.shallow_forward(z, U, b, W, c, save=True, plan=plan, **how)
    assert saved.array.size > 2**31
    assert (y == 1.5).all()
    grads = ops.shallow_backward(dy, z, U, b, W, saved=saved, **how)
    assert (grads.z == 1).all()
    for got, last in ((grads.U[:, 0], 2 * ROWS), (grads.b, 2 * ROWS), (grads.W[:, 0], 0.75 * ROWS)):
        assert got[-1] == last
        assert not got[:-1].any()


@pytest.mark.parametrize("needs", ["U", "W"])
def test_gradients_of_weights(needs):
    """dU and dW of H x 4096 elements, of which the last unit's alone are not 0."""
    demand_memory(9)
    k, C = (ROWS, 1) if needs == "U" else (1, ROWS)
    U, b, W, c = last_unit_alone(k, C)
    z, dy = np.ones((2, k), "float32"), np.ones((2, C), "float32")
    assert (ops.shallow_forward(z, U, b, W, c, backend="cpu")[:, -1] == 1.5).all()
    grad = getattr(ops.shallow_backward(dy, z, U, b, W, needs=(needs,), backend="cpu"), needs)
    assert grad.size > 2**31
    assert (grad[-1] == (4 if needs == "U" else 1.5)).all()
    assert not grad[-2].any()
    assert not grad[0].any()


def test_a_step():
    demand_memory(9)
    U, b, W, c = last_unit_alone(ROWS)
    weights = ShallowWeights(U, b, W, c, backend="cpu")
    z, dy = np.ones((2, ROWS), "float32"), np.ones((2, 1), "float32")
    dz = weights.step(dy, z, SGD(0.5))
    assert (dz[:, -1] == 1).all()
    assert not dz[:, :-1].any()
    after = weights.arrays(copy=False)
    assert (after["U"][-1, :-1] == -2).all()  # less half of the sum over two rows of 2
    assert after["U"][-1, -1] == 0.5 - 2
    assert not after["U"][-2].any()
    assert after["b"][-1] == 0.25 - 2
    assert after["W"][-1, 0] == 2 - 0.75


def test_a_layer_and_its_gradient():
    """Rows x outputs."""
    demand_memory(18)  # out, and dout times f' as the kernel keeps it
    x, weight, bias = np.zeros((ROWS, 1), "float32"), np.zeros((LONG, 1), "float32"), np.zeros(LONG, "float32")
    x[-1], weight[-1], bias[-1] = 1, 0.5, 0.25
    out = ops.linear_dropout(x, weight, bias, backend="cpu")
    assert out.size > 2**31
    assert out[-1, -1] == 0.75
    assert (out[:-1, -1] == 0.25).all()
    assert not out[:, -2].any()
    dout = np.zeros(out.shape, "float32")
    dout[-1, -1], dout[0, -1] = 2, 1
    grads = ops.linear_dropout_backward(dout, x, weight, out, bias=bias, backend="cpu")
    assert grads.weight[-1] == 2
    assert grads.bias[-1] == 3
    assert grads.x[-1] == 1
    assert not grads.weight[:-1].any()
    assert not grads.bias[:-1].any()


def test_dropout():
    """Of rows of zeros but for the last ones, whose mask is that of `origin`."""
    demand_memory(9)
    x = np.zeros((ROWS, LONG), "float32")
    x[-16:] = 1  # the rows of whole tiles
    y = ops.dropout(x, 0.5, seed=3, backend="cpu")
    assert not y[:-16].any()
    np.testing.assert_array_equal(y[-16:], ops.dropout(x[-16:], 0.5, seed=3, origin=(ROWS - 16, 0), backend="cpu"))
