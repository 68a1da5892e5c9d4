"""`pymimic_column_sums` in the emulator: against float64, under many schedules, and the second pass over many parts."""

import cases
import numpy as np
from emulator import INVALID_VALUE, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = range(6)


def column_sums(simt, a, seed=0):
    simt.seed(seed)
    sums = guarded(a.shape[1:])
    simt.call("pymimic_column_sums", a, sums.array, *a.shape, simt.workspace("pymimic_column_sums_workspace", *a.shape), None)
    assert sums.intact
    return sums.array


def matrix(rows, columns, start=0, seed=0):
    """`start` elements off alignment."""
    a = guarded((rows * columns + start,)).array[start:].reshape(rows, columns)
    a[...] = np.random.default_rng(seed).standard_normal(a.shape)
    return a


def holds(sums, a):
    """Four chains of roundings at most, each of the square root of the rows: far below one for each row."""
    wide = a.astype(np.float64)
    return bool((np.abs(sums - wide.sum(0)) <= 2.0**-22 * (4 + len(a) ** 0.5) * np.sqrt((wide**2).sum(0))).all())


@given(
    rows=st.sampled_from((0, *cases.SIZES, 700, 9000)), columns=st.sampled_from((1, 2, 3, 4, 5, 10, 31, 128, 129, 183, 520)),
    start=st.integers(0, 3), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=30)
def test_any_shape(simt, rows, columns, start, seed):
    a = matrix(rows, columns, start, seed)
    assert holds(column_sums(simt, a, seed), a)


def test_schedules_give_the_same_bits(simt):
    for shape in ((9000, 10), (700, 183)):
        a = matrix(*shape)
        first = column_sums(simt, a)
        for seed in SEEDS:
            np.testing.assert_array_equal(column_sums(simt, a, seed), first)


def test_nan_propagates(simt):
    a = matrix(300, 40)
    a[271, 13] = np.nan
    assert np.flatnonzero(np.isnan(column_sums(simt, a))).tolist() == [13]


def test_no_columns_and_beyond_the_limits(simt):
    a = matrix(3, 0)
    simt.call("pymimic_column_sums", a, a, 3, 0, None, None)
    for shape in ((-1, 3), (3, -1)):
        assert simt.status("pymimic_column_sums", a, a, *shape, None, None) == INVALID_VALUE


def test_mutants(simt):
    """The barriers of the block's sum and of the sum over parts, which takes slices from 16 parts on."""
    many_parts, few = matrix(9000, 10), matrix(200, 64)
    simt.forget_visits()
    assert all(holds(column_sums(simt, a, seed), a) for a in (many_parts, few) for seed in SEEDS)
    mutants = list(simt.visited("column_sums.cu", "split_sums.cuh"))
    assert len(mutants) == 2
    alive = simt.survivors(mutants, lambda: all(holds(column_sums(simt, a, seed), a) for a in (many_parts, few) for seed in SEEDS))
    assert alive == []
