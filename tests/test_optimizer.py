"""SGD, AdamW and their schedules; ShallowWeights.step against the backward pass followed by an update."""

import math
import re

import numpy as np
import pytest
from cases import exact_shallow, shallow
from roundings import assert_within_roundings

import pymimic
from pymimic import SGD, AdamW, ShallowWeights, ops
from pymimic.backends import get

OPTIMIZERS = {
    "sgd": lambda: SGD(0.1),
    "decay": lambda: SGD(0.1, weight_decay=0.01),
    "momentum": lambda: SGD(0.05, momentum=0.9, weight_decay=0.01),
    "nesterov": lambda: SGD(0.05, momentum=0.8, nesterov=True, weight_decay=0.02),
    "schedule": lambda: SGD(pymimic.cosine(0.1, 4), momentum=0.9),
    "adamw": lambda: AdamW(1e-2, epsilon=1e-3, weight_decay=0.1),
    "adamw beta": lambda: AdamW(pymimic.warm_up(pymimic.constant(1e-2), 3), beta1=0.8, beta2=0.99, epsilon=1e-3),
}
SIZES = [{"B": 37, "k": 11, "H": 203, "C": 7}, {"B": 40, "k": 64, "H": 700, "C": 10}]
RTOL = {"float32": 1e-5, "float64": 1e-12}


@pytest.fixture(params=list(OPTIMIZERS))
def make_optimizer(request):
    return OPTIMIZERS[request.param]


def batches(size, dtype, steps):
    """(step, dy, z), dy being a mean over rows, as losses make it."""
    for step in range(steps):
        args = shallow(size, dtype, seed=step)
        yield step, args.dy / np.dtype(dtype).type(size["B"]), args.z


@pytest.mark.parametrize(("size", "dtype"), [(SIZES[0], "float32"), (SIZES[0], "float64"), (SIZES[1], "float32")], ids=str)
@pytest.mark.parametrize(("p", "save"), [(0.0, False), (0.5, False), (0.5, True)], ids=["recompute", "dropout", "saved"])
def test_a_fused_step_is_backward_then_update(backend, make_optimizer, size, p, save, dtype):
    if backend == "numba" and dtype == "float64":
        pytest.skip("takes ten seconds to compile: the next test has it")
    check_fused_steps(backend, make_optimizer, size, p, save, dtype)


@pytest.mark.slow
@pytest.mark.parametrize(("p", "save"), [(0.0, False), (0.5, False), (0.5, True)], ids=["recompute", "dropout", "saved"])
def test_a_fused_step_of_float64_by_numba(make_optimizer, p, save):
    check_fused_steps("numba", make_optimizer, SIZES[0], p, save, "float64")


def check_fused_steps(backend, make_optimizer, size, p, save, dtype):
    """Step by step, each from the weights and slots that the fused path has by then, in float64."""
    start = shallow(size, dtype, seed=9)
    optimizer = make_optimizer()
    weights = ShallowWeights(*start.forward[1:], dtype=dtype, activation="tanh", backend=backend)
    assert weights.backend == backend
    for step, dy, z in batches(size, dtype, 2):
        how = {"dropout": p, "seed": 3, "offset": step}
        params = {name: array.astype(np.float64) for name, array in weights.arrays().items()}
        plain = make_optimizer()
        plain.load_state({name: array.astype(np.float64) if array.ndim else array for name, array in optimizer.state().items()})
        saved = weights.forward(z, save=True, **how)[1] if save else None
        dz = weights.step(dy, z, optimizer, saved=saved, **how)

        dy64, z64 = dy.astype(np.float64), z.astype(np.float64)
        grads = ops.shallow_backward(dy64, z64, params["U"], params["b"], params["W"], activation="tanh", backend="reference", **how)
        plain.advance()
        for name, param in params.items():
            get("reference").optimizer_update(param, getattr(grads, name), plain.slots_for(name, param), plain.rule(param))
        assert optimizer.steps == plain.steps == step + 1
        assert_close(dz, grads.z, dtype, "dz")
        for name, array in weights.arrays().items():
            assert_close(array, params[name], dtype, name)
            for got, want in zip(optimizer.slots[name], plain.slots[name]):
                assert_close(got, want, dtype, f"slot of {name}")


@pytest.mark.parametrize("shape", [(1,), (7, 5), (1000, 33), (0, 4)], ids=str)
def test_the_unfused_update_is_the_references(backend, make_optimizer, shape, dtype):
    rng = np.random.default_rng(0)
    param, grad = rng.standard_normal(shape).astype(dtype), rng.standard_normal(shape).astype(dtype)
    optimizer = make_optimizer()
    optimizer.advance()
    slots = tuple(rng.random(shape).astype(dtype) for _ in optimizer.slot_names)
    want = (param.astype(np.float64), *(slot.astype(np.float64) for slot in slots))
    get("reference").optimizer_update(want[0], grad.astype(np.float64), want[1:], optimizer.rule(param))
    get(backend).optimizer_update(param, grad, slots, optimizer.rule(param))
    for g, w in zip((param, *slots), want):
        assert_close(g, w, dtype, "parameter or slot")


def assert_close(got, want, dtype, what):
    """Within rounding of values of order 1, whose sums cancel."""
    assert got.dtype == dtype
    assert got.flags.c_contiguous
    np.testing.assert_allclose(got, want, rtol=RTOL[dtype], atol=RTOL[dtype] * np.abs(want).max(initial=0.2), err_msg=what)


def test_one_exact_step_has_the_references_bits(backend):
    """SGD at rate 1/2 on exact gradients: the step leaves no room for rounding, so every element must have been updated once."""
    size = {"B": 33, "k": 9, "H": 611, "C": 5}
    args = exact_shallow(size, "float32", scale=2)
    how = {"dropout": 0.5, "seed": 4, "offset": 1, "origin": (16, 32)}
    weights = ShallowWeights(*args.forward[1:], backend=backend)
    dz = weights.step(args.dy, args.z, SGD(0.5, momentum=0.5), **how)
    grads = ops.shallow_backward(*args.wide.backward, backend="reference", **how)
    np.testing.assert_array_equal(dz, grads.z)
    for name, array in weights.arrays().items():
        np.testing.assert_array_equal(array, getattr(args, name) - getattr(grads, name) / 2, err_msg=name)


@pytest.mark.parametrize("save", [False, True])
def test_step_returns_dz_of_the_weights_as_they_were(backend, save):
    args = shallow(SIZES[1], "float32")
    weights = ShallowWeights(*args.forward[1:], backend=backend)
    before = weights.backward(args.dy, args.z).z
    saved = weights.forward(args.z, save=True)[1] if save else None
    dz = weights.step(args.dy, args.z, SGD(100.0), saved=saved)
    assert_within_roundings(dz, before, 8)  # the same sums of 700 terms, if perhaps in another order
    assert not np.array_equal(weights.arrays()["U"], args.U)


def test_a_step_without_dz_updates_alike(backend, make_optimizer):
    args = shallow(SIZES[0], "float32")
    pair = [(ShallowWeights(*args.forward[1:], backend=backend), make_optimizer()) for _ in range(2)]
    for step in range(2):
        how = {"dropout": 0.5, "offset": step}
        (weights, optimizer), (others, other) = pair
        assert weights.step(args.dy, args.z, optimizer, **how) is not None
        assert others.step(args.dy, args.z, other, need_dz=False, **how) is None
    for name, array in weights.arrays().items():
        np.testing.assert_array_equal(others.arrays()[name], array)
    for name, array in optimizer.state().items():
        np.testing.assert_array_equal(other.state()[name], array)


def test_the_handle_is_the_ops_on_copies(backend, dtype, activation):
    args = shallow(SIZES[0], dtype)
    weights = ShallowWeights(*args.forward[1:], dtype=dtype, activation=activation, backend=backend)
    how = {"dropout": 0.5, "seed": 1, "offset": 2, "origin": (16, 32)}
    y, saved = weights.forward(args.z, save=True, **how)
    np.testing.assert_array_equal(y, ops.shallow_forward(*args.forward, activation=activation, backend=backend, **how))
    np.testing.assert_array_equal(y, weights.forward(args.z, **how))
    want = ops.shallow_backward(*args.backward, activation=activation, backend=backend, **how)
    for g, w in zip(weights.backward(args.dy, args.z, **how), want):
        np.testing.assert_array_equal(g, w)
    assert weights.backward(args.dy, args.z, saved=saved, needs=("W",), **how).z is None
    arrays = weights.arrays()
    for name, array in arrays.items():
        np.testing.assert_array_equal(array, getattr(args, name))
        array[...] = 0
    np.testing.assert_array_equal(y, weights.forward(args.z, **how))  # arrays() gave copies


def test_step_on_an_empty_batch_only_decays(backend):
    args = shallow({**SIZES[0], "B": 0}, "float32")
    weights = ShallowWeights(*args.forward[1:], backend=backend)
    assert weights.step(args.dy, args.z, SGD(0.5, weight_decay=0.5)).shape == args.z.shape
    after = weights.arrays()
    for name, factor in (("U", 0.75), ("b", 1), ("W", 0.75), ("c", 1)):
        np.testing.assert_allclose(after[name], np.float32(factor) * getattr(args, name), rtol=1e-6)


def test_optimizers_are_torchs(torch, fresh_backend):
    """Over six steps of the fused path; weight decay is left to the matrices there too."""
    size = SIZES[0]
    groups = lambda params, decay: [{"params": params[::2], "weight_decay": decay}, {"params": params[1::2], "weight_decay": 0.0}]  # noqa: E731
    pairs = [
        (SGD(0.1, momentum=0.9, weight_decay=0.01), lambda p: torch.optim.SGD(groups(p, 0.01), lr=0.1, momentum=0.9)),
        (
            SGD(0.1, momentum=0.9, nesterov=True, weight_decay=0.01),
            lambda p: torch.optim.SGD(groups(p, 0.01), lr=0.1, momentum=0.9, nesterov=True),
        ),
        (SGD(0.1), lambda p: torch.optim.SGD(p, lr=0.1)),
        (AdamW(0.01, beta2=0.999, weight_decay=0.1), lambda p: torch.optim.AdamW(groups(p, 0.1), lr=0.01)),
        (
            AdamW(0.01, beta1=0.7, beta2=0.9, epsilon=1e-3),
            lambda p: torch.optim.AdamW(groups(p, 0.0), lr=0.01, betas=(0.7, 0.9), eps=1e-3),
        ),
    ]
    for optimizer, make in pairs:
        start = shallow(size, "float64", seed=9)
        weights = ShallowWeights(*start.forward[1:], dtype="float64", activation="tanh", backend=fresh_backend)
        theirs = [torch.tensor(array.copy(), requires_grad=True) for array in start.forward[1:]]
        U, b, W, c = theirs
        their_optimizer = make(theirs)
        for _, dy, z in batches(size, "float64", 6):
            weights.step(dy, z, optimizer)
            their_optimizer.zero_grad()
            y = torch.tanh(torch.tensor(z) @ U.T + b) @ W + c
            y.backward(torch.tensor(dy))
            their_optimizer.step()
        for (name, array), want in zip(weights.arrays().items(), theirs):
            np.testing.assert_allclose(array, want.detach().numpy(), rtol=1e-9, atol=1e-12, err_msg=f"{type(optimizer).__name__} {name}")


def test_state_round_trip_continues_bit_for_bit(backend, make_optimizer):
    start = shallow(SIZES[0], "float32", seed=9)
    whole, part = make_optimizer(), make_optimizer()
    straight = ShallowWeights(*start.forward[1:], backend=backend)
    first = ShallowWeights(*start.forward[1:], backend=backend)
    for step, dy, z in batches(SIZES[0], "float32", 5):
        straight.step(dy, z, whole)
        if step < 2:
            first.step(dy, z, part)
    resumed = make_optimizer()
    resumed.load_state({name: array.copy() for name, array in part.state().items()})
    second = ShallowWeights(**first.arrays(), backend=backend)
    for step, dy, z in batches(SIZES[0], "float32", 5):
        if step >= 2:
            second.step(dy, z, resumed)
    for name, array in straight.arrays().items():
        np.testing.assert_array_equal(second.arrays()[name], array)
    assert whole.state().keys() == resumed.state().keys()
    for name, array in whole.state().items():
        np.testing.assert_array_equal(resumed.state()[name], array)


def test_state_names_its_slots_after_the_arrays():
    for optimizer, slots in ((SGD(0.1), []), (SGD(0.1, momentum=0.9), ["momentum"]), (AdamW(), ["mean", "square"])):
        optimizer.advance()
        optimizer.update("V", np.ones((2, 3), "float32"), np.ones((2, 3), "float32"))
        state = optimizer.state()
        assert sorted(state) == sorted(["steps", *(f"V.{slot}" for slot in slots)])
        assert state["steps"] == 1
        assert all(array.shape == (2, 3) and array.dtype == np.float32 for name, array in state.items() if name != "steps")


def test_adamw_by_hand():
    """Loshchilov & Hutter 2019, algorithm 2, on one weight, in Python's floats."""
    optimizer, w = AdamW(0.1, beta1=0.8, beta2=0.9, epsilon=1e-3, weight_decay=0.5), np.array([[2.0]])
    x, m, v = 2.0, 0.0, 0.0
    for t, g in enumerate((1.0, -3.0, 0.5), 1):
        optimizer.advance()
        optimizer.update("w", w, np.array([[g]]))
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        x = x - 0.1 * 0.5 * x - 0.1 * (m / (1 - 0.8**t)) / (math.sqrt(v / (1 - 0.9**t)) + 1e-3)
        assert w[0, 0] == pytest.approx(x, rel=1e-13)


def test_weight_decay_skips_vectors():
    for optimizer in (SGD(0.1, weight_decay=0.5), AdamW(0.1, weight_decay=0.5)):
        optimizer.advance()
        for shape, changes in (((3,), False), ((3, 1), True)):
            param = np.ones(shape)
            optimizer.update(f"p{shape}", param, np.zeros(shape))
            assert np.array_equal(param, np.ones(shape)) != changes


def test_schedules():
    rates = lambda schedule, steps=range(6): [schedule(step) for step in steps]  # noqa: E731
    assert rates(pymimic.constant(0.5)) == [0.5] * 6
    assert rates(pymimic.cosine(1.0, 4)) == pytest.approx([1, 0.5 + 2**-1.5, 0.5, 0.5 - 2**-1.5, 0, 0])
    assert rates(pymimic.cosine(1.0, 2, final=0.2)) == pytest.approx([1, 0.6, 0.2, 0.2, 0.2, 0.2])
    assert rates(pymimic.step_decay(1.0, 2, 0.5)) == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert rates(pymimic.warm_up(pymimic.constant(1.0), 4)) == [0.25, 0.5, 0.75, 1, 1, 1]
    assert rates(pymimic.warm_up(pymimic.constant(1.0), 0)) == [1] * 6


def test_a_schedule_sees_the_steps_completed_before():
    seen = []
    optimizer = SGD(lambda step: seen.append(step) or 0.1)
    for _ in range(3):
        optimizer.advance()
        optimizer.update("w", np.zeros(2), np.zeros(2))
    assert seen == [0, 1, 2]


def test_sgd_moves_against_the_gradient_by_the_rate(dtype):
    param, grad = np.array([1, 2], dtype), np.array([0.5, -1], dtype)
    optimizer = SGD(0.25)
    optimizer.advance()
    optimizer.update("w", param, grad)
    assert param.tolist() == [0.875, 2.25]


def test_keeps_follows_the_memory_budget():
    args = shallow(SIZES[0], "float32")
    weights = ShallowWeights(*args.forward[1:], memory_budget=64 * 203 * 4)
    assert weights.keeps(64)
    assert not weights.keeps(65)
    narrow = ShallowWeights(*args.forward[1:], memory_budget=64 * 203 * 4, keep="bfloat16")
    assert narrow.keeps(128)
    assert not narrow.keeps(129)
    assert weights.nbytes == sum(array.nbytes for array in args.forward[1:])


def test_a_loaded_state_is_a_copy(make_optimizer):
    optimizer, w = make_optimizer(), np.ones((2, 3))
    state = {"steps": np.array(3)} | {f"w.{slot}": np.ones((2, 3)) for slot in optimizer.slot_names}
    optimizer.load_state(state)
    optimizer.advance()
    optimizer.update("w", w, np.full((2, 3), 2.0))
    assert state["steps"] == 3
    assert all((array == 1).all() for name, array in state.items() if name != "steps")


def test_an_optimizer_is_of_one_handle():
    args = shallow(SIZES[0], "float32")
    optimizer = AdamW()
    first, second = (ShallowWeights(*args.forward[1:]) for _ in range(2))
    first.step(args.dy, args.z, optimizer)
    first.step(args.dy, args.z, optimizer)
    with pytest.raises(
        ValueError, match="optimizer: expected one without steps for weights that it has not trained yet, got one with 2 steps"
    ):
        second.step(args.dy, args.z, optimizer)
    np.testing.assert_array_equal(second.arrays()["U"], args.U)
    assert optimizer.steps == 2
    optimizer.load_state(optimizer.state())  # the caller's word: these go on
    second.step(args.dy, args.z, optimizer)
    assert optimizer.steps == 3
    optimizer.reset()
    first.step(args.dy, args.z, optimizer)
    assert optimizer.steps == 1


STEPS = {"steps": np.array(1)}
BOTH = {"U.mean": np.zeros(2), "U.square": np.zeros(2)}


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ([1], "expected a mapping of arrays by name, as state() gives it, got list"),
        ({1: np.zeros(2)}, "expected a mapping of arrays by name"),
        ({}, "expected what state() of AdamW gives, got nothing by the name of 'steps'"),
        (BOTH, "got nothing by the name of 'steps'"),
        ({**STEPS, "U.mean": np.zeros(2)}, "got nothing by the name of 'U.square'"),
        ({**STEPS, "U.momentum": np.zeros(2)}, "got nothing by the name of 'U.mean'"),
        ({**STEPS, **BOTH, "U.momentum": np.zeros(2)}, "got it by the name of 'U.momentum'"),
        ({"steps": np.array(-1)}, "expected a count in 'steps', got int64 of shape (): -1"),
        ({"steps": np.array(1.5)}, "expected a count in 'steps', got float64 of shape (): 1.5"),
        ({"steps": np.zeros(2, np.int64)}, "expected a count in 'steps', got int64 of shape (2,)"),
    ],
)
def test_a_state_of_another_kind_is_refused(state, message):
    optimizer = AdamW()
    optimizer.update("U", np.ones(2), np.ones(2))
    before = optimizer.state()
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        optimizer.load_state(state)
    assert optimizer.state().keys() == before.keys()
    assert optimizer.steps == before["steps"]


def test_an_update_by_no_name_is_refused():
    with pytest.raises(TypeError, match="name: expected a str, got dict"):
        AdamW().update({}, np.ones(2), np.ones(2))


@pytest.mark.parametrize("rate", [math.nan, -1.0, math.inf, None, "1", True])
def test_a_schedule_that_gives_no_rate_changes_nothing(rate):
    args = shallow(SIZES[0], "float32")
    weights, optimizer = ShallowWeights(*args.forward[1:]), AdamW(lambda step: rate)
    with pytest.raises((TypeError, ValueError), match=r"learning_rate: expected a number.*, got .*, from the schedule at step 0"):
        weights.step(args.dy, args.z, optimizer)
    assert optimizer.steps == 0
    np.testing.assert_array_equal(weights.arrays()["U"], args.U)


def test_descriptions_of_optimizers():
    assert repr(SGD(0.1, momentum=0.5)) == "SGD(learning_rate=constant(learning_rate=0.1), weight_decay=0.0, momentum=0.5, nesterov=False)"
    assert AdamW(pymimic.cosine(np.float32(0.5), np.int64(9))).configuration() == {
        "optimizer": "AdamW", "slots": ["mean", "square"], "learning_rate": "cosine(learning_rate=0.5, steps=9, final=0.0)",
        "weight_decay": 0.0, "beta1": 0.9, "beta2": 0.99, "epsilon": 1e-8,
    }  # fmt: skip


def test_a_handle_says_what_its_dtype_is_that_of():
    args = shallow({"B": 4, "k": 3, "H": 5, "C": 2}, "float64")
    weights = ShallowWeights(*args.forward[1:], backend="cpu")
    for call in (lambda: weights.forward(args.z), lambda: weights.step(args.dy.astype("float32"), args.z, SGD(0.1))):
        with pytest.raises(TypeError, match=r"^z: expected dtype float32 as U has, got float64"):
            call()
