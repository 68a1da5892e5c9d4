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
