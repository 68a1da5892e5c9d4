"""Generators' memory, values that are not finite, and numbers of NumPy's narrow types."""

import numpy as np
import pytest
from toy import D, N

import pymimic as pm
from pymimic import Deform, Masks, Mixup, Munge, Noise, copies, fresh_cases

RNG = np.random.default_rng


def some(rows=N, columns=D, seed=0):
    return RNG(seed).random((rows, columns), np.float32)


def test_a_generator_may_work_in_place_and_use_its_memory_again(monkeypatch):
    memory = np.empty((N, D), np.float32)

    def in_place(x, rng):
        x += 1
        return x

    def buffered(x, rng):
        out = memory[: len(x)]
        np.add(x, 1, out=out)
        return out

    x = some()
    kept = x.copy()
    monkeypatch.setattr("pymimic.data.generators._SLAB", 20 * D)  # several calls a copy
    for generator in (in_place, buffered):
        assert np.array_equal(list(copies(generator, x, 3)), [kept + np.float32(1)] * 3)
        assert np.array_equal(list(copies(generator, x.astype(float), 2)), [kept + np.float32(1)] * 2)
        assert np.array_equal(fresh_cases(generator)(x, None, RNG(0))[0], kept + 1)
        assert np.array_equal(x, kept)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("generator", "value"),
    [
        (lambda x, rng: x * np.float32(np.nan), "nan"),
        (lambda x, rng: np.where(np.arange(len(x))[:, None] == 3, x * np.float32(3e38) * 9, x), "inf"),
    ],
)
def test_what_is_not_finite_from_a_generator_is_refused_with_its_row(generator, value):
    x = 1 + some()
    for make in (lambda: next(copies(generator, x, 1)), lambda: fresh_cases(generator)(x, None, RNG(0))):
        with pytest.raises(ValueError, match=rf"^generator: expected finite values, got {value} in row \d"):
            make()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("generator", "x", "what"),
    [
        (Noise(3e38), 1 + some(), r"sigma: expected deviations so small that rows stay finite as float32, got 3e\+38"),
        (Noise([0.0, *[3e38] * (D - 1)]), 1 + some(), r"sigma: expected deviations so small that .*, got 3e\+38"),
        (Noise(0.1), np.full((4, 4), np.finfo(np.float32).max), None),
        (
            Mixup(),
            3e38 * (-1) ** np.arange(40, dtype=np.float32)[:, None],
            r"x: expected values whose differences .* got \[-3e\+38, 3e\+38\]",
        ),
        (Deform(4), 3e38 * np.sign(some(40, 16) - 0.5), r"x: expected values whose differences float32 holds, got \[-3e\+38, 3e\+38\]"),
        (Deform(4, 0, 0, 0, 0, thicken=1.0), 3e38 * np.sign(some(40, 16) - 0.5), "x: expected values whose differences .*"),
        (Masks(2, 2, 1, 1, value=3e38), 3e38 * np.sign(some(40, 4) - 0.5), None),
    ],
)
def test_a_generator_that_overflows_names_the_argument_whoever_calls_it(generator, x, what):
    x = x.astype(np.float32)
    for make in (
        lambda: generator(x, RNG(0)),
        lambda: next(copies(generator, x, 1)),
        lambda: fresh_cases(generator)(x, None, RNG(0))[0],
    ):
        if what is None:
            assert np.isfinite(make()).all()
        else:
            with pytest.raises(ValueError, match=rf"^{what}, and inf or nan in row \d+ of what was to be returned$"):
                make()


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("generator", [Noise(0.1), Mixup(), Masks(2, 2, 1, 1), Deform(2), Munge(np.zeros((2, 4), np.float32))])
@pytest.mark.parametrize(("value", "got"), [(np.nan, "nan"), (-np.inf, "-inf"), (1e39, "inf")])
def test_generators_want_rows_that_are_finite_as_float32(generator, value, got):
    x = np.zeros((5, 4))
    x[3, 1] = value
    with pytest.raises(ValueError, match=f"^x: expected finite values, got {got} in row 3$"):
        generator(x, RNG(0))


def test_the_row_is_counted_over_the_whole_copy(monkeypatch):
    monkeypatch.setattr("pymimic.data.generators._SLAB", 20 * D)
    x = some()
    x[50] = 2
    with pytest.raises(ValueError, match=r"generator: expected finite values, got nan in row 50$"):
        next(copies(lambda x, rng: np.where(x > 1, np.float32(np.nan), x), x, 1))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("s", [1e-30, 1e-38])
def test_munged_rows_that_would_not_be_finite_are_refused(s):
    x = np.float32(1e10) * some()
    for make in (
        lambda: next(pm.munge(x, 1, 0.5, s)),
        lambda: Munge(x, 0.5, s)(x, RNG(0)),
        lambda: fresh_cases(Munge(x, 0.5, s))(x, None, RNG(0)),
    ):
        with pytest.raises(ValueError, match=r"^s: expected a number so large that rows stay finite as float32, got .* in row \d"):
            make()


@pytest.mark.parametrize(
    ("s", "error", "message"),
    [
        (1e-50, ValueError, "s: expected a number above 0 as float32, got 1e-50"),
        (True, TypeError, "s: expected a number, got bool"),
        (np.nan, ValueError, "s: expected a number above 0 as float32, got nan"),
        (-np.inf, ValueError, "s: expected a number above 0 as float32, got -inf"),
        ("5", TypeError, "s: expected a number, got str"),
        (10**400, ValueError, "s: expected a number above 0 as float32, got 1000"),
    ],
)
def test_s_is_checked_as_the_float32_that_it_is_used_as(s, error, message):
    for make in (lambda: Munge(some(), s=s), lambda: pm.munge(some(), 1, s=s)):
        with pytest.raises(error, match=f"^{message}"):
            make()


def test_an_infinite_s_is_a_plain_exchange():
    x = some()
    for s in (np.inf, np.float32(np.inf), float("inf")):
        assert np.isin(next(pm.munge(x, 1, 0.5, s)), x).all()
        assert np.isin(Munge(x, 0.5, s)(x, RNG(0)), x).all()


@pytest.mark.filterwarnings("error")
def test_numpys_narrow_numbers_are_numbers():
    wide, narrow = np.uint8, np.float16
    x = some(4, 784)
    for small, plain in (
        (
            Deform(wide(28), narrow(10), shift=narrow(2), elastic=wide(1), sigma=narrow(5), blend=narrow(0.5)),
            Deform(28, 10, shift=2, elastic=1, sigma=5, blend=0.5),
        ),
        (Masks(wide(28), wide(28), wide(20), wide(255 % 28), wide(2), narrow(0.5)), Masks(28, 28, 20, 3, 2, 0.5)),
        (Mixup(narrow(2)), Mixup(2)),
        (Noise(narrow(2)), Noise(2)),
    ):
        assert np.array_equal(small(x, RNG(0)), plain(x, RNG(0)))
        assert small == plain
        assert not any(isinstance(value, np.generic) for value in vars(small).values())
    big = some(2, 400)
    assert Masks(wide(20), wide(20), wide(3), wide(3))(big, RNG(0)).shape == (2, 400)
    assert Masks(np.uint8(255), np.uint8(1), np.uint8(255), 0)(some(2, 255), RNG(0)).shape == (2, 255)
    many = some(300)
    assert np.array_equal(list(copies(Noise(0.1), many, wide(2), wide(7))), list(copies(Noise(0.1), many, 2, 7)))
    assert np.array_equal(list(pm.munge(many, wide(2), narrow(0.5), wide(5), wide(7))), list(pm.munge(many, 2, 0.5, 5, 7)))
    assert np.array_equal(Munge(many, narrow(0.5), wide(5))(many, RNG(0)), Munge(many, 0.5, 5)(many, RNG(0)))


def test_deviations_of_several_lengths_are_none():
    with pytest.raises(ValueError, match=r"^sigma: expected finite deviations of at least 0, one or \(D,\), got \[\[1\], \[2, 3\]\]"):
        Noise([[1], [2, 3]])
