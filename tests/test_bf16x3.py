"""Backends "cpu-bf16x3", float32 products as six products of bfloat16, and "cpu-bf16", as one, on tiles or a model of them."""

import ml_dtypes
import numpy as np
import pytest
import reference_bounds as bounds
from cases import checked, exact_shallow, masks, shallow, sizes
from fused_steps import check_steps
from hypothesis import given
from hypothesis import strategies as st
from instruction_sets import INSTRUCTION_SETS, TILES, use_backend
from roundings import assert_within_roundings
from toy import Logits, trained

import pymimic
from pymimic import SGD, AdamW, ShallowWeights, ops
from pymimic.ops import LinearGrads, ShallowGrads

NAME, BF16 = "cpu-bf16x3", ml_dtypes.bfloat16
ACTIVATIONS = st.sampled_from(["relu", "identity", "tanh", "sigmoid", "gelu"])


@pytest.fixture(params=TILES)
def tiles(request):
    """The backend, on each instruction set with tiles."""
    with use_backend(request.param):
        yield NAME


@pytest.fixture(params=INSTRUCTION_SETS)
def no_tiles(request):
    with use_backend(request.param):
        yield NAME


@given(size=sizes(smallest=0), mask=masks(ps=(0.0, 0.0, 0.5, 0.75)), activation=st.sampled_from(["relu", "identity"]))
def test_exact_arithmetic_gives_the_reference_to_the_bit(tiles, size, mask, activation):
    args = exact_shallow(size, np.float32, scale=int(checked(mask).scale))
    how = {"activation": activation, **mask}
    np.testing.assert_array_equal(
        ops.shallow_forward(*args.forward, backend=tiles, **how), ops.shallow_forward(*args.wide.forward, backend="reference", **how)
    )
    grads = ops.shallow_backward(*args.backward, backend=tiles, **how)
    for name, have, want in zip(ShallowGrads._fields, grads, ops.shallow_backward(*args.wide.backward, backend="reference", **how)):
        assert have.dtype == np.float32
        np.testing.assert_array_equal(have, want, err_msg=name)


@given(size=sizes(), mask=masks(), activation=ACTIVATIONS, seed=st.integers(0, 2**32))
def test_errors_are_those_of_float32(tiles, size, mask, activation, seed):
    """The bound of the other float32 backends, over absolute values; with relu where gates cannot flip."""
    args, how = shallow(size, np.float32, seed), checked(mask)
    if activation == "relu":
        args = exact_shallow(size, np.float32, scale=1, seed=seed)._replace(dy=args.dy, W=args.W, c=args.c)
    wide, keywords = args.wide, {"activation": activation, **mask}
    y = ops.shallow_forward(*args.forward, backend=tiles, **keywords)
    want = ops.shallow_forward(*wide.forward, backend="reference", **keywords)
    bounds.assert_within(y, want, bounds.shallow_forward(*wide.forward, activation, how), "y")
    grads = ops.shallow_backward(*args.backward, backend=tiles, **keywords)
    wanted = ops.shallow_backward(*wide.backward, backend="reference", **keywords)
    bounds.assert_all_within(grads, wanted, bounds.shallow_backward(*wide.backward, activation, how), activation)


@given(size=sizes(axes="BkH", smallest=0), mask=masks(), activation=ACTIVATIONS, seed=st.integers(0, 2**32))
def test_the_layer_and_its_gradients(tiles, size, mask, activation, seed):
    size = {**size, "C": 1}
    args = exact_shallow(size, np.float32, 1, seed) if activation == "relu" else shallow(size, np.float32, seed)
    x, weight, bias, how = args.z, args.U, args.b, {"activation": activation, **mask}
    dout = (np.random.default_rng(seed).integers(-4, 5, (size["B"], size["H"])) / 8).astype(np.float32)
    out = ops.linear_dropout(x, weight, bias, backend=tiles, **how)
    x64, weight64, bias64, dout64, out64 = (array.astype(np.float64) for array in (x, weight, bias, dout, out))
    want = ops.linear_dropout(x64, weight64, bias64, backend="reference", **how)
    bounds.assert_within(out, want, bounds.linear_dropout(x64, weight64, bias64, activation, checked(mask)), "out")
    grads = ops.linear_dropout_backward(dout, x, weight, out, bias=bias, backend=tiles, **how)
    wanted = ops.linear_dropout_backward(dout64, x64, weight64, out64, bias=bias64, backend="reference", **how)
    bound = bounds.linear_dropout_backward(dout64, x64, weight64, bias64, out64, activation, checked(mask))
    bounds.assert_all_within(grads, wanted, bound, activation)


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(600, 1100, 33), (3, 2000, 700), (1, 1, 1), (257, 513, 300)])
def test_products_of_several_runs_and_tasks(tiles, rows, inputs, outputs):
    rng = np.random.default_rng(0)
    x, weight, dout = (rng.standard_normal(shape).astype(np.float32) for shape in ((rows, inputs), (outputs, inputs), (rows, outputs)))
    how = {"activation": "identity", "backend": tiles}
    out = ops.linear_dropout(x, weight, np.zeros(outputs, np.float32), **how)
    np.testing.assert_allclose(out, x.astype(float) @ weight.T, atol=1e-5 * np.sqrt(inputs))
    grads = ops.linear_dropout_backward(dout, x, weight, out, **how)
    assert isinstance(grads, LinearGrads)
    np.testing.assert_allclose(grads.x, dout.astype(float) @ weight, atol=1e-5 * np.sqrt(outputs))
    np.testing.assert_allclose(grads.weight, dout.T.astype(float) @ x, atol=1e-5 * np.sqrt(rows))


@pytest.mark.parametrize("make", [lambda: SGD(0.1, momentum=0.9, weight_decay=0.01), lambda: AdamW(0.01, weight_decay=0.1)])
@given(size=sizes(), mask=masks())
def test_a_step_is_the_gradients_and_the_update(tiles, make, size, mask):
    check_steps(make, shallow(size, np.float32), mask, "float32", tiles)


# slabs of 96 to 512 units: fewer than there are parts, as many, and more; several blocks of rows
@pytest.mark.parametrize(
    "size",
    [
        {"B": 300, "k": 40, "H": 2000, "C": 33},
        pytest.param({"B": 500, "k": 250, "H": 500, "C": 10}, marks=pytest.mark.slow),
        pytest.param({"B": 70, "k": 600, "H": 800, "C": 600}, marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_same_bits_for_any_number_of_threads(tiles, threads, size, dtype):
    args, results = shallow(size, np.float32), []
    for count in (1, 2, 3, 5):
        threads(count)
        weights = ShallowWeights(*args.forward[1:], dtype, backend=tiles)
        y, grads = weights.forward(args.z), weights.backward(args.dy, args.z, dropout=0.5, seed=1)
        x, weight = args.z, args.U
        layer = ops.linear_dropout(x, weight, args.b, backend=tiles)
        dz = weights.step(args.dy, args.z, AdamW(1e-3))
        results.append((y, *grads, layer, dz, *weights.arrays().values()))
    for result in results[1:]:
        for have, want in zip(result, results[0]):
            np.testing.assert_array_equal(have, want)


def test_nan_stays_in_its_row_and_infinity_becomes_nan(tiles):
    args = shallow({"B": 40, "k": 33, "H": 70, "C": 5}, np.float32)
    for value in (np.nan, np.inf):
        z = args.z.copy()
        z[3, 2] = value
        y = ops.shallow_forward(z, *args.forward[1:], activation="identity", backend=tiles)
        assert np.isnan(y[3]).all()
        assert np.isfinite(np.delete(y, 3, axis=0)).all()


@given(size=sizes(), mask=masks(), activation=ACTIVATIONS, seed=st.integers(0, 2**32))
def test_h_kept_gives_the_bits_of_h_made_again(tiles, size, mask, activation, seed):
    args, how = shallow(size, np.float32, seed), {"activation": activation, "backend": tiles, **mask}
    plan = pymimic.plan(size["B"], size["k"], size["k"], size["H"], size["C"])
    y, saved = ops.shallow_forward(*args.forward, save=True, plan=plan, **how)
    np.testing.assert_array_equal(y, ops.shallow_forward(*args.forward, **how))
    assert saved.nbytes == plan.saved_bytes
    for have, want in zip(ops.shallow_backward(*args.backward, saved=saved, **how), ops.shallow_backward(*args.backward, **how)):
        np.testing.assert_array_equal(have, want)


@given(size=sizes(), mask=masks(), activation=ACTIVATIONS, seed=st.integers(0, 2**32))
def test_h_kept_in_bfloat16_puts_its_rounding_into_the_gradients(tiles, size, mask, activation, seed):
    args = exact_shallow(size, np.float32, 1, seed) if activation == "relu" else shallow(size, np.float32, seed)
    how = {"activation": activation, **mask}
    plan = pymimic.plan(size["B"], size["k"], size["k"], size["H"], size["C"], h="keep-bf16")
    saved = ops.shallow_forward(*args.forward, save=True, plan=plan, backend=tiles, **how)[1]
    got = ops.shallow_backward(*args.backward, saved=saved, backend=tiles, **how)
    want = ops.shallow_backward(*args.wide.backward, backend="reference", **how)
    for name, g, w, bound in zip(ShallowGrads._fields, got, want, bounds.shallow_backward(*args.wide.backward, activation, checked(mask))):
        assert (np.abs(g - w) <= (2**-8 + 1e-5) * bound).all(), name


def test_a_step_with_h_kept_is_the_step(tiles):
    args = shallow({"B": 70, "k": 33, "H": 203, "C": 7}, np.float32)
    results = []
    for save in (False, True):
        weights, optimizer = ShallowWeights(*args.forward[1:], activation="tanh", backend=tiles), AdamW(0.01)
        assert weights.keeps(70)
        result = weights.forward(args.z, save=save, dropout=0.5, seed=3)
        saved = result[1] if save else None
        results.append((weights.step(args.dy, args.z, optimizer, saved=saved, dropout=0.5, seed=3), *weights.arrays().values()))
    for have, want in zip(*results):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("activation", ["relu", "gelu", "sigmoid"])
def test_long_sums_leave_nothing_beyond_the_last_unit(tiles, activation):
    """k in several runs, a block of units that is not full: what stood in scratch memory was not finite."""
    args = shallow({"B": 40, "k": 700, "H": 33, "C": 5}, np.float32)
    junk = shallow({"B": 1100, "k": 700, "H": 300, "C": 40}, np.float32)
    ops.shallow_backward(*(np.full_like(array, np.nan) for array in junk.backward), activation=activation, backend=tiles)
    grads = ops.shallow_backward(*args.backward, activation=activation, backend=tiles)
    want = ops.shallow_backward(*args.wide.backward, activation=activation, backend="reference")
    for have, exact in zip(grads, want):
        assert_within_roundings(have, exact, 64)  # of sums of at most 700 terms


def test_float64_is_float64(tiles):
    args = shallow({"B": 40, "k": 33, "H": 70, "C": 5}, np.float64)
    np.testing.assert_array_equal(ops.shallow_forward(*args.forward, backend=tiles), ops.shallow_forward(*args.forward, backend="cpu"))


@given(size=sizes(), mask=masks())
def test_without_tiles_it_is_the_cpu_backend(no_tiles, size, mask):
    args = shallow(size, np.float32)
    y, saved = ops.shallow_forward(*args.forward, save=True, backend=no_tiles, **mask)
    want, kept = ops.shallow_forward(*args.forward, save=True, backend="cpu", **mask)
    np.testing.assert_array_equal(y, want)
    have = ops.shallow_backward(*args.backward, saved=saved, backend=no_tiles, **mask)
    for grad, other in zip(have, ops.shallow_backward(*args.backward, saved=kept, backend="cpu", **mask)):
        np.testing.assert_array_equal(grad, other)


@given(size=sizes(), mask=masks(), activation=ACTIVATIONS)
def test_cpu_bf16_rounds_what_it_is_given(tiles, size, mask, activation):
    """The bits of the bfloat16 ops on arrays that were rounded before; a layer is off by rounding of its operands alone."""
    args, how = shallow(size, np.float32), {"activation": activation, **mask}
    z, U, W, dy = (getattr(args, name).astype(BF16) for name in ("z", "U", "W", "dy"))
    y = ops.shallow_forward(*args.forward, backend="cpu-bf16", **how)
    np.testing.assert_array_equal(y, ops.shallow_forward(z, U, args.b, W, args.c, **how))
    grads = ops.shallow_backward(*args.backward, backend="cpu-bf16", needs=("z", "U", "b", "W"), **how)
    for have, want in zip(grads[:4], ops.shallow_backward(dy, z, U, args.b, W, needs=("z", "U", "b", "W"), **how)):
        np.testing.assert_array_equal(have, want)
    out = ops.linear_dropout(args.z, args.U, args.b, activation="identity", backend="cpu-bf16")
    want = z.astype(np.float64) @ U.astype(np.float64).T + args.b
    most = (np.abs(z.astype(np.float64)) @ np.abs(U.astype(np.float64)).T).max()  # products of two bfloat16 are exact; sums are not
    assert_within_roundings(out, want, 32, least=most)


def test_cpu_bf16_makes_h_again():
    args = shallow({"B": 4, "k": 3, "H": 5, "C": 2}, np.float32)
    with pytest.raises(ValueError, match=r"^save: expected False with backend 'cpu-bf16'"):
        ops.shallow_forward(*args.forward, save=True, backend="cpu-bf16")
    assert not ShallowWeights(*args.forward[1:], backend="cpu-bf16").keeps(4)


def test_a_few_rows_are_the_cpu_backend_s(tiles):
    args = shallow({"B": 8, "k": 33, "H": 70, "C": 5}, np.float32)
    np.testing.assert_array_equal(ops.shallow_forward(*args.forward, backend=tiles), ops.shallow_forward(*args.forward, backend="cpu"))


def test_the_core_says_so_where_there_are_no_tiles():
    from pymimic import _core

    before = _core.isa()
    _core.set_isa("baseline")
    try:
        x, out = np.zeros((2, 3), np.float32), np.zeros((2, 4), np.float32)
        for terms, message in ((3, "an instruction set with tiles for 3"), (1, "an instruction set with tiles, or 0"), (2, "1 or 3")):
            with pytest.raises(ValueError, match=f"^terms: expected {message}$"):
                _core.linear(x, np.zeros((4, 3), np.float32), None, 0, (256, 0, 0, 0, 0), terms, out)
    finally:
        _core.set_isa(before)


def test_training_goes_on_to_the_same_place(tiles):
    nets, losses = {}, {}
    for backend in ("cpu", tiles):
        nets[backend], history = trained(Logits(rows=512), optimizer=AdamW(3e-3), epochs=30, backend=backend, progress=False)
        losses[backend] = history[-1].train_loss
    # what float32 itself leaves open over 480 steps; one product of bfloat16 instead of six moves the loss by 3e-4 and more
    assert losses[tiles] == pytest.approx(losses["cpu"], rel=1e-5)
    assert not np.array_equal(nets[tiles].arrays()["U"], nets["cpu"].arrays()["U"])


def test_a_trainer_takes_it_unless_told_otherwise():
    student = pymimic.Student(3, 5, 2)
    for dtype in ("float32", "bfloat16"):
        assert pymimic.Trainer(student, SGD(0.1), epochs=1, dtype=dtype).backend == NAME
        assert pymimic.Trainer(student, SGD(0.1), epochs=1, dtype=dtype, backend="reference").backend == "reference"
    assert pymimic.Trainer(student, SGD(0.1), epochs=1, keep="bfloat16").backend == NAME
