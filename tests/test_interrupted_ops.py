"""Ctrl-C during an op that takes long: the op ends soon, and what must be whole is whole."""

import signal
from contextlib import suppress

import numpy as np
import pytest

from pymimic import SGD, ShallowWeights, ops
from pymimic.backends import get
from pymimic.errors import BackendUnavailableError

_core = pytest.importorskip("pymimic._core")
pytestmark = pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers")


@pytest.fixture
def ctrl_c_soon():
    """A signal whose handler raises KeyboardInterrupt, a tenth of a second after the call."""

    def raises(number, frame):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, raises)
    yield lambda: signal.setitimer(signal.ITIMER_REAL, 0.1)
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


def long_calls():
    """Ops that take seconds. Zeros take memory only where they are read."""
    B, k, H, C = 1 << 14, 64, 1 << 17, 16

    def zeros(*shape, dtype=np.float32):
        return np.zeros(shape, dtype)

    def forward(dtype, backend):
        arrays = (zeros(*shape, dtype=dtype) for shape in ((B, k), (H, k), (H,), (H, C), (C,)))
        return lambda: ops.shallow_forward(*arrays, backend=backend)

    return {
        "forward": forward(np.float32, "cpu"),
        "forward, float64": forward(np.float64, "cpu"),
        "forward, few bits": forward(np.float32, "cpu-bf16x3"),
        "backward": lambda: ops.shallow_backward(zeros(B, C), zeros(B, k), zeros(H, k), zeros(H), zeros(H, C), backend="cpu"),
        "layer": lambda: ops.linear_dropout(zeros(B, 2048), zeros(B, 2048), zeros(B), backend="cpu"),
        "peak": lambda: _core.multiply_adds("float32", 1 << 40),
    }


@pytest.mark.parametrize("n", [1, 2])
@pytest.mark.parametrize("name", long_calls())
def test_a_long_op_hears_ctrl_c(ctrl_c_soon, threads, n, name):
    call = long_calls()[name]
    threads(n)
    if name == "forward, few bits":
        try:
            get("cpu-bf16x3")
        except BackendUnavailableError as error:
            pytest.skip(str(error))
    ctrl_c_soon()
    with pytest.raises(KeyboardInterrupt):
        call()
    one = np.ones((3, 3), np.float32)
    np.testing.assert_array_equal(ops.shallow_forward(one, one, one[0], one, one[0], backend="cpu"), np.full((3, 3), 13))  # still right


def test_a_step_is_not_left_half_done(ctrl_c_soon):
    rng = np.random.default_rng(0)
    shapes = ((4096, 8), (4096, 64), (16384, 64), (16384,), (16384, 8), (8,))
    dy, z, U, b, W, c = (rng.standard_normal(shape, np.float32) for shape in shapes)
    undisturbed, disturbed = (ShallowWeights(U.copy(), b.copy(), W.copy(), c.copy(), backend="cpu") for _ in range(2))
    undisturbed.step(dy, z, SGD(0.1))
    with suppress(KeyboardInterrupt):
        ctrl_c_soon()
        disturbed.step(dy, z, SGD(0.1))
    for name, array in undisturbed.arrays().items():
        np.testing.assert_array_equal(disturbed.arrays()[name], array)
