"""linear_dropout and its gradients: a layer of a deep net."""

import itertools

import numpy as np
import pytest
import reference_bounds as bounds
from cases import checked, exact_shallow, masks, shallow, sizes
from hypothesis import given
from hypothesis import strategies as st

from pymimic import ops
from pymimic.ops import LinearGrads

DROPOUT = {"dropout": 0.3, "seed": 2**63 + 11, "offset": 7, "origin": (48, 96)}
SMALL = {"B": 37, "k": 11, "H": 203, "C": 7}
ACTIVATIONS = ["relu", "identity", "tanh", "sigmoid", "gelu"]


def layer(size, dtype, seed=0, exact=False):
    """x (B, in), weight (out, in), bias (out,) and dout (B, out): the first layer of a shallow case."""
    args = exact_shallow({**size, "C": 1}, dtype, 1, seed) if exact else shallow({**size, "C": 1}, dtype, seed)
    dout = np.random.default_rng(seed + 1).integers(-4, 5, (size["B"], size["H"])) / 8
    return args.z, args.U, args.b, dout.astype(dtype)


def wide(*arrays):
    return tuple(array.astype(np.float64) for array in arrays)


@given(
    size=sizes(axes="BkH", smallest=0),
    mask=masks(),
    activation=st.sampled_from(ACTIVATIONS),
    dtype=st.sampled_from(["float32", "float64"]),
    needs=st.sets(st.sampled_from(LinearGrads._fields)) | st.just(set(LinearGrads._fields)),
    seed=st.integers(0, 2**32),
)
def test_results_and_gradients_against_the_reference(backend, size, mask, activation, dtype, needs, seed):
    x, weight, bias, dout = layer(size, dtype, seed, exact=activation == "relu")
    how = {"activation": activation, **mask}
    out = ops.linear_dropout(x, weight, bias, backend=backend, **how)
    x64, weight64, bias64, dout64, out64 = wide(x, weight, bias, dout, out)
    want = ops.linear_dropout(x64, weight64, bias64, backend="reference", **how)
    bounds.assert_within(out, want, bounds.linear_dropout(x64, weight64, bias64, activation, checked(mask)), "out")
    how |= {"needs": needs}
    grads = ops.linear_dropout_backward(dout, x, weight, out, bias=bias, backend=backend, **how)
    want = ops.linear_dropout_backward(dout64, x64, weight64, out64, bias=bias64, backend="reference", **how)
    bound = bounds.linear_dropout_backward(dout64, x64, weight64, bias64, out64, activation, checked(mask))
    bounds.assert_all_within(grads, want, bound, activation)


@given(size=sizes(axes="BkH"), dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 2**32))
def test_exact_arithmetic_gives_the_reference_to_the_bit(backend, size, dtype, seed):
    x, weight, bias, _ = layer(size, dtype, seed, exact=True)
    out = ops.linear_dropout(x, weight, bias, backend=backend)
    np.testing.assert_array_equal(out, np.maximum(x.astype(np.float64) @ weight.astype(np.float64).T + bias, 0))


@pytest.mark.parametrize("size", [{"B": 1030, "k": 64, "H": 129}, {"B": 5, "k": 784, "H": 1025}, {"B": 2, "k": 3, "H": 20_000}], ids=str)
def test_larger_layers(backend, size, dtype):
    test_results_and_gradients_against_the_reference.hypothesis.inner_test(
        backend, size, DROPOUT, "tanh", dtype, set(LinearGrads._fields), 0
    )


@pytest.mark.parametrize("p", [0.0, 0.3])
def test_gradients_agree_with_finite_differences(backend, activation, p):
    x, weight, bias, dout = layer(SMALL, "float64", exact=activation == "relu")
    if activation == "relu":  # an odd multiple of 1/128: |a| >= 1/128
        bias = bias + 1 / 128
    how = {"activation": activation, **DROPOUT, "dropout": p, "backend": backend}
    out = ops.linear_dropout(x, weight, bias, **how)
    grads = ops.linear_dropout_backward(dout, x, weight, out, bias=bias, **how)
    args = {"x": x, "weight": weight, "bias": bias}
    for name, value in args.items():
        direction = np.random.default_rng(0).standard_normal(value.shape)
        ahead = ops.linear_dropout(**{**args, name: value + 1e-5 * direction}, **how)
        behind = ops.linear_dropout(**{**args, name: value - 1e-5 * direction}, **how)
        grad = getattr(grads, name)
        assert abs(np.vdot(dout, ahead - behind) / 2e-5 - np.vdot(grad, direction)) < 1e-6 * np.linalg.norm(grad), name


@pytest.mark.parametrize(
    "needs", [set(n) for r in range(4) for n in itertools.combinations(LinearGrads._fields, r)], ids=lambda names: "".join(sorted(names))
)
def test_every_subset_of_needs(backend, needs):
    x, weight, bias, dout = layer(SMALL, "float32", exact=True)
    how = {**DROPOUT, "dropout": 0.5}
    out = ops.linear_dropout(x, weight, bias, backend=backend, **how)
    got = ops.linear_dropout_backward(dout, x, weight, out, backend=backend, needs=needs, **how)
    want = ops.linear_dropout_backward(dout, x, weight, out, backend="reference", needs=needs, **how)
    for name, g, w in zip(LinearGrads._fields, got, want):
        assert (g is None) == (name not in needs)
        np.testing.assert_array_equal(g, w)


def test_gelu_needs_the_bias(backend):
    x, weight, bias, dout = layer(SMALL, "float32")
    out = ops.linear_dropout(x, weight, bias, activation="gelu", backend=backend)
    with pytest.raises(ValueError, match=r"^bias: expected .*got None"):
        ops.linear_dropout_backward(dout, x, weight, out, activation="gelu", backend=backend)
    ops.linear_dropout_backward(dout, x, weight, out, bias=bias, activation="gelu", backend=backend)


def test_out_is_written_and_returned(backend, dtype):
    x, weight, bias, dout = layer(SMALL, dtype)
    out = np.full(dout.shape, np.nan, dtype)
    assert ops.linear_dropout(x, weight, bias, out=out, backend=backend, **DROPOUT) is out
    np.testing.assert_array_equal(out, ops.linear_dropout(x, weight, bias, backend=backend, **DROPOUT))


def test_strided_inputs_give_the_same_bits(backend, dtype):
    x, weight, bias, dout = layer(SMALL, dtype)
    out = ops.linear_dropout(x, weight, bias, backend=backend, **DROPOUT)
    x_f, weight_f, bias_r = np.asfortranarray(x), np.asfortranarray(weight), np.ascontiguousarray(bias[::-1])[::-1]
    np.testing.assert_array_equal(ops.linear_dropout(x_f, weight_f, bias_r, backend=backend, **DROPOUT), out)
    grads = ops.linear_dropout_backward(dout, x, weight, out, backend=backend, **DROPOUT)
    f_dout, f_out = np.asfortranarray(dout), np.asfortranarray(out)
    for g, w in zip(ops.linear_dropout_backward(f_dout, x_f, weight_f, f_out, backend=backend, **DROPOUT), grads):
        np.testing.assert_array_equal(g, w)


def test_nan_propagates(backend, activation, dtype):
    x, weight, bias, _ = layer(SMALL, dtype)
    x = x.copy()
    x[3, 4] = np.nan
    out = ops.linear_dropout(x, weight, bias, activation=activation, backend=backend)
    assert np.isnan(out[3]).all()
    assert not np.isnan(np.delete(out, 3, axis=0)).any()


def test_two_layers_are_the_shallow_net(backend, activation, dtype):
    """linear_dropout, then h W + c, is shallow_forward: one mask, one activation."""
    args = shallow(SMALL, dtype)
    how = {"activation": activation, **DROPOUT}
    h = ops.linear_dropout(args.z, args.U, args.b, backend=backend, **how)
    y = ops.shallow_forward(*args.forward, backend=backend, **how)
    bound = bounds.shallow_forward(*args.wide.forward, activation, checked(DROPOUT))
    bounds.assert_within(y, h.astype(np.float64) @ args.W + args.c, 2 * bound, "y")
