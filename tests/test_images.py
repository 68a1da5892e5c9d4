"""New images: maps, elastic displacements, thickening, blends and stitches, each against what it says of itself."""

from dataclasses import replace

import numpy as np
import pytest

from pymimic import Deform
from pymimic.data import images

STILL = {"degrees": 0, "stretch": 0, "shift": 0, "elastic": 0}
SIDE = 12
ROWS, COLUMNS = np.indices((SIDE, SIDE)).reshape(2, -1)
INNER = ((ROWS > 3) & (ROWS < SIDE - 4) & (COLUMNS > 3) & (COLUMNS < SIDE - 4)).nonzero()[0]


def some(rows=40, side=SIDE):
    return np.random.default_rng(0).random((rows, side * side), np.float32)


def deform(x, seed=0, **settings):
    return Deform(round(x.shape[1] ** 0.5), **STILL | settings)(x, np.random.default_rng(seed))


def slopes(moved):
    """Of planes fitted to the inner pixels, and how far off these are."""
    design = np.stack([np.ones_like(ROWS), ROWS, COLUMNS], axis=1)[INNER]
    fit = np.linalg.lstsq(design, moved[:, INNER].T, rcond=None)[0]
    return fit, np.abs(design @ fit - moved[:, INNER].T).max()


def test_without_a_map_an_image_stays_as_it_is():
    x = some()
    assert np.array_equal(deform(x), x)


def test_a_plane_stays_a_plane_turned_and_shifted():
    plane = np.tile((1 + 0.5 * ROWS + 0.25 * COLUMNS).astype(np.float32), (300, 1))
    (_, down, right), off = slopes(deform(plane, degrees=10))
    assert off < 1e-4
    turn = np.arctan2(right, down) - np.arctan2(0.25, 0.5)
    assert np.rad2deg(np.abs(turn)).max() < 10.01
    assert np.rad2deg(np.abs(turn)).max() > 9
    assert np.allclose(np.hypot(down, right), np.hypot(0.25, 0.5), atol=1e-4)
    (_, down, right), off = slopes(deform(plane, shift=2))
    assert np.allclose([down, right], [[0.5], [0.25]], atol=1e-4)
    moved = deform(plane, shift=2)[:, INNER] - plane[:, INNER]
    assert 1.2 < np.abs(moved).max() < 1.5 + 1e-4
    (_, down, right), off = slopes(deform(plane, stretch=0.1))
    assert off < 1e-4
    assert 0.45 - 1e-4 < down.min() < 0.46
    assert 0.54 < down.max() < 0.55 + 1e-4
    assert right.max() > 0.25 * 1.1 + 0.01  # it is slanted too
    down, right = (slopes(deform(np.tile(np.float32(at), (300, 1)), stretch=0.1))[0][axis] for at, axis in ((ROWS, 1), (COLUMNS, 2)))
    assert abs(np.corrcoef(down, right)[0, 1]) < 0.2  # each axis for itself


def test_elastic_displacements_move_pixels_smoothly_by_the_deviation_asked_for():
    side, elastic = 28, 0.7
    row, column = np.indices((side, side)).reshape(2, -1)
    inner = (np.minimum(row, column) > 5) & (np.maximum(row, column) < side - 6)
    for plane in (row, column):
        moved = deform(np.tile(plane.astype(np.float32), (400, 1)), elastic=elastic) - plane
        assert abs(moved[:, inner].std() / elastic - 1) < 0.1
        assert abs(moved[:, inner].mean()) < 0.1
        grid = moved.reshape(-1, side, side)[:, 8:-8, 8:-8]
        assert np.abs(np.diff(grid, axis=2)).mean() < 0.25 * elastic
        correlation = np.corrcoef(grid[:, 4, 0], grid[:, 4, 5])[0, 1]
        assert abs(correlation - np.exp(-((5 / (2 * 5.0)) ** 2))) < 0.1


@pytest.mark.parametrize("side", [1, 8, 28, 70])
def test_defaults_in_pixels_are_in_proportion_to_the_side(side):
    x, scale = some(side=side), side / 28
    new = Deform(side)(x, np.random.default_rng(0))
    assert np.array_equal(new, Deform(side, shift=2 * scale, elastic=1.3 * scale, sigma=5 * scale)(x, np.random.default_rng(0)))
    assert np.array_equal(new, replace(Deform(28), side=side)(x, np.random.default_rng(0)))


def test_pixels_move_by_the_same_part_of_the_side():
    parts = []
    for side in (8, 28):
        row = np.indices((side, side))[0].reshape(-1).astype(np.float32)
        moved = Deform(side, degrees=0, stretch=0)(np.tile(row, (2000, 1)), np.random.default_rng(0)) - row
        middle = moved.reshape(-1, side, side)[:, side // 2, side // 2]
        parts.append(middle.std() / side)
    assert abs(parts[0] / parts[1] - 1) < 0.1


def test_outside_an_image_there_is_nothing():
    moved = deform(np.ones((200, SIDE * SIDE), np.float32), shift=SIDE)
    assert moved.min() == 0
    assert moved.max() <= 1
    assert set(np.unique(moved[:, [0, -1]].min(axis=1))) >= {0.0}


def test_values_stay_between_those_of_the_image():
    x = some()
    for settings in ({"degrees": 180, "stretch": 0.5, "shift": 20, "elastic": 9}, {"thicken": 1}, {"blend": 1}, {"stitch": 1}):
        new = deform(x, **settings)
        assert new.min() >= 0
        assert new.max() <= x.max()


def test_thickening_goes_part_of_the_way_to_dilation_or_erosion():
    from scipy.ndimage import grey_dilation, grey_erosion

    x = some(400).reshape(-1, SIDE, SIDE)
    new = deform(x.reshape(400, -1), thicken=0.75).reshape(x.shape)
    ends = [f(x, (1, 3, 3), mode="nearest") for f in (grey_dilation, grey_erosion)]
    kinds = []
    for image, old, more, less in zip(new, x, *ends):
        parts = [np.median(((image - old) / (end - old + 1e-30))[np.abs(end - old) > 1e-3]) for end in (more, less)]
        fits = [np.allclose(image, old + part * (end - old), atol=1e-5) for part, end in zip(parts, (more, less))]
        kinds.append(-1 if np.array_equal(image, old) else fits.index(True))
        assert kinds[-1] == -1 or 0 <= parts[kinds[-1]] <= 1
    shares = np.bincount(np.array(kinds) + 1) / 400
    assert np.abs(shares - [0.25, 0.375, 0.375]).max() < 0.08


def test_blends_and_stitches_are_made_of_two_images():
    x = np.repeat(np.arange(1.0, 401, dtype=np.float32)[:, None], SIDE * SIDE, axis=1)
    other = np.roll(x, 1, axis=0)
    new = deform(x, blend=0.3, stitch=0.5)
    same = (new == x).all(axis=1)
    plain = ~same & np.isclose(new, new[:, :1]).all(axis=1)
    joined = ((new == x) | (new == other)).all(axis=1) & ~same
    assert (same | plain | joined).all()
    assert np.abs([same.mean() - 0.2, plain.mean() - 0.3, joined.mean() - 0.5]).max() < 0.08
    parts = ((new - x) / (other - x))[plain, 0]
    assert parts.min() >= 0
    assert parts.max() <= 1
    assert parts.std() > 0.2
    taken = (new == other)[joined].reshape(-1, SIDE, SIDE)
    upper, left = taken.any(axis=2).sum(axis=1), taken.any(axis=1).sum(axis=1)
    assert ((upper == SIDE) ^ (left == SIDE)).all()  # all columns of some rows, or all rows of some columns
    assert set(np.minimum(upper, left)) == set(range(SIDE // 4 + 1, 3 * SIDE // 4 + 1))
    assert taken[:, 0, 0].all()
    assert not taken[:, -1, -1].any()


def test_images_follow_from_the_generator_alone_and_leave_the_old_ones():
    x = some()
    settings = {"degrees": 15, "elastic": 1.0, "shift": 2, "stretch": 0.1, "thicken": 0.3, "blend": 0.3, "stitch": 0.3}
    new = deform(x, **settings)
    assert np.array_equal(x, some())
    assert new.dtype == np.float32
    assert np.array_equal(new, deform(x, **settings))
    assert not np.array_equal(new, deform(x, seed=1, **settings))
    assert deform(x[:0], **settings).shape == (0, SIDE * SIDE)
    assert deform(some(3, 1), **settings).shape == (3, 1)
    assert deform(some(2, 300), **settings).shape == (2, 90_000)
    read_only = x.copy()
    read_only.flags.writeable = False
    assert np.array_equal(new, deform(read_only, **settings))
    assert images._waves(28, 5.0).shape[1] < 10


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"side": 0}, ValueError, "side: expected an int in"), ({"side": 2.0}, TypeError, "side: expected an int"),
        ({"degrees": -1}, ValueError, "degrees: expected a number in"), ({"stretch": 1}, ValueError, "stretch: expected a number in"),
        ({"shift": np.nan}, ValueError, "shift: expected"), ({"elastic": "1"}, TypeError, "elastic: expected a number"),
        ({"sigma": 0}, ValueError, "sigma: expected"), ({"thicken": 1.1}, ValueError, "thicken: expected"),
        ({"blend": 0.6, "stitch": 0.5}, ValueError, "stitch: expected at most 0.4 beside blend = 0.6, got 0.5"),
    ],
)  # fmt: skip
def test_bad_settings_are_refused(settings, error, message):
    with pytest.raises(error, match=message):
        Deform(**{"side": 4} | settings)


@pytest.mark.parametrize(
    ("x", "error", "message"),
    [
        (np.zeros((2, 15), np.float32), ValueError, r"x: expected shape \(B, D\) = \(any, 16\), got \(2, 15\)"),
        (np.zeros((2, 16), int), TypeError, "x: expected dtype float32 or float64, got int64"),
        ([[0.0] * 16], TypeError, "x: expected a NumPy array"),
    ],
)
def test_rows_that_are_no_such_images_are_refused(x, error, message):
    with pytest.raises(error, match=message):
        Deform(4)(x, np.random.default_rng(0))
