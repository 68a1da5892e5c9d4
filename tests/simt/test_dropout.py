"""The dropout kernel in the emulator: the bits of `pymimic.ops.dropout`."""

import cases
import numpy as np
from emulator import INVALID_VALUE, c_mask, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic import ops
from pymimic.backends.interface import Mask


@given(
    outer=st.integers(1, 3), rows=st.sampled_from(cases.SIZES), units=st.sampled_from((*cases.SIZES, 300, 513)), mask=cases.masks(),
    in_place=st.booleans(),
)  # fmt: skip
@settings(max_examples=30)
def test_dropout(simt, outer, rows, units, mask, in_place):
    x, out = guarded((outer, rows, units)), guarded((outer, rows, units))
    x.array[:] = np.random.default_rng(0).standard_normal(x.array.shape)
    if in_place:
        out.array[:], x = x.array, out
    p = mask["dropout"]
    expected = ops.dropout(x.array, p, **{name: value for name, value in mask.items() if name != "dropout"}, backend="reference")
    simt.call("pymimic_dropout_f32", x.array, out.array, outer, rows, units, c_mask(cases.checked(mask)), None)
    np.testing.assert_array_equal(out.array, expected)
    assert out.intact


def test_seed_and_offset_in_device_memory(simt):
    x = np.ones((40, 70), np.float32)
    seed, offset = np.array(-5, np.int64), np.array(9, np.int64)
    mask = c_mask(cases.checked({"dropout": 0.5, "seed": 1, "offset": 2, "origin": (0, 0)}))
    mask.device_seed, mask.device_offset = seed.ctypes.data, offset.ctypes.data
    out = np.empty_like(x)
    simt.call("pymimic_dropout_f32", x, out, 1, *x.shape, mask, None)
    np.testing.assert_array_equal(out, ops.dropout(x, 0.5, seed=2**64 - 5, offset=9))


def test_beyond_the_limits(simt):
    x = np.ones((4, 40), np.float32)
    for mask in (Mask(0), Mask(257), Mask(128, 0, 0, 8), Mask(128, 0, 0, 0, 16), Mask(128, 0, 0, -16)):
        assert simt.status("pymimic_dropout_f32", x, x, 1, 4, 40, c_mask(mask), None) == INVALID_VALUE
    assert simt.status("pymimic_dropout_f32", x, x, 1, -4, 40, c_mask(Mask()), None) == INVALID_VALUE


def test_nothing(simt):
    simt.call("pymimic_dropout_f32", np.empty(0, np.float32), np.empty(0, np.float32), 1, 0, 5, c_mask(cases.checked(
        {"dropout": 0.5, "seed": 1, "offset": 2, "origin": (0, 0)})), None)  # fmt: skip
