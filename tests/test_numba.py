"""What is the numba backend's own: it is optional, and its cache of compiled kernels needs a place on disk."""

import subprocess
import sys

import numpy as np
import pytest


def test_without_numba_the_backend_says_so():
    script = "import sys; sys.modules['numba'] = None; import pymimic.backends as b; b.default_host(); b.get('numba')"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60)
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("pymimic.errors.BackendUnavailableError: backend: 'numba' is not available: ")
    assert "numba" in last.partition("available: ")[2]


def test_a_read_only_installation_compiles_without_a_cache(monkeypatch):
    caching = pytest.importorskip("numba.core.caching")
    from pymimic.backends import _numba_kernels as kernels

    monkeypatch.setattr(caching.FunctionCache._impl_class, "_locator_classes", [])
    double = kernels._compiled(lambda x: x + x)
    assert double(4) == 8


def test_kernels_see_read_only_arrays_without_copies():
    pytest.importorskip("numba")
    from pymimic.backends.numba import _mutable

    for array in (np.arange(6.0).reshape(2, 3), np.empty((0, 4), np.float32)):
        array.flags.writeable = False
        seen = _mutable(array)
        assert seen.ctypes.data == array.ctypes.data
        assert (seen.shape, seen.dtype) == (array.shape, array.dtype)
        assert seen.flags.c_contiguous
        assert not array.flags.writeable


def test_rows_that_take_no_memory_are_done_at_once():
    pytest.importorskip("numba")
    from pymimic import ops

    B, H = 1 << 40, 2
    z, U, b, W, c = (np.zeros(shape, np.float32) for shape in ((B, 0), (H, 0), H, (H, 0), 0))
    assert ops.shallow_forward(z, U, b, W, c, backend="numba").shape == (B, 0)
    grads = ops.shallow_backward(z, z, U, b, W, backend="numba", needs=("U", "b", "W", "z"))
    assert not any(grad.any() for grad in grads[:4] if grad is not None)
    assert ops.linear_dropout(z, U[:0], b[:0], backend="numba").shape == (B, 0)
