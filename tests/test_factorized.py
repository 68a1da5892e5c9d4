"""factorized_matmul, the wide layer through its bottleneck, and its gradients."""

import itertools

import numpy as np
import pytest
import reference_bounds as bounds
from cases import LARGEST, SIZES
from hypothesis import given
from hypothesis import strategies as st

from pymimic import ops
from pymimic.ops import FactorizedGrads

SMALL = {"B": 19, "D": 33, "k": 7, "H": 101}


@st.composite
def sizes(draw):
    chosen = {axis: draw(st.sampled_from(SIZES)) for axis in "BDkH"}
    large = draw(st.sampled_from(["", "D", "k", "H"]))
    if large:
        chosen[large] = draw(st.integers(0, {"D": 2000, **LARGEST}[large]))
    while chosen["B"] * chosen["k"] * (chosen["D"] + chosen["H"]) > 4_000_000:
        shrinkable = max((axis for axis in "BkDH" if axis != large), key=chosen.__getitem__)
        chosen[shrinkable] = -(-chosen[shrinkable] // 2)
    return chosen


def arrays(size, dtype, seed=0, exact=False):
    """x, V, U, b and da; multiples of 1/4 with two bits where `exact`."""
    rng = np.random.default_rng(seed)
    shapes = [tuple(size[axis] for axis in axes) for axes in ("BD", "kD", "Hk", "H", "BH")]
    made = [rng.integers(-1, 2, shape) / 4 if exact else rng.standard_normal(shape) for shape in shapes]
    return tuple(array.astype(dtype) for array in made)


@given(
    size=sizes(),
    activation=st.sampled_from(["identity", "tanh", "sigmoid", "gelu"]),
    dtype=st.sampled_from(["float32", "float64"]),
    biased=st.booleans(),
    needs=st.sets(st.sampled_from(FactorizedGrads._fields)) | st.just(set(FactorizedGrads._fields)),
    seed=st.integers(0, 2**32),
)
def test_results_and_gradients_against_the_reference(backend, size, activation, dtype, biased, needs, seed):
    x, V, U, b, da = arrays(size, dtype, seed)
    V = V / np.dtype(dtype).type(max(1, size["D"]) ** 0.5)
    x64, V64, U64, b64, da64 = (array.astype(np.float64) for array in (x, V, U, b, da))
    out = ops.factorized_matmul(x, V, U, b if biased else None, activation=activation, backend=backend)
    want = ops.factorized_matmul(x64, V64, U64, b64 if biased else None, activation=activation, backend="reference")
    bounds.assert_within(out, want, bounds.factorized_matmul(x64, V64, U64, b64 * biased, activation), "out")
    grads = ops.factorized_matmul_backward(da, x, V, U, needs=needs, backend=backend)
    want = ops.factorized_matmul_backward(da64, x64, V64, U64, needs=needs, backend="reference")
    bounds.assert_all_within(grads, want, bounds.factorized_matmul_backward(da64, x64, V64, U64))


@given(size=sizes(), dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 2**32))
def test_exact_arithmetic_gives_relu_to_the_bit(backend, size, dtype, seed):
    """Sums of up to D k + 16 units of 1/64 are exact in float32 below 2^24."""
    x, V, U, b, _ = arrays(size, dtype, seed, exact=True)
    got = ops.factorized_matmul(x, V, U, b, activation="relu", backend=backend)
    np.testing.assert_array_equal(got, np.maximum(x.astype(np.float64) @ V.astype(np.float64).T @ U.astype(np.float64).T + b, 0))


@pytest.mark.parametrize(
    "needs",
    [set(n) for r in range(5) for n in itertools.combinations(FactorizedGrads._fields, r)],
    ids=lambda names: "".join(sorted(names)),
)
def test_every_subset_of_needs(backend, needs):
    x, V, U, _, da = arrays(SMALL, "float32", exact=True)
    got = ops.factorized_matmul_backward(da, x, V, U, needs=needs, backend=backend)
    x, V, U, da = (array.astype(np.float64) for array in (x, V, U, da))
    want = FactorizedGrads(da @ U @ V, (da @ U).T @ x, da.T @ (x @ V.T), da.sum(0))
    for name, g, w in zip(FactorizedGrads._fields, got, want):
        assert (g is None) == (name not in needs)
        if g is not None:
            np.testing.assert_array_equal(g, w)


def test_gradients_agree_with_finite_differences(backend):
    x, V, U, b, da = arrays(SMALL, "float64")
    grads = ops.factorized_matmul_backward(da, x, V, U, backend=backend)
    args = {"x": x, "V": V, "U": U, "b": b}
    for name, value in args.items():
        direction = np.random.default_rng(0).standard_normal(value.shape)
        ahead = ops.factorized_matmul(**{**args, name: value + 1e-5 * direction}, backend=backend)
        behind = ops.factorized_matmul(**{**args, name: value - 1e-5 * direction}, backend=backend)
        grad = getattr(grads, name)
        assert abs(np.vdot(da, ahead - behind) / 2e-5 - np.vdot(grad, direction)) < 1e-6 * np.linalg.norm(grad), name


@pytest.mark.parametrize("axis", ["B", "D", "k", "H"])
def test_zero_sizes(backend, axis):
    x, V, U, b, da = arrays({**SMALL, axis: 0}, "float32")
    np.testing.assert_allclose(ops.factorized_matmul(x, V, U, b, backend=backend), x @ V.T @ U.T + b, rtol=1e-4, atol=1e-4)
    grads = ops.factorized_matmul_backward(da, x, V, U, backend=backend)
    assert [grad.shape for grad in grads] == [x.shape, V.shape, U.shape, b.shape]
    np.testing.assert_allclose(grads.b, da.sum(0), rtol=1e-4, atol=1e-4)
    if axis != "H":
        np.testing.assert_allclose(grads.x, da @ U @ V, rtol=1e-3, atol=1e-3)


def test_out_is_written_and_returned(backend, dtype):
    x, V, U, b, da = arrays(SMALL, dtype)
    out = np.full(da.shape, np.nan, dtype)
    assert ops.factorized_matmul(x, V, U, b, out=out, backend=backend) is out
    np.testing.assert_array_equal(out, ops.factorized_matmul(x, V, U, b, backend=backend))


def test_strided_inputs_give_the_same_bits(backend, dtype):
    x, V, U, b, da = arrays(SMALL, dtype)
    f = [np.asfortranarray(array) for array in (x, V, U)]
    np.testing.assert_array_equal(ops.factorized_matmul(*f, b, backend=backend), ops.factorized_matmul(x, V, U, b, backend=backend))
    want = ops.factorized_matmul_backward(da, x, V, U, backend=backend)
    for g, w in zip(ops.factorized_matmul_backward(np.asfortranarray(da), *f, backend=backend), want):
        np.testing.assert_array_equal(g, w)
