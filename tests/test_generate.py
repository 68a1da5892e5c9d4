"""MUNGE and noise: held against the algorithm written out row by row, and against the moments that it states."""

import itertools
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymimic.data import generate
from pymimic.data.generate import gaussian_noise, munge


def grid(seed, rows, columns, values=6):
    """Rows full of ties and duplicates: multiples of 1/8, so that distances are exact."""
    return (np.random.default_rng(seed).integers(0, values, (rows, columns)) / 8).astype(np.float32)


def nearest_by_definition(x, discrete):
    """For each row the first of the nearest others, from all distances."""
    continuous = [a for a in range(x.shape[1]) if a not in discrete]
    wide = x.astype(np.float64)
    distance = np.square(wide[:, None, continuous] - wide[None, :, continuous]).sum(-1)
    distance += (wide[:, None, list(discrete)] != wide[None, :, list(discrete)]).sum(-1)
    np.fill_diagonal(distance, np.inf)
    return distance.argmin(axis=1)


def without_sklearn(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.neighbors", None)


cases = st.tuples(st.integers(0, 2**32), st.integers(2, 60), st.integers(1, 7), st.integers(1, 9), st.integers(0, 3))


@given(cases, st.sampled_from([70, 1 << 21]))
def test_nearest_neighbour_is_the_first_of_the_nearest_with_and_without_scikit_learn(case, chunk):
    seed, rows, columns, values, swaps = case
    x, discrete = grid(seed, rows, columns, values), list(range(min(swaps, columns)))
    features = generate._features(x, discrete)
    want = nearest_by_definition(x, discrete)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(generate, "_CHUNK", chunk)
        with pytest.MonkeyPatch.context() as missing:
            without_sklearn(missing)
            assert np.array_equal(generate._nearest(features), want)
        pytest.importorskip("sklearn")
        patch.setattr(generate, "_FEW_ROWS", 1)
        assert np.array_equal(generate._nearest(features), want)


codes = st.lists(st.sampled_from([1, 2, 10, 300, 900]), max_size=3)  # how many of each discrete attribute there are


@given(st.integers(0, 2**32), st.integers(257, 700), st.integers(0, 3), st.sampled_from([2, 5, 1 << 20]), codes)
def test_ids_and_categories_beside_amounts_fine_or_coarse(seed, rows, amounts, values, codes):
    """By way of the search: rows with codes of their own, with the codes of others, and with more ties than are asked for."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, values, (rows, amounts + len(codes))) / np.float32(values)
    x = x.astype(np.float32)
    for column, many in enumerate(codes):
        x[:, column] = rng.integers(0, many, rows) if many < 900 else rng.permutation(rows)
    if x.shape[1] == 0:
        return
    discrete = list(range(len(codes)))
    assert np.array_equal(generate._nearest(generate._features(x, discrete)), nearest_by_definition(x, discrete))


@pytest.mark.parametrize(("rows", "values"), [(400, 4), (3000, 2), (5000, 6)])
def test_on_a_coarse_grid_the_first_of_many_ties_is_taken(rows, values):
    pytest.importorskip("sklearn")
    x = grid(1, rows, 3, values)
    want = np.concatenate([np.square(x[i : i + 100, None] - x[None]).sum(-1) + _far(i, rows) for i in range(0, rows, 100)]).argmin(axis=1)
    assert np.array_equal(generate._nearest(generate._features(x, [])), want)


def _far(start, rows):
    """Infinity where a row meets itself."""
    return np.where(np.arange(start, min(start + 100, rows))[:, None] == np.arange(rows), np.inf, 0)


@pytest.mark.parametrize("times", [1, 2])
def test_memory_and_time_do_not_grow_with_the_number_of_ids(times):
    """20,000 of them, in every row another or each in two rows: one-hot they would take 3.2 GB."""
    rng = np.random.default_rng(0)
    x = rng.random((20_000, 4), np.float32)
    x[:, 0] = np.arange(20_000) // times
    tracemalloc.start()
    features = generate._features(x, [0])
    neighbour = generate._nearest(features)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100 << 20
    for i in range(0, 20_000, 1999):
        distance = np.square(x[i, 1:].astype(float) - x[:, 1:]).sum(1) + (x[i, 0] != x[:, 0])
        distance[i] = np.inf
        assert neighbour[i] == distance.argmin()


def test_amounts_far_from_zero_are_told_apart():
    x = np.random.default_rng(0).random((500, 2)).astype(np.float32)
    shifted = x.copy()
    shifted[:, 0] = np.round(x[:, 0] * 64) / 64
    want = generate._nearest(generate._features(shifted, []))
    shifted[:, 0] += 65536
    assert np.array_equal(generate._nearest(generate._features(shifted, [])), want)


def test_more_ties_than_neighbours_asked_for_and_chunks_smaller_than_the_set(monkeypatch):
    x = np.zeros((50, 3), np.float32)
    x[30:] = 1
    want = nearest_by_definition(x, [])
    assert want[0] == 1
    assert want[49] == 30
    assert np.array_equal(generate._nearest(generate._features(x, [])), want)
    monkeypatch.setattr(generate, "_CHUNK", 70)
    without_sklearn(monkeypatch)
    assert np.array_equal(generate._nearest(generate._features(x, [])), want)


@given(cases)
def test_exchanges_are_those_of_visiting_one_row_after_the_other(case):
    """With p = 1 and s = inf nothing is random: each visit swaps two rows."""
    seed, rows, columns, values, swaps = case
    x, discrete = grid(seed, rows, columns, values), list(range(min(swaps, columns)))
    want = x.copy()
    for i, j in enumerate(nearest_by_definition(x, discrete)):
        want[[i, j]] = want[[j, i]]
    (got,) = munge(x, 1, 1.0, np.inf, 0, discrete)
    assert np.array_equal(got, want)


@given(cases)
def test_pairs_of_one_round_share_no_row_and_pairs_that_do_keep_their_order(case):
    seed, rows, _, _, _ = case
    rng = np.random.default_rng(seed)
    neighbour = (np.arange(rows) + rng.integers(1, rows, rows)) % rows
    rounds = generate._rounds(neighbour)
    assert sorted(np.concatenate(rounds)) == list(range(rows))
    for chosen in rounds:
        touched = np.concatenate([chosen, neighbour[chosen]])
        assert len(set(touched)) == 2 * len(chosen)
    when = {int(i): number for number, chosen in enumerate(rounds) for i in chosen}
    for i, j in itertools.combinations(range(rows), 2):
        if {i, neighbour[i]} & {j, neighbour[j]}:
            assert when[i] < when[j]


def test_values_are_normal_about_the_neighbours_with_deviation_distance_over_s():
    """Two rows, visited twice: e ~ N(1, 1/s), e' ~ N(0, 1/s), then the same of these."""
    s, columns = 4.0, 200_000
    x = np.stack([np.zeros(columns), np.ones(columns)]).astype(np.float32)
    (got,) = munge(x, 1, 1.0, s, 3)
    variance = 1 / s**2 + (1 + 2 / s**2) / s**2
    for row, mean in zip(got, (0, 1)):
        assert abs(row.mean() - mean) < 5 * np.sqrt(variance / columns)
        assert abs(row.var() - variance) < 0.02 * variance
    assert (got < 0).any()  # nothing is clipped


def test_an_attribute_is_exchanged_with_probability_p_independently_of_the_others():
    columns, p = 200_000, 0.2
    x = np.stack([np.zeros(columns), np.ones(columns)]).astype(np.float32)
    (got,) = munge(x, 1, p, 1e9, 5)
    rounded = np.round(got)
    assert np.array_equal(rounded.sum(0), np.ones(columns))  # both rows of a pair change, or neither does
    swapped = rounded[0]  # by one visit of the two
    assert abs(swapped.mean() - 2 * p * (1 - p)) < 5 * np.sqrt(0.25 / columns)
    assert abs(np.corrcoef(swapped[:-1], swapped[1:])[0, 1]) < 5 / np.sqrt(columns)
    (same,) = munge(x, 1, 0.0, 1.0, 5)
    assert np.array_equal(same, x)


def test_discrete_attributes_only_take_values_that_were_there():
    x = grid(0, 200, 5) * 8  # far apart, so that neighbours differ in the discrete attribute too
    x[:, 2] = np.random.default_rng(1).integers(0, 3, 200)
    for copy in munge(x, 3, 0.5, 2.0, 1, discrete=(2,)):
        assert np.array_equal(np.bincount(copy[:, 2].astype(int)), np.bincount(x[:, 2].astype(int)))
        assert not np.array_equal(copy[:, 2], x[:, 2])
        assert not set(copy[:, 0]) <= set(x[:, 0])


@pytest.mark.parametrize("make", [lambda x, n, seed: munge(x, n, 0.3, 2.0, seed), lambda x, n, seed: gaussian_noise(x, n, 0.1, seed)])
def test_a_copy_depends_on_the_seed_and_its_number_alone(make):
    x = grid(2, 40, 3)
    three = list(make(x, 3, 7))
    assert [copy.shape for copy in three] == [(40, 3)] * 3
    assert all(copy.dtype == np.float32 for copy in three)
    assert np.array_equal(next(iter(make(x.astype(np.float64), 1, 7))), three[0])
    assert not np.array_equal(three[0], three[1])
    assert not np.array_equal(next(iter(make(x, 1, 8))), three[0])
    assert list(make(x, 0, 7)) == []
    assert np.array_equal(x, grid(2, 40, 3))


def test_noise_has_the_deviations_asked_for():
    x = np.full((50_000, 2), 3, np.float32)
    (got,) = gaussian_noise(x, 1, np.array([0.5, 0.0]), 0)
    assert np.array_equal(got[:, 1], x[:, 1])
    assert abs(got[:, 0].mean() - 3) < 5 * 0.5 / np.sqrt(50_000)
    assert abs(got[:, 0].std() - 0.5) < 0.01


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"x": ((0.0,),)}, TypeError, "x: expected a NumPy array, got builtins.tuple"),
        ({"x": np.zeros((3, 2), np.int64)}, TypeError, "x: expected dtype float32 or float64, got int64"),
        ({"x": np.zeros(3, np.float32)}, ValueError, "x: expected shape"),
        ({"x": np.zeros((1, 2), np.float32)}, ValueError, "x: expected at least 2 rows"),
        ({"x": np.array([[0, 1], [2, np.nan]])}, ValueError, "x: expected finite values, got nan in row 1"),
        ({"copies": -1}, ValueError, "copies: expected an int in"),
        ({"copies": 1.5}, TypeError, "copies: expected an int, got float"),
        ({"p": 1.1}, ValueError, r"p: expected a probability in \[0, 1\], got 1.1"),
        ({"p": np.nan}, ValueError, "p: expected a probability"),
        ({"s": 0.0}, ValueError, "s: expected a number above 0 as float32, got 0.0"),
        ({"seed": -1}, ValueError, "seed: expected an int in"),
        ({"discrete": (2,)}, ValueError, r"discrete: expected an int in \[0, 2\), got 2"),
    ],
)
def test_munge_refuses_bad_arguments_at_the_call(arguments, error, message):
    with pytest.raises(error, match=message):
        munge(**{"x": np.zeros((3, 2), np.float32), "copies": 1, "p": 0.5, "s": 1.0, "seed": 0, **arguments})


@pytest.mark.parametrize("sigma", [-1.0, np.nan, np.ones(3), np.inf])
def test_noise_refuses_bad_deviations_at_the_call(sigma):
    with pytest.raises(ValueError, match="sigma: expected finite deviations of at least 0"):
        gaussian_noise(np.zeros((3, 2), np.float32), 1, sigma, 0)
