"""`pymimic_pack` in the emulator: NumPy's rounding, and zeros behind the columns."""

import itertools

import cases
import numpy as np
import pytest
from emulator import ELEMENTS, INVALID_VALUE, PRECISIONS, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

TYPES = ("bf16", "fp16", "tf32")


def source(rows, columns, ld, start, precision, seed=0):
    """(rows, columns) with row stride ld, `start` elements off alignment, NaNs between the rows; every fourth value 0, inf or tiny."""
    values = np.random.default_rng(seed).standard_normal((rows, ld)).astype(np.float32)
    values.ravel()[::4] = np.resize(np.float32([0, -0.0, np.inf, -np.inf, 1e-30, 65504]), values.ravel()[::4].shape)
    values[:, columns:] = np.nan
    array = guarded((rows * ld + start,), ELEMENTS[precision]).array[start:].reshape(rows, ld)
    array[...] = values.astype(ELEMENTS[precision])
    return array


@given(
    rows=st.sampled_from((0, *cases.SIZES, 300)), columns=st.sampled_from((*cases.SIZES, 250, 1030)), beyond=st.integers(0, 9),
    start=st.integers(0, 8), more=st.sampled_from([0, 16, 48]), types=st.sampled_from(list(itertools.product(TYPES, TYPES))),
)  # fmt: skip
@settings(max_examples=60)
def test_any_shape(simt, rows, columns, beyond, start, more, types):
    from_type, to_type = types
    array = source(rows, columns, columns + beyond, start, from_type)
    to = guarded((rows, -(-columns // 16) * 16 + more), ELEMENTS[to_type])
    codes = [PRECISIONS.index(t) for t in types]
    simt.call("pymimic_pack", array, codes[0], array.shape[1], to.array, codes[1], to.array.shape[1], rows, columns, None)
    expected = np.zeros(to.array.shape, ELEMENTS[to_type])
    with np.errstate(over="ignore"):
        expected[:, :columns] = array[:, :columns].astype(np.float32).astype(ELEMENTS[to_type])
    np.testing.assert_array_equal(to.array, expected)
    np.testing.assert_array_equal(np.signbit(to.array), np.signbit(expected))
    assert to.intact


@pytest.mark.parametrize("types", list(itertools.product(TYPES, TYPES)))
def test_nan_stays(simt, types):
    array = np.ones((3, 21), ELEMENTS[types[0]])
    array[1, [5, 20]] = np.nan
    to = guarded((3, 32), ELEMENTS[types[1]])
    simt.call("pymimic_pack", array, PRECISIONS.index(types[0]), 21, to.array, PRECISIONS.index(types[1]), 32, 3, 21, None)
    np.testing.assert_array_equal(np.isnan(to.array)[:, :21], np.isnan(array))


def test_beyond_the_limits(simt):
    array, to = np.ones((4, 16), np.float32), guarded((4, 16)).array
    good = [array, 2, 16, to, 2, 16, 4, 16, None]
    simt.call("pymimic_pack", *good)
    for position, value in ((2, 15), (3, to.ravel()[1:]), (5, 8), (5, 0), (6, -1), (7, -1), (7, 17)):
        bad = list(good)
        bad[position] = value
        assert simt.status("pymimic_pack", *bad) == INVALID_VALUE
