"""What an exact answer may be off by: every op's expression over absolute values, in float64.

A result is right when |got - want| <= TOLERANCE * bound, `want` being the reference's in float64. The bound
of a sum of products is the sum of the products' absolute values. An activation passes on both an error of
its own, relative to its expression over absolute values (tanh: |tanh a|; 1 - h h: 1 + h h), and the error
of its argument, times the slope there.
"""

import math
from typing import NamedTuple

import numpy as np

from pymimic.backends import reference
from pymimic.backends.interface import FactorizedGrads, LinearGrads, ShallowGrads

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}


def assert_within(got, want, bound, what):
    """Demand dtype-sized errors: `got` has the dtype under test, `want` and `bound` are float64."""
    assert got.shape == want.shape == bound.shape, what
    assert got.dtype in (np.float32, np.float64), what
    allowed = TOLERANCE[str(got.dtype)] * bound + np.finfo(got.dtype).tiny
    error = np.abs(got.astype(np.float64) - want)
    if not (error <= allowed).all():
        where = np.unravel_index(np.argmax(np.where(np.isnan(error), np.inf, error) / allowed), error.shape)
        wrong = np.count_nonzero(~(error <= allowed))
        raise AssertionError(
            f"{what}{list(map(int, where))}: expected {want[where]:.9g}, got {got[where]:.9g}, "
            f"{error[where] / bound[where]:.2g} of the bound {bound[where]:.3g} away; {wrong} of {error.size} values are wrong"
        )


def assert_all_within(got, want, bounds, what=""):
    """The same for a tuple of gradients, None where one was not asked for."""
    for name in want._fields:
        g, w = getattr(got, name), getattr(want, name)
        assert (g is None) == (w is None), f"{what} d{name}"
        if w is not None:
            assert_within(g, w, getattr(bounds, name), f"{what} d{name}")


class _Activation(NamedTuple):
    value: np.ndarray  # f(a) over absolute values
    slope: np.ndarray  # |f'(a)|
    slope_value: np.ndarray  # f'(a) over absolute values
    curvature: np.ndarray  # |f''(a)|


def _activation(a, activation):
    zero, one = np.zeros_like(a), np.ones_like(a)
    if activation == "identity":
        return _Activation(np.abs(a), one, one, zero)
    if activation == "relu":  # gates are exact: the tests keep a exact, or away from 0
        gate = (a > 0).astype(a.dtype)
        return _Activation(np.abs(a) * gate, gate, gate, zero)
    if activation == "tanh":
        h = np.abs(np.tanh(a))
        return _Activation(h, 1 - h * h, 1 + h * h, 2 * h * (1 - h * h))
    if activation == "sigmoid":
        h = 1 / (1 + np.exp(-np.abs(a)))
        return _Activation(h, h * (1 - h), h * (1 + h), h * (1 - h) * np.abs(1 - 2 * h))
    cdf = 0.5 * (1 + np.vectorize(math.erf, otypes=[np.float64])(np.abs(a) * math.sqrt(0.5)))
    density = np.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    slope = np.abs(reference.activate(a, "gelu")[1])
    return _Activation(np.abs(a) * cdf, slope, cdf + np.abs(a) * density, density * np.abs(2 - a * a))


def _hidden(x, weight, bias, activation, mask):
    """Bounds of h and of f'(a), both after dropout."""
    a = x @ weight.T + bias
    over = np.abs(x) @ np.abs(weight).T + np.abs(bias)
    f = _activation(a, activation)
    kept = reference.multiplier(a.shape, mask, a.dtype)
    return (f.value + f.slope * over) * kept, (f.slope_value + f.curvature * over) * kept


def shallow_forward(z, U, b, W, c, activation, mask):
    return _hidden(z, U, b, activation, mask)[0] @ np.abs(W) + np.abs(c)


def shallow_backward(dy, z, U, b, W, activation, mask):
    h, slope = _hidden(z, U, b, activation, mask)
    dy, z, U, W = np.abs(dy), np.abs(z), np.abs(U), np.abs(W)
    da = dy @ W.T * slope
    return ShallowGrads(da @ U, da.T @ z, da.sum(0), h.T @ dy, dy.sum(0))


def linear_dropout(x, weight, bias, activation, mask):
    return _hidden(x, weight, bias, activation, mask)[0]


def linear_dropout_backward(dout, x, weight, bias, out, activation, mask):
    if activation == "gelu":
        slope = _hidden(x, weight, bias, activation, mask)[1]
    else:  # the slope is taken from `out`, which is given
        kept = reference.multiplier(out.shape, mask, out.dtype)
        h = np.abs(out) / mask.scale
        slope = {"relu": (out > 0) * 1.0, "identity": np.ones_like(h), "tanh": 1 + h * h, "sigmoid": h * (1 + h)}[activation] * kept
    da = np.abs(dout) * slope
    return LinearGrads(da @ np.abs(weight), da.T @ np.abs(x), da.sum(0))


def factorized_matmul(x, V, U, b, activation):
    """Here the argument of U is itself a rounded product."""
    z, over = x @ V.T, np.abs(x) @ np.abs(V).T
    f = _activation(z @ U.T + b, activation)
    return f.value + f.slope * (over @ np.abs(U).T + np.abs(b))


def factorized_matmul_backward(da, x, V, U):
    da, x, V, U = (np.abs(array) for array in (da, x, V, U))
    dz = da @ U
    return FactorizedGrads(dz @ V, dz.T @ x, da.T @ (x @ V.T), da.sum(0))
