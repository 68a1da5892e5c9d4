"""`pymimic_linear_dropout` and its backward pass in the emulator: the reference in float64, its mask bit for bit."""

import cases
import numpy as np
import pytest
from emulator import INVALID_VALUE, c_mask, guarded
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends import reference
from pymimic.backends.interface import ACTIVATIONS, Mask

UNITS = (*cases.SIZES, 250, 300, 513)
SEEDS = range(6)


class Layer:
    """A product and a gradient, `start` elements off alignment, and what both passes make of them."""

    def __init__(self, rows, units, activation="relu", mask=None, bias=True, start=0, seed=0):
        rng = np.random.default_rng(seed)
        self.shape, self.activation, self.mask, self.start = (rows, units), activation, mask or Mask(), start
        self.product, self.dout = self.buffer(rng.standard_normal(self.shape)), self.buffer(rng.standard_normal(self.shape))
        self.bias = rng.standard_normal(units).astype(np.float32) if bias else None

    def buffer(self, values=np.nan):
        array = guarded((int(np.prod(self.shape)) + self.start,)).array[self.start :].reshape(self.shape)
        array[...] = values
        return array

    def keywords(self):
        return ACTIVATIONS.index(self.activation), c_mask(self.mask)

    def a(self):
        return self.product.astype(np.float64) + (0 if self.bias is None else self.bias)

    def forward(self, simt, in_place=False):
        out = self.product if in_place else self.buffer()
        simt.call("pymimic_linear_dropout", self.product, self.bias, out, *self.shape, *self.keywords(), None)
        return out

    def expected(self):
        kept = reference.multiplier(self.shape, self.mask, np.dtype(np.float64))
        return reference.activate(self.a(), self.activation)[0] * kept, kept

    def backward(self, simt, out, in_place=False, with_bias=True, seed=0):
        simt.seed(seed)
        da, dbias = self.dout.copy() if in_place else self.buffer(), guarded(self.shape[1:])
        simt.call(
            "pymimic_linear_dropout_backward", da if in_place else self.dout, out, self.bias, da, dbias.array if with_bias else None,
            *self.shape, *self.keywords(), simt.workspace("pymimic_linear_dropout_backward_workspace", *self.shape), None,
        )  # fmt: skip
        assert dbias.intact
        return da, dbias.array

    def expected_da(self, out):
        """And its bound: some roundings of each factor."""
        kept = self.expected()[1]
        if self.activation == "gelu":
            slope, over = reference.activate(self.a(), "gelu")[1], 1 + np.abs(self.a())
        else:
            slope = reference.slope_from_output(out.astype(np.float64), self.activation, self.mask)
            over = 1 + np.abs(out.astype(np.float64))
        dout = self.dout.astype(np.float64)
        return dout * slope * kept, 2.0**-20 * np.abs(dout) * over * kept

    def holds(self, da, dbias, out):
        want, bound = self.expected_da(out)
        chain = 2.0**-22 * (4 + self.shape[0] ** 0.5) * np.sqrt((want**2).sum(0))
        return bool((np.abs(da - want) <= bound).all() and (np.abs(dbias - want.sum(0)) <= bound.sum(0) + chain).all())


@given(
    rows=st.sampled_from((0, *cases.SIZES, 300)), units=st.sampled_from(UNITS), activation=st.sampled_from(ACTIVATIONS), mask=cases.masks(),
    bias=st.booleans(), start=st.integers(0, 3), in_place=st.booleans(), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=40)
def test_any_shape(simt, rows, units, activation, mask, bias, start, in_place, seed):
    layer = Layer(rows, units, activation, cases.checked(mask), bias, start, seed)
    product = layer.product.copy()
    (want, kept), a = layer.expected(), layer.a()
    out = layer.forward(simt, in_place)
    assert (np.abs(out - want) <= 2.0**-20 * (1 + np.abs(a)) * kept).all()
    layer.product[...] = product
    forward = product if activation == "gelu" else out
    da, dbias = layer.backward(simt, forward, in_place, seed=seed)
    assert layer.holds(da, dbias, forward)


@pytest.mark.parametrize("shape", [(150, 190), (33, 513)])
def test_mask_bits(simt, shape):
    layer = Layer(*shape, "identity", Mask(77, 2**64 - 3, 2**32 - 1, 16 * 2**31, 32 * 3), bias=False)
    layer.product[...], layer.dout[...] = 1, 1
    kept = reference.multiplier(shape, layer.mask, np.dtype(np.float32))
    out = layer.forward(simt)
    np.testing.assert_array_equal(out, kept)
    np.testing.assert_array_equal(layer.backward(simt, out)[0], kept)


def test_seed_and_offset_in_device_memory(simt):
    layer, seed, offset = Layer(40, 70, mask=Mask(128, 1, 2)), np.array(-5, np.int64), np.array(9, np.int64)
    mask, out, da = c_mask(layer.mask), layer.buffer(), layer.buffer()
    mask.device_seed, mask.device_offset = seed.ctypes.data, offset.ctypes.data
    simt.call("pymimic_linear_dropout", layer.product, layer.bias, out, 40, 70, 0, mask, None)
    simt.call("pymimic_linear_dropout_backward", layer.dout, out, None, da, None, 40, 70, 0, mask, None, None)
    same = Layer(40, 70, mask=Mask(128, 2**64 - 5, 9))
    np.testing.assert_array_equal(out, same.forward(simt))
    np.testing.assert_array_equal(da, same.backward(simt, out)[0])


def test_no_bias_gradient_and_schedules_give_the_same_bits(simt):
    layer = Layer(2000, 70, "tanh", Mask(128))
    out = layer.forward(simt)
    da, dbias = layer.backward(simt, out)
    np.testing.assert_array_equal(layer.backward(simt, out, with_bias=False)[0], da)
    for seed in SEEDS:
        again = layer.backward(simt, out, seed=seed)
        np.testing.assert_array_equal(again[0], da)
        np.testing.assert_array_equal(again[1], dbias)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_propagates(simt, activation):
    layer = Layer(40, 70, activation, Mask(128), bias=False)
    layer.product[4, 22] = np.nan
    out = layer.forward(simt)
    assert np.argwhere(np.isnan(out)).tolist() == [[4, 22]]
    layer.dout[33, 7] = np.nan
    da, dbias = layer.backward(simt, layer.product if activation == "gelu" else out)
    # relu's gate is closed for NaN, identity has no gate
    expected = [[33, 7]] if activation in ("relu", "identity") else [[4, 22], [33, 7]]
    assert np.argwhere(np.isnan(da)).tolist() == expected
    assert np.flatnonzero(np.isnan(dbias)).tolist() == sorted(column for _, column in expected)


def test_nothing_and_beyond_the_limits(simt):
    layer = Layer(4, 40)
    forward = lambda rows, units, mask: simt.status(  # noqa: E731
        "pymimic_linear_dropout", layer.product, layer.bias, layer.product, rows, units, 0, mask, None)  # fmt: skip
    backward = lambda rows, units, mask: simt.status(  # noqa: E731
        "pymimic_linear_dropout_backward", layer.dout, layer.product, None, layer.dout, None, rows, units, 0, mask, None, None)  # fmt: skip
    for call in (forward, backward):
        assert call(0, 40, c_mask(Mask())) == call(4, 0, c_mask(Mask())) == 0
        for rows, units in ((-1, 40), (4, -1)):
            assert call(rows, units, c_mask(Mask())) == INVALID_VALUE
        for mask in (Mask(0), Mask(257), Mask(128, 0, 0, 8), Mask(128, 0, 0, 0, 16)):
            assert call(4, 40, c_mask(mask)) == INVALID_VALUE


def test_mutants(simt):
    """The trade of mask words and the sums over lanes."""
    layer = Layer(2100, 70, "relu", Mask(128))
    (want, kept), simt_out = layer.expected(), layer.forward(simt)
    simt.forget_visits()

    def right():
        out = layer.forward(simt)
        return (np.abs(out - want) <= 2.0**-20 * kept).all() and layer.holds(*layer.backward(simt, simt_out), simt_out)

    assert right()
    mutants = list(simt.visited("mask_vec4.cuh", "masked_tiles.cuh", "split_sums.cuh"))
    assert len(mutants) == 3
    alive = simt.survivors(mutants, right)
    assert alive == []
