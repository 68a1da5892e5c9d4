"""`pymimic_bottleneck` in the emulator: z = x V^T, against float64, whatever rows lie beside a row."""

import cases
import numpy as np
import pytest
from emulator import INVALID_VALUE, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

SEEDS = range(6)


def arrays(B, D, k, seed=0):
    rng = np.random.default_rng(seed)
    x, V = (guarded(shape).array for shape in ((B, D), (k, D)))
    x[...], V[...] = rng.standard_normal(x.shape), rng.standard_normal(V.shape)
    return x, V


def bottleneck(simt, x, V, seed=0):
    simt.seed(seed)
    (B, D), k = x.shape, len(V)
    z = guarded((B, k))
    simt.call("pymimic_bottleneck", x, V, B, D, k, z.array, simt.workspace("pymimic_bottleneck_workspace", B, D, k), None)
    assert z.intact
    return z.array


def holds(z, x, V):
    """Within what float32 sums may lead to; NaN is not."""
    x, V = x.astype(np.float64), V.astype(np.float64)
    bound = 2.0**-22 * (4 + x.shape[1] ** 0.5) * np.sqrt((x * x) @ (V * V).T)
    return bool((np.abs(z - x @ V.T) <= bound).all())


@given(
    B=st.sampled_from((0, *cases.SIZES, 200)), D=st.sampled_from((0, *cases.SIZES, 250, 784, 1845)),
    k=st.sampled_from((0, *cases.SIZES, 130, 250)), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40)
def test_any_shape(simt, B, D, k, seed):
    x, V = arrays(B, D, k, seed)
    assert holds(bottleneck(simt, x, V, seed), x, V)


@pytest.mark.parametrize(("D", "k"), [(33, 20), (784, 64), (1845, 250)])
def test_no_row_depends_on_others(simt, D, k):
    x, V = arrays(150, D, k)
    z = bottleneck(simt, x, V)
    assert holds(z, x, V)
    for rows in (slice(0, 1), slice(149, 150), slice(3, 20), slice(17, 140)):
        few = guarded(x[rows].shape).array
        few[...] = x[rows]
        np.testing.assert_array_equal(bottleneck(simt, few, V, 1), z[rows])


def test_schedules_give_the_same_bits(simt):
    x, V = arrays(70, 600, 90)
    first = bottleneck(simt, x, V)
    for seed in SEEDS:
        np.testing.assert_array_equal(bottleneck(simt, x, V, seed), first)


def test_nan_propagates(simt):
    x, V = arrays(30, 300, 70)
    x[21, 299] = np.nan
    assert np.flatnonzero(np.isnan(bottleneck(simt, x, V)).all(axis=1)).tolist() == [21]
    assert np.isnan(bottleneck(simt, x, V)).sum() == 70


def test_beyond_the_limits(simt):
    x, V = arrays(2, 3, 4)
    for sizes in ((-1, 3, 4), (2**31, 3, 4), (2, -3, 4), (2, 3, -4), (2, 3, 2049)):
        assert simt.status("pymimic_bottleneck", x, V, *sizes, x, None, None) == INVALID_VALUE


def test_mutants(simt):
    """The barriers before and after a step is stored; the second pass has none where parts are few."""
    x, V = arrays(130, 700, 70)
    simt.forget_visits()
    assert holds(bottleneck(simt, x, V), x, V)
    mutants = list(simt.visited("predict_bottleneck.cu", "split_sums.cuh"))
    assert len(mutants) == 2
    for mutant in mutants:
        simt.mutate(mutant)
        assert not all(holds(bottleneck(simt, x, V, seed), x, V) for seed in SEEDS), mutant.name
