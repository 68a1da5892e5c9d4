"""`pymimic_hidden_forward` and `_backward` in the emulator: the reference in float64, its mask bit for bit."""

import cases
import numpy as np
import pytest
from emulator import ELEMENTS, INVALID_VALUE, PRECISIONS, CHidden, c_mask, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends import reference
from pymimic.backends.interface import ACTIVATIONS, Mask

ROUNDING = {"bf16": 2.0**-8, "fp32": 2.0**-23, "tf32": 2.0**-23}
UNITS = (*cases.SIZES, 250, 300)
MASK = Mask(77, 2**64 - 3, 2**32 - 1, 16 * 2**31, 32 * 3)
SEEDS = range(6)


class Slab:
    """A product and a gradient, and what both passes make of them."""

    def __init__(self, rows, units, activation="relu", mask=None, precision="bf16", saved=None, more=0, seed=0):
        rng = np.random.default_rng(seed)
        self.shape, self.activation, self.mask, self.precision, self.saved_as = (rows, units), activation, mask or Mask(), precision, saved
        self.ld = -(-units // 16) * 16 + more
        self.a, self.dh = (self.room("fp32", rng.standard_normal(self.shape)) for _ in range(2))
        self.b = rng.standard_normal(units).astype(np.float32)
        self.saved = None if saved is None else self.room(saved)

    def room(self, precision, values=None):
        """(rows, ld): NaN behind the units."""
        array = guarded((self.shape[0], self.ld), ELEMENTS[precision]).array
        if values is not None:
            array[:, : self.shape[1]] = values
        return array

    def values(self, array):
        """In float64, once nothing was written behind the units."""
        assert np.isnan(array[:, self.shape[1] :].astype(np.float64)).all()
        return array[:, : self.shape[1]].astype(np.float64)

    def struct(self, reads_a=True):
        saved_precision = PRECISIONS.index(self.saved_as or "fp32")
        return CHidden(
            *self.shape, self.ld, PRECISIONS.index(self.precision), ACTIVATIONS.index(self.activation), c_mask(self.mask),
            self.a.ctypes.data if reads_a else None, self.b.ctypes.data, None if self.saved is None else self.saved.ctypes.data,
            saved_precision,
        )  # fmt: skip

    def forward(self, simt, with_h=True, in_place=False):
        h = self.a if in_place else self.room(self.precision)
        simt.call("pymimic_hidden_forward", self.struct(), h if with_h else None, None)
        return h

    def backward(self, simt, with_h=True, with_b=True, in_place=False, seed=0):
        simt.seed(seed)
        h, da = (self.a, self.dh.copy()) if in_place else (self.room(self.precision), self.room(self.precision))
        db = guarded(self.shape[1:])
        simt.call(
            "pymimic_hidden_backward", self.struct(self.saved is None), da if in_place else self.dh, h if with_h else None, da,
            db.array if with_b else None, simt.workspace("pymimic_hidden_backward_workspace", *self.shape), None,
        )  # fmt: skip
        assert db.intact
        return h, da, db.array

    def wanted(self, a=None):
        """h, f' times the mask, and how far sums and functions in float32 may lead from them."""
        a = self.values(self.a) + self.b if a is None else a
        kept = reference.multiplier(self.shape, self.mask, np.dtype(np.float64))
        value, slope = reference.activate(a, self.activation)
        return value * kept, slope * kept, 2.0**-20 * (1 + np.abs(a)) * kept

    def is_h(self, array, precision, wanted):
        h, _, over = wanted
        return bool((np.abs(self.values(array) - h) <= over + ROUNDING[precision] * np.abs(h)).all())

    def is_backward(self, da, db, wanted):
        _, slope, over = wanted
        dh = self.values(self.dh)
        want, bound = dh * slope, over * np.abs(dh)
        chain = 2.0**-22 * (4 + self.shape[0] ** 0.5) * np.sqrt((want**2).sum(0))
        rounded = bound + ROUNDING[self.precision] * np.abs(want)
        return bool((np.abs(self.values(da) - want) <= rounded).all() and (np.abs(db - want.sum(0)) <= bound.sum(0) + chain).all())


def same_bits(some, others):
    return all(one.tobytes() == other.tobytes() for one, other in zip(some, others))


@given(
    rows=st.sampled_from((0, *cases.SIZES, 300)), units=st.sampled_from(UNITS), activation=st.sampled_from(ACTIVATIONS), mask=cases.masks(),
    precision=st.sampled_from(["bf16", "fp32", "tf32"]), saved=st.sampled_from([None, "bf16", "fp32"]), more=st.sampled_from([0, 16, 80]),
    seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40)
def test_any_shape(simt, rows, units, activation, mask, precision, saved, more, seed):
    slab = Slab(rows, units, activation, cases.checked(mask), precision, saved, more, seed)
    wanted = slab.wanted()
    assert slab.is_h(slab.forward(simt), precision, wanted)
    if saved is None:
        h, da, db = slab.backward(simt, seed=seed)
        assert slab.is_h(h, precision, wanted)
        assert slab.is_backward(da, db, wanted)
        return
    stored = slab.values(slab.saved)
    if activation == "relu":
        assert slab.is_h(slab.saved, saved, wanted)
        h, da, db = slab.backward(simt, seed=seed)
        np.testing.assert_array_equal(slab.values(h), stored.astype(ELEMENTS[precision]))
        assert slab.is_backward(da, db, (stored, (stored > 0) * 256 / slab.mask.threshold, 2.0**-20))
    else:
        a = slab.values(slab.a) + slab.b
        assert (np.abs(stored - a) <= (ROUNDING[saved] + 2.0**-23) * np.abs(a) + 2.0**-20).all()
        h, da, db = slab.backward(simt, seed=seed)
        assert slab.is_h(h, precision, slab.wanted(stored))
        assert slab.is_backward(da, db, slab.wanted(stored))


@pytest.mark.parametrize("precision", ["bf16", "fp32"])
@pytest.mark.parametrize("shape", [(150, 190), (33, 300)])
def test_mask_bits(simt, shape, precision):
    slab = Slab(*shape, "identity", MASK, precision)
    slab.a[:, : shape[1]], slab.dh[:, : shape[1]], slab.b[:] = 1, 1, 0
    kept = reference.multiplier(shape, MASK, np.dtype(np.float32)).astype(ELEMENTS[precision]).astype(np.float64)
    np.testing.assert_array_equal(slab.values(slab.forward(simt)), kept)
    for array in slab.backward(simt)[:2]:
        np.testing.assert_array_equal(slab.values(array), kept)


def test_relu_keeps_what_it_would_make_again(simt):
    """In the type of the operands: the same bits of h, of da and of db, without a mask being drawn."""
    for precision in ("bf16", "fp32"):
        again, saved = (Slab(150, 70, "relu", MASK, precision, as_) for as_ in (None, precision))
        saved.forward(simt, with_h=False)
        assert same_bits(again.backward(simt), saved.backward(simt))


def test_in_place_and_what_is_not_asked_for(simt):
    for saved in (None, "fp32"):
        slab, same = (Slab(70, 90, "tanh", MASK, "fp32", saved) for _ in range(2))
        h, (again, da, db) = slab.forward(simt), slab.backward(simt)
        assert same_bits([same.forward(simt, in_place=saved is not None)], [h])
        assert same_bits(same.backward(simt, in_place=True), (again, da, db))
        if saved is not None:
            alone, only = slab.backward(simt, with_h=False, with_b=False)[:2]
            assert np.isnan(alone).all()
            assert same_bits([only], [da])


def test_schedules_give_the_same_bits(simt):
    slab = Slab(2000, 70, "sigmoid", MASK)
    first = slab.backward(simt)
    assert all(same_bits(slab.backward(simt, seed=seed), first) for seed in SEEDS)


def test_seed_and_offset_in_device_memory(simt):
    slab, same = Slab(40, 70, "tanh", Mask(128, 1, 2)), Slab(40, 70, "tanh", Mask(128, 2**64 - 5, 9))
    seed, offset, struct, h = np.array(-5, np.int64), np.array(9, np.int64), slab.struct(), slab.room("bf16")
    struct.mask.device_seed, struct.mask.device_offset = seed.ctypes.data, offset.ctypes.data
    simt.call("pymimic_hidden_forward", struct, h, None)
    assert same_bits([h], [same.forward(simt)])


@pytest.mark.parametrize("activation", ACTIVATIONS)
@pytest.mark.parametrize("saved", [None, "bf16"])
def test_nan_propagates(simt, activation, saved):
    slab = Slab(40, 70, activation, Mask(128), "bf16", saved)
    slab.a[4, 22], slab.dh[33, 7] = np.nan, np.nan
    # relu's gate is closed for NaN, identity has no gate
    expected = [[33, 7]] if activation in ("relu", "identity") else [[4, 22], [33, 7]]
    assert np.argwhere(np.isnan(slab.values(slab.forward(simt)))).tolist() == [[4, 22]]
    h, da, db = slab.backward(simt)
    assert np.argwhere(np.isnan(slab.values(h))).tolist() == [[4, 22]]
    assert np.argwhere(np.isnan(slab.values(da))).tolist() == expected
    assert np.flatnonzero(np.isnan(db)).tolist() == sorted(column for _, column in expected)


def test_nothing_and_beyond_the_limits(simt):
    slab = Slab(4, 40)
    h, db = slab.room("bf16"), guarded((40,), fill=1.0).array

    def statuses(**fields):
        struct = slab.struct()
        for name, value in fields.items():
            setattr(struct, name, value)
        return [
            simt.status("pymimic_hidden_forward", struct, h, None),
            simt.status("pymimic_hidden_backward", struct, slab.dh, h, h, db, None, None),
        ]

    assert statuses(units=0) == [0, 0]
    assert (db == 1).all()
    assert statuses(B=0) == [0, 0]
    assert (db == 0).all()
    for fields in (
        {"B": -1}, {"units": -1}, {"units": 49}, {"ld": 40}, {"ld": 32}, {"precision": PRECISIONS.index("fp16")},
        {"saved_precision": PRECISIONS.index("fp16")}, {"a": slab.a.ctypes.data + 4}, {"saved": 8}, {"mask": c_mask(Mask(0))},
        {"mask": c_mask(Mask(128, 0, 0, 8))},
    ):  # fmt: skip
        assert statuses(**fields) == [INVALID_VALUE] * 2, fields


def test_mutants(simt):
    """The trade of mask words and the sums over lanes."""
    slab = Slab(2100, 70, "relu", Mask(128))
    wanted = slab.wanted()

    def right():
        h, da, db = slab.backward(simt)
        return slab.is_h(slab.forward(simt), "bf16", wanted) and slab.is_h(h, "bf16", wanted) and slab.is_backward(da, db, wanted)

    simt.forget_visits()
    assert right()
    mutants = list(simt.visited())
    assert len(mutants) == 3
    alive = simt.survivors(mutants, right)
    assert alive == []
