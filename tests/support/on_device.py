"""What the tests of the CUDA backend share."""

import itertools

import cases
import numpy as np
import pytest

from pymimic import AdamW, ShallowWeights
from pymimic.errors import CudaError

BOUND = {"cuda": 2e-5, "cuda-tf32": 4e-3, "cuda-bf16": 3e-2, "cuda-fp16": 4e-3}  # of an error, to the largest value


def moved(xp, arrays):
    return [xp.asarray(array) for array in arrays]


def close(got, expected, backend):
    """On a device, in float32, and within the backend's bound of the reference on the scale of the largest value."""
    assert hasattr(got, "__cuda_array_interface__")
    assert got.dtype == np.float32
    assert got.shape == expected.shape
    most = np.abs(expected).max(initial=0) or 1
    np.testing.assert_allclose(got.get() / most, expected / most, rtol=0, atol=BOUND[backend])


def steps_without_memory(device, monkeypatch, size):
    """A step that may allocate nothing, then once, twice, ... until it can be taken; those before it must change nothing.

    Returns how often it had to, and how the errors began.
    """
    if not device.emulated:
        pytest.skip("memory is not short here")
    dy, z, *weights = moved(device.xp, cases.shallow(size, "float32"))
    handle, optimizer = ShallowWeights(*weights), AdamW(0.1)
    handle.step(dy, z, optimizer)
    before, slots = handle.arrays(), {name: array.copy() for name, array in optimizer.state().items()}
    real, said = device.xp.empty, set()
    for allowed in itertools.count():
        calls = itertools.count()

        def short(shape, dtype=float, calls=calls, allowed=allowed):
            if next(calls) >= allowed:
                raise MemoryError("out of memory")
            return real(shape, dtype)

        monkeypatch.setattr(device.xp, "empty", short)
        try:
            handle.step(dy, z, optimizer)
            return allowed, said
        except CudaError as error:
            said.add(str(error).split(":")[0])
        for name, array in handle.arrays().items():
            assert np.array_equal(array.get(), before[name].get())
        for name, array in optimizer.state().items():
            assert np.array_equal(array, slots[name])
