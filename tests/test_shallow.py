"""shallow_forward and shallow_backward against the reference in float64, to the bit where arithmetic is exact."""

import itertools

import numpy as np
import pytest
import reference_bounds as bounds
from cases import checked, exact_shallow, masks, shallow, sizes
from hypothesis import given
from hypothesis import strategies as st

import pymimic
from pymimic import ops
from pymimic.ops import ShallowGrads

NAMES = ShallowGrads._fields
NO_DROPOUT = {"dropout": 0.0, "seed": 0, "offset": 0, "origin": (0, 0)}
DROPOUT = {"dropout": 0.3, "seed": 2**63 + 11, "offset": 7, "origin": (48, 96)}
SMALL = {"B": 37, "k": 11, "H": 203, "C": 7}


def forward(backend, args, activation, mask, **more):
    return ops.shallow_forward(*args.forward, activation=activation, backend=backend, **mask, **more)


def backward(backend, args, activation, mask, **more):
    return ops.shallow_backward(*args.backward, activation=activation, backend=backend, **mask, **more)


def assert_same(got, want):
    """Equal values, None beside None."""
    for name, g, w in zip(NAMES, got, want):
        assert (g is None) == (w is None), name
        if w is not None:
            np.testing.assert_array_equal(g, w, err_msg=f"d{name}")


@given(
    size=sizes(smallest=0),
    mask=masks(ps=(0.0, 0.0, 0.5, 0.75)),
    activation=st.sampled_from(["relu", "identity"]),
    dtype=st.sampled_from(["float32", "float32", "float64"]),
    save=st.booleans(),
    needs=st.sets(st.sampled_from(NAMES)) | st.just(set(NAMES)),
    seed=st.integers(0, 2**32),
)
def test_exact_arithmetic_gives_the_reference_to_the_bit(backend, size, mask, activation, dtype, save, needs, seed):
    args = exact_shallow(size, dtype, scale=int(checked(mask).scale), seed=seed)
    y = forward(backend, args, activation, mask, save=save)
    y, saved = y if save else (y, None)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, forward("reference", args.wide, activation, mask))
    grads = backward(backend, args, activation, mask, saved=saved, needs=needs)
    assert_same(grads, backward("reference", args.wide, activation, mask, needs=needs))
    assert all(grad is None or grad.dtype == dtype for grad in grads)


@given(
    size=sizes(),
    mask=masks(),
    activation=st.sampled_from(["tanh", "sigmoid", "gelu", "identity"]),
    dtype=st.sampled_from(["float32", "float64"]),
    save=st.booleans(),
    seed=st.integers(0, 2**32),
)
def test_errors_stay_within_the_expression_over_absolute_values(backend, size, mask, activation, dtype, save, seed):
    check_within_bounds(backend, shallow(size, dtype, seed), activation, mask, save)


@given(size=sizes(), mask=masks(), save=st.booleans(), dtype=st.sampled_from(["float32", "float64"]), seed=st.integers(0, 2**32))
def test_relu_errors_stay_within_the_bound_where_gates_cannot_flip(backend, size, mask, save, dtype, seed):
    inexact, exact = shallow(size, dtype, seed), exact_shallow(size, dtype, scale=1, seed=seed)
    check_within_bounds(backend, exact._replace(dy=inexact.dy, W=inexact.W, c=inexact.c), "relu", mask, save)


def check_within_bounds(backend, args, activation, mask, save):
    wide, how = args.wide, checked(mask)
    y, saved = forward(backend, args, activation, mask, save=True) if save else (forward(backend, args, activation, mask), None)
    bounds.assert_within(y, forward("reference", wide, activation, mask), bounds.shallow_forward(*wide.forward, activation, how), "y")
    grads = backward(backend, args, activation, mask, saved=saved)
    bounds.assert_all_within(
        grads, backward("reference", wide, activation, mask), bounds.shallow_backward(*wide.backward, activation, how), activation
    )


@pytest.mark.parametrize(
    "size",
    [
        {"B": 3, "k": 67, "H": 20_000, "C": 5},
        {"B": 5, "k": 1300, "H": 333, "C": 10},
        {"B": 70, "k": 17, "H": 131, "C": 1000},
        {"B": 1030, "k": 64, "H": 129, "C": 10},
        {"B": 129, "k": 250, "H": 530, "C": 183},
        {"B": 1, "k": 250, "H": 1100, "C": 183},
    ],
    ids=str,
)
@pytest.mark.parametrize("activation", ["relu", pytest.param("gelu", marks=pytest.mark.slow)])
def test_shapes_that_fill_several_slabs_and_row_blocks(backend, size, activation, dtype):
    if activation == "relu":
        args = exact_shallow(size, dtype, scale=2)
        mask = {**DROPOUT, "dropout": 0.5}
        np.testing.assert_array_equal(forward(backend, args, "relu", mask), forward("reference", args.wide, "relu", mask))
        assert_same(backward(backend, args, "relu", mask), backward("reference", args.wide, "relu", mask))
    else:
        check_within_bounds(backend, shallow(size, dtype), activation, DROPOUT, save=False)


@pytest.mark.parametrize("mask", [NO_DROPOUT, DROPOUT], ids=["no dropout", "dropout"])
def test_gradients_agree_with_finite_differences(backend, activation, mask):
    args = shallow(SMALL, "float64", seed=3)
    if activation == "relu":  # z and U are multiples of 1/8 and b is an odd one of 1/128: |a| >= 1/128
        exact = exact_shallow(SMALL, "float64", scale=1)
        args = args._replace(z=exact.z, U=exact.U, b=np.round(exact.b * 64) / 64 + 1 / 128)
    grads = backward(backend, args, activation, mask)
    rng = np.random.default_rng(0)
    for name in NAMES:
        direction = rng.standard_normal(getattr(args, name).shape)
        step = 1e-5 * direction

        def loss(sign, name=name, step=step):
            moved = args._replace(**{name: getattr(args, name) + sign * step})
            return np.vdot(args.dy, forward(backend, moved, activation, mask))

        slope = np.vdot(getattr(grads, name), direction)
        spread = np.linalg.norm(getattr(grads, name))  # of such a product over directions
        assert abs((loss(1) - loss(-1)) / 2e-5 - slope) < 1e-6 * spread, name


def test_relu_has_slope_zero_at_zero(backend, dtype):
    ones, zeros = np.ones((1, 1), dtype), np.zeros((1, 1), dtype)
    grads = ops.shallow_backward(ones, ones, zeros, zeros[0], ones, activation="relu", backend=backend)
    assert all(not getattr(grads, name).any() for name in ("z", "U", "b", "W"))


@pytest.mark.parametrize(
    "needs", [set(n) for r in range(6) for n in itertools.combinations(NAMES, r)], ids=lambda names: "".join(sorted(names))
)
@pytest.mark.parametrize("save", [False, True], ids=["recompute", "saved"])
def test_every_subset_of_needs(backend, needs, save):
    mask = {**DROPOUT, "dropout": 0.5}
    args = exact_shallow(SMALL, "float32", scale=2)
    saved = forward(backend, args, "relu", mask, save=True)[1] if save else None
    got = backward(backend, args, "relu", mask, saved=saved, needs=needs)
    assert_same(got, backward("reference", args.wide, "relu", mask, needs=needs))


@pytest.mark.parametrize("axis", ["B", "k", "H", "C"])
def test_zero_sizes(backend, activation, dtype, axis):
    args = shallow({**SMALL, axis: 0}, dtype)
    check_within_bounds(backend, args, activation, DROPOUT, save=False)
    check_within_bounds(backend, args, activation, DROPOUT, save=True)


def test_nan_propagates_to_its_own_row_alone(backend, activation, dtype):
    args = shallow(SMALL, dtype)
    z = args.z.copy()
    z[5, 3] = np.nan
    y = forward(backend, args._replace(z=z), activation, NO_DROPOUT)
    assert np.isnan(y[5]).all()
    assert not np.isnan(np.delete(y, 5, axis=0)).any()
    U = args.U.copy()
    U[200, 1] = np.nan
    assert np.isnan(forward(backend, args._replace(U=U), activation, NO_DROPOUT)).all()
    dy = args.dy.copy()
    dy[4, 2] = np.nan
    grads = backward(backend, args._replace(dy=dy), activation, NO_DROPOUT)
    assert np.isnan(grads.z[4]).any()
    assert not np.isnan(np.delete(grads.z, 4, axis=0)).any()
    assert np.isnan(grads.c).tolist() == [i == 2 for i in range(SMALL["C"])]


def test_saturated_activations_stay_finite(backend, activation, dtype):
    """Pre-activations of +-800, where exp over- or underflows, and of +-1e30."""
    for size in (800.0, 1e30):
        z, U = np.array([[size], [-size]], dtype), np.ones((1, 1), dtype)
        one, zero = np.ones((1, 1), dtype), np.zeros(1, dtype)
        limits = {"relu": [size, 0], "identity": [size, -size], "tanh": [1, -1], "sigmoid": [1, 0], "gelu": [size, 0]}[activation]
        y = ops.shallow_forward(z, U, zero, one, zero, activation=activation, backend=backend)
        np.testing.assert_array_equal(y[:, 0], np.array(limits, dtype))
        dz = ops.shallow_backward(np.ones((2, 1), dtype), z, U, zero, one, activation=activation, backend=backend).z
        slopes = {"relu": [1, 0], "identity": [1, 1], "tanh": [0, 0], "sigmoid": [0, 0], "gelu": [1, 0]}[activation]
        np.testing.assert_array_equal(dz[:, 0], np.array(slopes, dtype))


def test_out_is_written_and_returned(backend, dtype):
    args = shallow(SMALL, dtype)
    out = np.full((SMALL["B"], SMALL["C"]), np.nan, dtype)
    y = forward(backend, args, "relu", DROPOUT, out=out)
    assert y is out
    np.testing.assert_array_equal(out, forward(backend, args, "relu", DROPOUT))
    y, _ = forward(backend, args, "relu", DROPOUT, out=out, save=True)
    assert y is out


def test_memory_of_what_was_saved_is_taken_again(backend, dtype):
    first, second = shallow(SMALL, dtype), shallow(SMALL, dtype, seed=1)
    _, saved = forward(backend, first, "tanh", DROPOUT, save=True)
    y, again = forward(backend, second, "tanh", DROPOUT, save=saved)
    assert again.array is saved.array
    fresh_y, fresh = forward(backend, second, "tanh", DROPOUT, save=True)
    np.testing.assert_array_equal(y, fresh_y)
    assert_same(backward(backend, second, "tanh", DROPOUT, saved=again), backward(backend, second, "tanh", DROPOUT, saved=fresh))
    larger = shallow({**SMALL, "B": SMALL["B"] + 40}, dtype)
    _, other = forward(backend, larger, "tanh", DROPOUT, save=again)
    assert other.array is not again.array
    want = backward(backend, larger, "tanh", DROPOUT, saved=forward(backend, larger, "tanh", DROPOUT, save=True)[1])
    assert_same(backward(backend, larger, "tanh", DROPOUT, saved=other), want)


@pytest.mark.parametrize("B", [SMALL["B"], 0])
def test_gradients_are_written_to_out_and_returned(backend, dtype, B):
    args = shallow({**SMALL, "B": B}, dtype)
    want = backward(backend, args, "relu", DROPOUT)
    out = ops.ShallowGrads(*(np.full_like(grad, np.nan) for grad in want))
    got = backward(backend, args, "relu", DROPOUT, out=out)
    assert all(have is given for have, given in zip(got, out, strict=True))
    assert_same(got, want)
    some = ops.ShallowGrads(U=np.full_like(want.U, np.nan), c=np.full_like(want.c, np.nan))
    got = backward(backend, args, "relu", DROPOUT, needs=("U", "W", "c"), out=some)
    assert got.z is got.b is None
    assert got.U is some.U
    assert got.c is some.c
    assert_same([got.U, got.W, got.c], [want.U, want.W, want.c])


def test_gradients_of_a_handle_are_written_to_out(backend):
    args = shallow(SMALL, "float32")
    wide = pymimic.ShallowWeights(*args.forward[1:], backend=backend)
    want = wide.backward(args.dy, args.z, **DROPOUT)
    out = ops.ShallowGrads(*(np.full_like(grad, np.nan) for grad in want))
    assert all(have is given for have, given in zip(wide.backward(args.dy, args.z, out=out, **DROPOUT), out, strict=True))
    assert_same(out, want)
    with pytest.raises(ValueError, match=r"^out\.W: "):
        wide.backward(args.dy, args.z, out=ops.ShallowGrads(W=wide.arrays(copy=False)["W"]))


def test_strided_and_fortran_inputs_give_the_same_bits(backend, dtype):
    args = shallow(SMALL, dtype)
    y, grads = forward(backend, args, "tanh", DROPOUT), backward(backend, args, "tanh", DROPOUT)
    for relayout in (_strided, np.asfortranarray, _reversed):
        moved = type(args)(*(relayout(array) for array in args))
        np.testing.assert_array_equal(forward(backend, moved, "tanh", DROPOUT), y)
        assert_same(backward(backend, moved, "tanh", DROPOUT), grads)


def _strided(array):
    big = np.full(tuple(2 * n for n in array.shape), np.nan, array.dtype)
    view = big[tuple(slice(1, None, 2) for _ in array.shape)]
    view[...] = array
    return view


def _reversed(array):
    return np.ascontiguousarray(array[::-1])[::-1]


def test_results_are_new_contiguous_writable_arrays(backend, dtype):
    args = shallow(SMALL, dtype)
    y, saved = forward(backend, args, "gelu", DROPOUT, save=True)
    for result in (y, *backward(backend, args, "gelu", DROPOUT, saved=saved)):
        assert result.flags.c_contiguous
        assert result.flags.writeable
        assert not any(np.shares_memory(result, array) for array in args)


def test_saved_says_what_it_holds(backend, dtype):
    args = shallow(SMALL, dtype)
    _, saved = forward(backend, args, "relu", DROPOUT, save=True)
    assert saved.nbytes >= SMALL["B"] * SMALL["H"] * np.dtype(dtype).itemsize
    assert (saved.backend, saved.activation, saved.mask) == (backend, "relu", checked(DROPOUT))


def test_a_plan_passed_in_gives_the_result_of_the_default_one(backend, dtype):
    args = exact_shallow(SMALL, dtype, scale=1)
    for budget in (0, 1 << 30):
        plan = pymimic.plan(SMALL["B"], 5, SMALL["k"], SMALL["H"], SMALL["C"], dtype, memory_budget=budget)
        y = forward(backend, args, "relu", NO_DROPOUT, plan=plan)
        np.testing.assert_array_equal(y, forward(backend, args, "relu", NO_DROPOUT))
        assert_same(backward(backend, args, "relu", NO_DROPOUT, plan=plan), backward(backend, args, "relu", NO_DROPOUT))


@pytest.mark.parametrize("activation", ["relu", "identity"])
@pytest.mark.parametrize("size", [SMALL, {"B": 300, "k": 64, "H": 1100, "C": 10}, {**SMALL, "B": 0}, {**SMALL, "H": 0}], ids=str)
def test_h_kept_in_bfloat16_is_exact_where_its_8_bits_suffice(backend, size, activation):
    rng = np.random.default_rng(0)
    mask = {**DROPOUT, "dropout": 0.5}
    args = exact_shallow(size, "float32", scale=2)
    z, U = (rng.integers(-1, 2, array.shape).astype("float32") for array in (args.z, args.U))
    args = args._replace(z=z, U=U, b=rng.integers(-1, 2, size["H"]).astype("float32"))  # |a| is a whole number, at most k + 1
    plan = pymimic.plan(size["B"], 5, size["k"], size["H"], size["C"], h="keep-bf16")
    y, saved = forward(backend, args, activation, mask, save=True, plan=plan)
    np.testing.assert_array_equal(y, forward("reference", args.wide, activation, mask))
    assert saved.nbytes <= plan.saved_bytes
    assert_same(backward(backend, args, activation, mask, saved=saved), backward("reference", args.wide, activation, mask))


@pytest.mark.parametrize("size", [SMALL, {"B": 300, "k": 64, "H": 1100, "C": 10}], ids=str)
def test_h_kept_in_bfloat16_puts_its_rounding_into_the_gradients(backend, size, activation):
    args = exact_shallow(size, "float32", scale=1) if activation == "relu" else shallow(size, "float32")
    plan = pymimic.plan(size["B"], 5, size["k"], size["H"], size["C"], h="keep-bf16")
    saved = forward(backend, args, activation, DROPOUT, save=True, plan=plan)[1]
    got = backward(backend, args, activation, DROPOUT, saved=saved)
    want = backward("reference", args.wide, activation, DROPOUT)
    limits = bounds.shallow_backward(*args.wide.backward, activation, checked(DROPOUT))
    for name, g, w, bound in zip(NAMES, got, want, limits):
        assert (np.abs(g - w) <= (2**-8 + 1e-5) * bound).all(), name
    np.testing.assert_array_equal(got.c, backward(backend, args, activation, DROPOUT).c)


def test_dropout_shards_add_up_to_the_whole(backend):
    """Units split over two devices, rows over two batches: `origin` makes each block's part of one mask."""
    mask = {**DROPOUT, "dropout": 0.5}
    args = exact_shallow({"B": 50, "k": 9, "H": 160, "C": 6}, "float32", scale=2)
    whole, grads = forward(backend, args, "relu", mask), backward(backend, args, "relu", mask)
    y, dz, dW = np.zeros_like(whole), np.zeros_like(grads.z), np.zeros_like(grads.W)
    row0, unit0 = mask["origin"]
    for rows, units in itertools.product((slice(0, 32), slice(32, 50)), (slice(0, 96), slice(96, 160))):
        part = args._replace(dy=args.dy[rows], z=args.z[rows], U=args.U[units], b=args.b[units], W=args.W[units], c=np.zeros_like(args.c))
        at = {**mask, "origin": (row0 + rows.start, unit0 + units.start)}
        y[rows] += forward(backend, part, "relu", at)
        part_grads = backward(backend, part, "relu", at)
        dz[rows] += part_grads.z
        dW[units] += part_grads.W
    np.testing.assert_array_equal(y + args.c, whole)
    np.testing.assert_array_equal(dz, grads.z)
    np.testing.assert_array_equal(dW, grads.W)


@pytest.mark.slow
def test_weights_of_more_than_two_to_the_31_elements(fresh_backend):
    """Zero pages take no memory until written: only the last unit's weights are there."""
    H, k = 2**21 + 37, 1031
    assert H * k > 2**31
    z = np.ones((2, k), "float32")
    U, b, W, c = np.zeros((H, k), "float32"), np.zeros(H, "float32"), np.zeros((H, 1), "float32"), np.zeros(1, "float32")
    U[-1, -1], b[-1], W[-1, 0] = 0.5, 0.25, 2
    np.testing.assert_array_equal(ops.shallow_forward(z, U, b, W, c, backend=fresh_backend), [[1.5], [1.5]])
    needs = ("z", "b", "W") if fresh_backend == "cpu" else ("b", "W")  # numba's dz takes minutes here
    grads = ops.shallow_backward(np.ones((2, 1), "float32"), z, U, b, W, needs=needs, backend=fresh_backend)
    assert grads.z is None or grads.z[:, -1].tolist() == [1, 1]
    assert grads.b[-1] == 4
    assert grads.W[-1, 0] == 1.5


@pytest.mark.parametrize("activation", ["relu", "tanh", "sigmoid", "gelu"])
@pytest.mark.parametrize(("dtype", "h"), [("float32", "recompute"), ("float32", "keep"), ("bfloat16", "recompute")])
def test_infinite_weights_do_not_meet_rows_that_are_not_there(activation, dtype, h):
    """Rows are padded to 32 inside; 0 times infinity in a padding row must not reach a gradient."""
    rng = np.random.default_rng(0)
    dy, z, U, b, W = (rng.standard_normal(s).astype(np.float32) for s in ((33, 5), (33, 9), (37, 9), 37, (37, 5)))
    z[:, 3] = np.abs(z[:, 3]) + 1
    U[0, 3] = np.inf
    wide = pymimic.ShallowWeights(U, b, W, np.zeros(5, np.float32), dtype, activation=activation, backend="cpu")
    saved = wide.forward(z, save=True)[1] if h == "keep" else None
    got, want = (
        wide.backward(dy, z, saved=saved),
        pymimic.ShallowWeights(U, b, W, np.zeros(5, np.float32), dtype, activation=activation, backend="reference").backward(dy, z),
    )
    for name in ("U", "b", "W"):
        np.testing.assert_array_equal(np.isfinite(getattr(got, name)), np.isfinite(getattr(want, name)), err_msg=name)


@pytest.mark.parametrize("first", ["keep", "keep-bf16"])
def test_memory_of_another_type_is_not_used_again(backend, first):
    """h in float32 and in bfloat16 have one shape; what one call saved lends no memory to the other."""
    B, k, H, C = 32, 4, 40, 3
    args = shallow({"B": B, "k": k, "H": H, "C": C}, "float32")
    plans = {h: pymimic.plan(B, k, k, H, C, h=h) for h in ("keep", "keep-bf16")}
    second = plans[{"keep": "keep-bf16", "keep-bf16": "keep"}[first]]
    _, room = ops.shallow_forward(*args.forward, save=True, plan=plans[first], backend=backend)
    _, want = ops.shallow_forward(*args.forward, save=True, plan=second, backend=backend)
    _, got = ops.shallow_forward(*args.forward, save=room, plan=second, backend=backend)
    assert got.array.dtype == want.array.dtype
    for a, b in zip(
        ops.shallow_backward(*args.backward, saved=got, backend=backend), ops.shallow_backward(*args.backward, saved=want, backend=backend)
    ):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("H", [0, 1, 64])
def test_any_number_of_rows_that_take_no_memory_is_done_at_once(H):
    B = 1 << 40
    z, dy, U, b, W, c = (np.zeros(shape, np.float32) for shape in ((B, 0), (B, 0), (H, 0), H, (H, 0), 0))
    assert ops.shallow_forward(z, U, b, W, c).shape == (B, 0)
    assert [grad.shape for grad in ops.shallow_backward(dy, z, U, b, W)] == [(B, 0), (H, 0), (H,), (H, 0), (0,)]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(("B", "k", "H"), [(4, 3, 64), (100, 3, 64), (100, 0, 1), (70, 5, 3000)])
def test_without_outputs_every_gradient_is_zero(B, k, H, dtype):
    z, dy, U, b, W, c = (np.full(shape, 7, dtype) for shape in ((B, k), (B, 0), (H, k), H, (H, 0), 0))
    y, saved = ops.shallow_forward(z, U, b, W, c, activation="tanh", save=True)
    assert y.shape == (B, 0)
    for kept in (None, saved):
        out = ops.ShallowGrads(z + 1, U + 1, b + 1, W + 1, c + 1)
        grads = ops.shallow_backward(dy, z, U, b, W, activation="tanh", saved=kept, out=out)
        assert not any(grad.any() for grad in grads)
