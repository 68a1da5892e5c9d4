"""Errors counted in roundings of float32: how much less than wrong a result may be off."""

import numpy as np

ROUNDING = 2.0**-24  # relative: half a unit in the last place of float32


def assert_within_roundings(got, want, count, what="", least=0.0):
    """Demand that no value is off by more than `count` roundings of the largest, or of `least` where all are smaller.

    `count` is what the sums behind a value may come to: of n terms a rounding each, of which most cancel, some sqrt(n).
    """
    want = np.asarray(want, np.float64)
    np.testing.assert_allclose(got, want, rtol=0, atol=count * ROUNDING * max(least, np.abs(want).max(initial=0)), err_msg=what)
