"""Products of bfloat16 with sums in float32: what is rounded, and that nothing else is."""

import ml_dtypes
import numpy as np
import pytest
import reference_bounds as bounds
from cases import checked, exact_shallow, masks, shallow, sizes
from fused_steps import check_steps
from hypothesis import given
from hypothesis import strategies as st
from instruction_sets import INSTRUCTION_SETS, TILES, use_backend
from toy import Logits, trained

import pymimic
from pymimic import SGD, AdamW, BackendUnavailableError, ShallowWeights, Trainer, ops
from pymimic.backends import get
from pymimic.backends.interface import Shallow, ShallowGrads

BF16 = ml_dtypes.bfloat16
ALL = frozenset(ShallowGrads._fields)


@pytest.fixture(params=["reference", *INSTRUCTION_SETS, "cpu-avx512_bf16", *TILES])
def backend(request):
    with use_backend(request.param) as name:
        yield name


def narrow(args):
    """z and weights in bfloat16; dy, b and c in float32."""
    return args._replace(**{name: getattr(args, name).astype(BF16) for name in "zUW"})


def plan_of(size):
    return pymimic.plan(size["B"], size["k"], size["k"], size["H"], size["C"], "bfloat16")


def emulated(args, size, activation, mask):
    """y and gradients with float64 sums, rounded where the kernels round."""
    wide, plan = args.wide, plan_of(size)
    y, _ = get("reference").shallow_forward(Shallow(wide.z, wide.U, wide.b, wide.W, activation, mask, plan), wide.c, False, None, None)
    return y, get("reference").shallow_backward(
        wide.dy, Shallow(wide.z, wide.U, wide.b, wide.W, activation, mask, plan), None, ALL, ShallowGrads()
    )


@given(size=sizes(smallest=0), activation=st.sampled_from(["relu", "identity"]), mask=masks(ps=(0.0, 0.5)))
def test_sums_that_are_exact_are_met_exactly(backend, size, activation, mask):
    """Rounding is then the only thing that can happen, and it has to happen in the same places."""
    args = exact_shallow(size, np.float32, 2)
    y, grads = emulated(args, size, activation, checked(mask))
    got = ops.shallow_forward(*narrow(args).forward, activation=activation, backend=backend, **mask)
    assert got.dtype == np.float32
    np.testing.assert_array_equal(got, y)
    for name, want, have in zip(
        ShallowGrads._fields, grads, ops.shallow_backward(*narrow(args).backward, activation=activation, backend=backend, **mask)
    ):
        assert have.dtype == np.float32
        np.testing.assert_array_equal(have, want, err_msg=name)


@given(size=sizes(), activation=st.sampled_from(["gelu", "tanh", "sigmoid"]), mask=masks())
def test_other_sums_are_off_by_rounding(backend, size, activation, mask):
    """float32 sums and float64 ones may round to neighbours in bfloat16."""
    args = shallow(size, np.float32)
    y, grads = emulated(args, size, activation, checked(mask))
    got = ops.shallow_forward(*narrow(args).forward, activation=activation, backend=backend, **mask)
    backward = ops.shallow_backward(*narrow(args).backward, activation=activation, backend=backend, **mask)
    most = bounds.shallow_forward(*args.wide.forward, activation, checked(mask))
    mosts = bounds.shallow_backward(*args.wide.backward, activation, checked(mask))
    for name, want, have, bound in zip(("y", *ShallowGrads._fields), (y, *grads), (got, *backward), (most, *mosts)):
        assert np.linalg.norm(have - want) <= 2**-8 * np.linalg.norm(bound), name


@given(size=sizes(), mask=masks(), activation=st.sampled_from(["relu", "identity", "gelu"]))
def test_h_kept(backend, size, mask, activation):
    """relu's h is rounded either way; of the others the pre-activation is, and the derivative follows."""
    args = narrow(shallow(size, np.float32))
    plan = pymimic.plan(size["B"], size["k"], size["k"], size["H"], size["C"], "bfloat16", h="keep")
    how = {"activation": activation, "backend": backend, **mask}
    y, saved = ops.shallow_forward(*args.forward, save=True, plan=plan, **how)
    np.testing.assert_array_equal(y, ops.shallow_forward(*args.forward, **how))
    assert saved.nbytes <= plan.saved_bytes
    again = ops.shallow_backward(*args.backward, **how)
    most = bounds.shallow_backward(*shallow(size, np.float32).wide.backward, activation, checked(mask))
    for name, have, want, bound in zip(ShallowGrads._fields, ops.shallow_backward(*args.backward, saved=saved, **how), again, most):
        if activation == "relu":
            np.testing.assert_array_equal(have, want, err_msg=name)
        else:
            assert np.linalg.norm(have - want) <= 2**-6 * np.linalg.norm(bound), name


def test_a_plan_keeps_h_where_k_is_long():
    for k, h in ((512, "recompute"), (513, "keep")):
        assert pymimic.plan(64, k, k, 500, 3, "bfloat16").h == h
        args = shallow({"B": 1, "k": k, "H": 500, "C": 3}, np.float32)
        assert ShallowWeights(*args.forward[1:], "bfloat16").keeps(64) == (h == "keep")
        assert not ShallowWeights(*args.forward[1:], "bfloat16", memory_budget=63999).keeps(64)
    assert pymimic.plan(64, 513, 513, 500, 3, "bfloat16").saved_bytes == 64000


@given(size=sizes(), mask=masks(), needs=st.sets(st.sampled_from(ShallowGrads._fields)))
def test_needs_leave_the_others_as_they_are(backend, size, mask, needs):
    args = narrow(shallow(size, np.float32))
    whole = ops.shallow_backward(*args.backward, backend=backend, **mask)
    part = ops.shallow_backward(*args.backward, needs=needs, backend=backend, **mask)
    for name in ShallowGrads._fields:
        if name in needs:
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name))
        else:
            assert getattr(part, name) is None


@given(size=sizes(), activation=st.sampled_from(["relu", "gelu"]), mask=masks())
def test_the_handle_rounds_float32_as_the_ops_take_it_rounded(backend, size, activation, mask):
    args = shallow(size, np.float32)
    wide = ShallowWeights(*args.forward[1:], "bfloat16", activation=activation, backend=backend)
    y = wide.forward(args.z, **mask)
    np.testing.assert_array_equal(y, ops.shallow_forward(*narrow(args).forward, activation=activation, backend=backend, **mask))
    grads = wide.backward(args.dy, args.z, **mask)
    rounded = ops.shallow_backward(*narrow(args).backward, activation=activation, backend=backend, **mask)
    for have, want in zip(grads, rounded):
        np.testing.assert_array_equal(have, want)


@pytest.mark.parametrize("make", [lambda: SGD(0.1, momentum=0.9, weight_decay=0.01), lambda: AdamW(0.01, weight_decay=0.1)])
@given(size=sizes(), mask=masks())
def test_a_step_is_the_gradients_and_the_update(backend, make, size, mask):
    check_steps(make, shallow(size, np.float32), mask, "bfloat16", backend)


@pytest.mark.parametrize("size", [{"B": 300, "k": 40, "H": 2000, "C": 33}, {"B": 1100, "k": 250, "H": 700, "C": 10}])
def test_the_same_bits_for_any_number_of_threads(size):
    args, before = narrow(shallow(size, np.float32)), pymimic.get_num_threads()
    results = []
    try:
        for threads in (1, 2, 5):
            pymimic.set_num_threads(threads)
            results.append((ops.shallow_forward(*args.forward), *ops.shallow_backward(*args.backward, dropout=0.5, seed=1)))
    finally:
        pymimic.set_num_threads(before)
    for result in results[1:]:
        for have, want in zip(result, results[0]):
            np.testing.assert_array_equal(have, want)


def test_nan_propagates(backend):
    size = {"B": 40, "k": 33, "H": 70, "C": 5}
    args = narrow(shallow(size, np.float32))
    z = args.z.copy()
    z[3, 2] = np.nan
    y = ops.shallow_forward(z, *args.forward[1:], backend=backend)
    assert np.isnan(y[3]).all()
    assert np.isfinite(np.delete(y, 3, axis=0)).all()
    grads = ops.shallow_backward(args.dy, z, *args.backward[2:], activation="gelu", backend=backend)
    assert np.isnan(grads.z[3]).all()
    assert np.isnan(grads.U[:, 2]).all()


def test_memory_does_not_grow_with_H():
    plans = [pymimic.plan(1024, 250, 250, H, 183, "bfloat16") for H in (1000, 400_000)]
    assert plans[0].workspace_bytes == plans[1].workspace_bytes
    assert plans[1].h == "recompute"


def test_training_goes_on_to_the_same_place():
    """Half the bits in products make no visible difference to what is learnt."""
    losses = {}
    for dtype in ("float32", "bfloat16"):
        student, history = trained(Logits(rows=512), optimizer=AdamW(3e-3), epochs=30, dtype=dtype, progress=False)
        losses[dtype] = history[-1].train_loss
        assert losses[dtype] < 0.2 * history[0].train_loss
        assert student.weights()["U"].dtype == np.float32
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=2**-8)  # as one operand's rounding, though all of them are rounded
    assert losses["bfloat16"] != losses["float32"]


def test_bad_input():
    size = {"B": 4, "k": 3, "H": 5, "C": 2}
    args = shallow(size, np.float32)
    z, U, b, W, c = narrow(args).forward
    with pytest.raises(ValueError, match=r"^save: expected False with backend 'cpu-bf16'"):
        ops.shallow_forward(z, U, b, W, c, save=True, backend="cpu-bf16")
    with pytest.raises(TypeError, match=r"^U: expected dtype bfloat16 as z has, got float32"):
        ops.shallow_forward(z, args.U, b, W, c)
    with pytest.raises(TypeError, match=r"^b: expected dtype float32 or bfloat16 beside a bfloat16 z, got float64"):
        ops.shallow_forward(z, U, b.astype(float), W, c)
    with pytest.raises(TypeError, match=r"^out: expected dtype float32, got bfloat16"):
        ops.shallow_forward(z, U, b, W, c, out=np.zeros((4, 2), BF16))
    with pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64, got bfloat16"):
        ops.linear_dropout(z, U, b)
    with pytest.raises(ValueError, match=r"^h: expected 'keep-bf16' with dtype 'float32' only, got 'bfloat16'"):
        pymimic.plan(4, 3, 3, 5, 2, "bfloat16", h="keep-bf16")
    with pytest.raises(ValueError, match=r"^keep: expected 'bfloat16' with dtype 'float32' only"):
        ShallowWeights(args.U, args.b, args.W, args.c, "bfloat16", keep="bfloat16")
    with pytest.raises(ValueError, match=r"^save: expected False with backend 'cpu-bf16'"):
        ShallowWeights(args.U, args.b, args.W, args.c, "bfloat16", backend="cpu-bf16").forward(args.z, save=True)
    with pytest.raises(ValueError, match=r"^dtype: expected 'float32' or 'bfloat16', got 'float16'"):
        Trainer(pymimic.Student(3, 5, 2), SGD(0.1), epochs=1, dtype="float16")


def test_numba_says_that_it_cannot():
    args = narrow(shallow({"B": 4, "k": 3, "H": 5, "C": 2}, np.float32))
    with use_backend("numba"), pytest.raises(BackendUnavailableError, match="'numba' has no bfloat16"):
        ops.shallow_forward(*args.forward, backend="numba")
