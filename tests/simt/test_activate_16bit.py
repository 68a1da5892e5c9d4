"""The activations for 16-bit results, with approximations as wrong as the hardware's may be."""

import numpy as np
import pytest
from emulated_shallow import APPROXIMATE
from emulator import guarded

from pymimic.backends import reference

SLOPE_ERROR = 2.0**-20  # which emulated_shallow.backward allows


@pytest.fixture
def made(simt):
    """a, and f(a) and f'(a) of tanh, sigmoid and gelu."""
    rng = np.random.default_rng(0)
    normal = rng.standard_normal(20_000) * np.exp(rng.uniform(-20, 5, 20_000))
    a = np.concatenate([normal, [0, -0.0, 1e-42, 88, -88, 3e38, -3e38, np.nan]]).astype(np.float32)
    values, slopes = guarded((3, len(a))), guarded((3, len(a)))
    simt.call("probe_activations_16bit", a, values.array, slopes.array, len(a))
    assert values.intact
    assert slopes.intact
    return a, dict(zip(("tanh", "sigmoid", "gelu"), zip(values.array, slopes.array)))


@pytest.mark.parametrize("activation", ["tanh", "sigmoid", "gelu"])
def test_within_their_bounds(made, activation):
    """What rounds inside of f is relative to what is summed there: 16 roundings of at most |a|."""
    a, outputs = made
    value, slope = reference.activate(a.astype(np.float64), activation)
    roundings = 2.0**-20 * np.minimum(1, np.abs(a[:-1])) + (2.0**-24 * np.abs(value[:-1]) if activation == "gelu" else 0)
    got_value, got_slope = outputs[activation]
    assert (np.abs(got_value - value)[:-1] <= APPROXIMATE[activation] + roundings).all()
    assert (np.abs(got_slope - slope)[:-1] <= SLOPE_ERROR + roundings).all()
    assert np.isnan([got_value[-1], got_slope[-1]]).all()


def test_small_slopes_keep_their_digits(made):
    """1 - tanh^2 would lose them where tanh is near 1."""
    a, outputs = made
    some = np.abs(a) < 20
    x = a[some].astype(np.float64)
    for activation, slope in (("tanh", np.cosh(x) ** -2), ("sigmoid", np.cosh(x / 2) ** -2 / 4)):
        # e^-2|a| has the error of its exponent, 2 |a| log2 e 2^-24, beside 2^-20
        np.testing.assert_allclose(outputs[activation][1][some], slope, rtol=2.0**-20 + 60 * 2.0**-24)
