"""What the tests of the CUDA backend share."""

import numpy as np

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
