"""Which units are whose, and handles and students of one process alone."""

import in_ranks as there
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pymimic as pm
from pymimic.distributed import Group, ProcessGroup, ShardedStudent, ShardedWeights, Units, dealt
from pymimic.distributed.units import PARTS, TILE, part_grain, parts
from pymimic.ops import ShallowGrads


@given(st.integers(1, 5000), st.integers(1, 40), st.lists(st.floats(0.01, 100), min_size=40, max_size=40), st.booleans())
def test_all_units_are_dealt_out_in_whole_tiles(hidden, ranks, shares, reproducible):
    grain = part_grain(hidden) if reproducible else TILE
    if -(-hidden // grain) < ranks:
        with pytest.raises(ValueError, match=r"^hidden: expected at least \d+ units"):
            dealt(hidden, ranks, shares[:ranks], grain)
        return
    found = dealt(hidden, ranks, shares[:ranks], grain)
    assert [units.first for units in found] == [0, *(units.end for units in found[:-1])]
    assert found[-1].end == hidden
    assert all(len(units) > 0 and units.first % grain == 0 for units in found)
    if reproducible:
        cut = [part for units in found for part in parts(units, hidden)]
        assert cut == parts(Units(0, hidden), hidden)
        assert len(cut) <= PARTS


def test_units_follow_the_shares():
    assert [len(units) for units in dealt(3200, 3, [1, 2, 1])] == [800, 1600, 800]
    assert dealt(100, 2) == [Units(0, 64), Units(64, 100)]
    assert dealt(3200, 2, [1e308, 1e308]) == dealt(3200, 2)


@pytest.mark.parametrize(
    ("shares", "said"), [([1], "expected one for each of 2"), ([1, 0], "shares: expected"), ([1, float("nan")], "shares: expected")]
)
def test_wrong_shares(shares, said):
    with pytest.raises(ValueError, match=said):
        dealt(100, 2, shares)


def test_shares_are_a_sequence():
    with pytest.raises(TypeError, match=r"^shares: expected a sequence of numbers, got int"):
        dealt(100, 2, 5)


def test_fixed_parts_are_for_as_many_processes():
    group = Group()
    group.size = PARTS + 1
    with pytest.raises(ValueError, match=r"^reproducible: expected at most 16 processes, as H is cut into so many parts, got 17"):
        ShardedStudent(4, 100_000, 3, group=group, reproducible=True)


@pytest.mark.parametrize("reproducible", [False, True])
@pytest.mark.parametrize("keep", ["float32", "bfloat16"])
def test_a_handle_of_all_units_is_shallow_weights(reproducible, keep):
    whole = pm.ShallowWeights(**there.WEIGHTS, keep=keep)
    wide = ShardedWeights(**there.WEIGHTS, keep=keep, group=Group(), reproducible=reproducible)
    rng = np.random.default_rng(0)
    z, dy = rng.standard_normal((there.B, there.K), np.float32), rng.standard_normal((there.B, there.C), np.float32)
    (y, saved), (want, kept) = (net.forward(z, save=True, **there.MASK) for net in (wide, whole))
    np.testing.assert_allclose(y, want, rtol=1e-5, atol=1e-5)
    out = ShallowGrads(z=np.empty_like(z))
    found = wide.backward(dy, z, saved=saved, out=out, **there.MASK)
    assert found.z is out.z
    for name, gradient in whole.backward(dy, z, saved=kept, **there.MASK)._asdict().items():
        np.testing.assert_allclose(getattr(found, name), gradient, rtol=1e-5, atol=1e-5 * np.abs(gradient).max())
    assert wide.backward(dy, z, needs=["c"], **there.MASK).U is None


def test_units_that_cut_a_part_are_refused():
    with pytest.raises(ValueError, match=r"^units: expected whole parts of 64 units of 1000, got units 0 to 32"):
        parts(Units(0, 32), 1000)


def test_a_part_of_a_student_has_the_weights_that_the_whole_one_has():
    net, whole = (
        ShardedStudent(there.D, there.H, there.C, there.K, seed=3, group=Group()),
        pm.Student(there.D, there.H, there.C, there.K, seed=3),
    )
    drawn = pm.Student.__new__(pm.Student)
    drawn._configure(**whole.configuration())
    drawn._draw(320, 500)
    for name, array in whole.arrays().items():
        assert np.array_equal(array, net.arrays()[name])
        assert np.array_equal(array[320:500] if name in "UbW" else array, drawn._arrays[name])
    assert np.array_equal(net.whole().arrays()["U"], whole.arrays()["U"])
    assert (net.parameter_count, net.multiply_adds) == (whole.parameter_count, whole.multiply_adds)
    assert repr(net).startswith("ShardedStudent(inputs=30, hidden=1000")


def test_a_group_is_to_be_initialised():
    pytest.importorskip("torch")
    with pytest.raises(RuntimeError, match=r"^group: expected torch.distributed to be initialised"):
        ProcessGroup()


def test_a_group_of_devices_alone_is_refused():
    distributed = pytest.importorskip("torch.distributed")
    distributed.init_process_group("cuda:gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        with pytest.raises(ValueError, match=r"^group: expected one whose backend knows arrays on the CPU, as gloo does, got cuda:gloo"):
            ProcessGroup()
    finally:
        distributed.destroy_process_group()


def test_what_a_trainer_takes():
    with pytest.raises(TypeError, match=r"^group: expected a pymimic.distributed.ProcessGroup or None, got str"):
        pm.Trainer(there.student(), pm.SGD(0.1), epochs=1, group="gloo")
    with pytest.raises(ValueError, match=r"^group, reproducible: expected them with a Student"):
        pm.Trainer(pm.DeepNet([3, 4, 2]), pm.SGD(0.1), epochs=1, reproducible=True)
    with pytest.raises(ValueError, match=r"^group, reproducible: expected none beside a ShardedStudent"):
        pm.Trainer(ShardedStudent(4, 40, 3, group=Group()), pm.SGD(0.1), epochs=1, reproducible=True)


def test_agreement_in_one_process():
    group = Group()
    group.agree(anything=np.ones(3))
    assert (group.told([1, "a"]), group.anyone(True), group.anyone(False)) == ([[1, "a"]], True, False)
    with pytest.raises(KeyError, match="x"), group.together():
        raise KeyError("x")


@pytest.mark.parametrize("cut", [lambda kept: (), lambda kept: kept[:1], lambda kept: kept * 2, lambda kept: kept[0], list, lambda kept: 5])
def test_what_was_saved_is_of_all_parts(cut):
    weights = ShardedWeights(*(np.ones(shape, np.float32) for shape in ((64, 3), 64, (64, 2), 2)), group=Group(), reproducible=True)
    z, dy = np.ones((4, 3), np.float32), np.ones((4, 2), np.float32)
    _, kept = weights.forward(z, save=True)
    assert len(kept) == 2
    given = cut(kept)
    for call in (weights.backward, lambda *of, **how: weights.step(*of, pm.SGD(0.1), **how)):
        with pytest.raises(TypeError, match=r"^saved: expected the tuple of 2 that forward\(save=True\) returned, got"):
            call(dy, z, saved=given)
    if not isinstance(given, pm.ops.Saved):
        with pytest.raises(TypeError, match=r"^save: expected"):
            weights.forward(z, save=given)
