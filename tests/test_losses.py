"""The losses and their gradients."""

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pymimic import ops

RTOL = {"float32": 1e-5, "float64": 1e-12}
DTYPES = st.sampled_from(["float32", "float64"])
SHAPES = st.tuples(st.integers(1, 40), st.sampled_from([1, 2, 3, 10, 61, 183, 1000]))


def draw(shape, dtype, seed=0, scale=3.0):
    """y, t (B, C), weights (B,) with a zero among them, and labels (B,)."""
    rng = np.random.default_rng(seed)
    y, t = (rng.standard_normal(shape).astype(dtype) * np.dtype(dtype).type(scale) for _ in range(2))
    weights = rng.random(shape[0]).astype(dtype)
    weights[0] = 0
    return y, t, weights, rng.integers(0, shape[1], shape[0])


def softmax(y):
    e = np.exp(y - y.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def assert_loss(got, want, dy_want, dtype, rounding=0.0):
    """A loss of positive terms is relative to itself; its gradient to the largest of its row's terms, about 1 / B."""
    loss, dy = got
    assert isinstance(loss, float)
    assert dy.dtype == dtype
    assert loss == pytest.approx(want, rel=RTOL[dtype], abs=RTOL[dtype] + rounding)
    np.testing.assert_allclose(dy, dy_want, rtol=RTOL[dtype], atol=10 * RTOL[dtype] / len(dy))


@given(shape=SHAPES, dtype=DTYPES, weighted=st.booleans(), seed=st.integers(0, 2**32))
def test_mimic_loss_is_half_the_mean_squared_distance(backend, shape, dtype, weighted, seed):
    y, t, weights, _ = draw(shape, dtype, seed)
    y64, t64 = y.astype(np.float64), t.astype(np.float64)
    w = weights.astype(np.float64) if weighted else np.ones(len(y))
    want = sum(w[i] * np.sum((y64[i] - t64[i]) ** 2) for i in range(len(y))) / (2 * len(y))
    got = ops.mimic_loss(y, t, weights if weighted else None, backend=backend)
    assert_loss(got, want, w[:, None] * (y64 - t64) / len(y), dtype)


@given(shape=SHAPES, dtype=DTYPES, weighted=st.booleans(), seed=st.integers(0, 2**32))
def test_cross_entropy_is_the_mean_over_rows(backend, shape, dtype, weighted, seed):
    y, _, weights, labels = draw(shape, dtype, seed)
    p = softmax(y.astype(np.float64))
    w = weights.astype(np.float64) if weighted else np.ones(len(y))
    want = -sum(w[i] * np.log(p[i, labels[i]]) for i in range(len(y))) / len(y)
    got = ops.cross_entropy(y, labels, weights if weighted else None, backend=backend)
    assert_loss(got, want, w[:, None] * (p - np.eye(shape[1])[labels]) / len(y), dtype)


TEMPERATURES = st.sampled_from([0.5, 1.0, 3.0, 20.0])


@given(shape=SHAPES, dtype=DTYPES, temperature=TEMPERATURES, weighted=st.booleans(), seed=st.integers(0, 2**32))
def test_distillation_loss_is_the_scaled_divergence(backend, shape, dtype, temperature, weighted, seed):
    y, t, weights, _ = draw(shape, dtype, seed)
    w = (weights if weighted else np.ones(len(y)))[:, None].astype(np.float64)
    q, p = softmax(y.astype(np.float64) / temperature), softmax(t.astype(np.float64) / temperature)
    want = temperature**2 * np.sum(w * p * (np.log(p) - np.log(q))) / len(y)
    got = ops.distillation_loss(y, t, temperature, weights if weighted else None, backend=backend)
    rounding = temperature**2 * RTOL[dtype]  # terms of either sign: nearly equal logarithms, times T^2
    assert_loss(got, want, w * temperature * (q - p) / len(y), dtype, rounding)


@given(
    shape=SHAPES, dtype=DTYPES, temperature=TEMPERATURES, weighted=st.booleans(), alpha=st.sampled_from([0, 0.25, np.float32(0.9), 1.0]),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_alpha_mixes_the_teachers_logits_and_labels(backend, shape, dtype, temperature, weighted, alpha, seed):
    y, t, weights, labels = draw(shape, dtype, seed)
    w = weights if weighted else None
    soft, soft_dy = ops.distillation_loss(y, t, temperature, w, backend=backend)
    hard, hard_dy = ops.cross_entropy(y, labels, w, backend=backend)
    loss, dy = ops.distillation_loss(y, t, temperature, w, labels, alpha, backend=backend)
    alpha = float(alpha)
    assert loss == pytest.approx(alpha * soft + (1 - alpha) * hard, rel=1e-12)
    assert dy.dtype == dtype
    np.testing.assert_allclose(dy, alpha * soft_dy + (1 - alpha) * hard_dy, rtol=RTOL[dtype], atol=RTOL[dtype] / len(y))


@given(
    shape=st.tuples(st.integers(1, 20), st.sampled_from([2, 3, 10, 61])), dtype=DTYPES, temperature=TEMPERATURES, weighted=st.booleans(),
    seed=st.integers(0, 2**32),
)  # fmt: skip
def test_a_teacher_may_rule_classes_out(backend, shape, dtype, temperature, weighted, seed):
    """As if those columns had a probability of 0: 0 log 0 = 0, whatever the student says there."""
    y, t, weights, _ = draw(shape, dtype, seed)
    w = (weights if weighted else np.ones(len(y), dtype))[:, None].astype(np.float64)
    out = np.random.default_rng(seed).random(shape) < 0.5
    out[:, 0] = False
    t[out] = -np.inf
    q, p = softmax(y.astype(np.float64) / temperature), softmax(t.astype(np.float64) / temperature)
    want = temperature**2 * np.sum(w * np.where(out, 0, p * (np.log(np.where(out, 1, p)) - np.log(q)))) / len(y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        got = ops.distillation_loss(y, t, temperature, weights if weighted else None, backend=backend)
        assert_loss(got, want, w * temperature * (q - p) / len(y), dtype, temperature**2 * RTOL[dtype])
        y[out] = -np.inf  # the student may rule them out too
        loss, dy = ops.distillation_loss(y, t, temperature, backend=backend)
    assert np.isfinite(loss)
    assert np.isfinite(dy).all()
    assert not dy[out].any()


@pytest.mark.parametrize("bad", [-np.inf, np.inf, np.nan])
def test_loss_and_gradient_are_not_at_odds(backend, dtype, bad):
    """A row without any class that is possible, or with infinity or NaN, makes both NaN."""
    y, t, weights, labels = draw((4, 3), dtype)
    t[1] = bad
    with np.errstate(invalid="ignore"):
        for more in ((), (weights,), (weights, labels, 0.5)):
            loss, dy = ops.distillation_loss(y, t, 2.0, *more, backend=backend)
            assert np.isnan(loss)
            assert np.isnan(dy[1]).all()
            assert np.isfinite(dy[[0, 2, 3]]).all()


def test_a_class_that_the_student_alone_rules_out_costs_infinity(backend):
    y, t, _, _ = draw((4, 3), "float32")
    y[1, 2] = -np.inf
    assert ops.distillation_loss(y, t, 2.0, backend=backend)[0] == np.inf


def test_squared_errors_to_minus_infinity_are_an_error_that_says_what_to_do(backend):
    y, t, weights, _ = draw((4, 3), "float32")
    t[1, 2] = -np.inf
    with pytest.raises(ValueError, match="t: expected logits that squared errors can be taken of, got -inf; distillation_loss takes it"):
        ops.mimic_loss(y, t, weights, backend=backend)


def test_alpha_needs_labels(backend):
    y, t, _, _ = draw((4, 3), "float32")
    with pytest.raises(ValueError, match=r"labels: expected \(B,\) integers, as alpha = 0.5 leaves them a share, got None"):
        ops.distillation_loss(y, t, 2.0, alpha=0.5, backend=backend)
    for alpha in (-0.1, 1.1, np.nan):
        with pytest.raises(ValueError, match=r"alpha: expected a number in \[0, 1\], got"):
            ops.distillation_loss(y, t, 2.0, labels=np.zeros(4, int), alpha=alpha, backend=backend)


@pytest.mark.parametrize("loss", ["mimic", "cross entropy", "distillation", "both"])
@pytest.mark.parametrize("weighted", [False, True])
def test_gradients_agree_with_finite_differences(backend, loss, weighted):
    y, t, weights, labels = draw((7, 5), "float64")
    w = weights if weighted else None
    call = {
        "mimic": lambda y: ops.mimic_loss(y, t, w, backend=backend),
        "cross entropy": lambda y: ops.cross_entropy(y, labels, w, backend=backend),
        "distillation": lambda y: ops.distillation_loss(y, t, 2.5, w, backend=backend),
        "both": lambda y: ops.distillation_loss(y, t, 2.5, w, labels, 0.3, backend=backend),
    }[loss]
    direction = np.random.default_rng(1).standard_normal(y.shape)
    slope = (call(y + 1e-5 * direction)[0] - call(y - 1e-5 * direction)[0]) / 2e-5
    assert slope == pytest.approx(np.vdot(call(y)[1], direction), rel=1e-7)


@pytest.mark.parametrize("classes", [0, 1, 5])
def test_an_empty_batch_has_loss_zero(backend, dtype, classes):
    y = np.empty((0, classes), dtype)
    none, labels = np.empty(0, dtype), np.empty(0, np.int64)
    for loss, dy in (
        ops.mimic_loss(y, y, backend=backend),
        ops.mimic_loss(y, y, none, backend=backend),
        ops.cross_entropy(y, labels, backend=backend),
        ops.cross_entropy(y, labels, none, backend=backend),
        ops.distillation_loss(y, y, 2.0, backend=backend),
        ops.distillation_loss(y, y, 2.0, none, labels, 0.5, backend=backend),
    ):
        assert loss == 0
        assert dy.shape == y.shape
        assert dy.dtype == dtype


def test_huge_logits_do_not_overflow(backend, dtype):
    y = np.array([[1e30, -1e30, 0], [-1e4, -1e4, -1e4]], dtype)
    loss, dy = ops.cross_entropy(y, np.array([0, 2]), backend=backend)
    assert loss == pytest.approx(np.log(3) / 2, rel=1e-6)
    np.testing.assert_allclose(dy, [[0, 0, 0], [1 / 6, 1 / 6, -1 / 3]], atol=1e-6)
    loss, dy = ops.distillation_loss(y, y, 1.0, backend=backend)
    assert loss == 0
    assert not dy.any()


@pytest.mark.parametrize("kind", ["int8", "uint8", "int32", "uint64"])
def test_labels_of_any_integer_type(backend, kind):
    y, _, _, labels = draw((6, 4), "float32")
    want = ops.cross_entropy(y, labels, backend=backend)
    got = ops.cross_entropy(y, labels.astype(kind), backend=backend)
    assert got[0] == want[0]
    np.testing.assert_array_equal(got[1], want[1])


def test_high_temperature_is_regression_on_centred_logits(backend):
    """Hinton, Vinyals & Dean 2015, equation 4: at high temperature dL/dy = (y - t, each centred) / (B C)."""
    y, t, _, _ = draw((6, 10), "float64", scale=0.03)  # T is 3000 times that
    y, t = y - y.mean(1, keepdims=True), t - t.mean(1, keepdims=True)
    loss, dy = ops.distillation_loss(y, t, 100.0, backend=backend)
    limit, limit_dy = ops.mimic_loss(y, t, backend=backend)
    assert loss == pytest.approx(limit / 10, rel=1e-3)
    np.testing.assert_allclose(dy, limit_dy / 10, atol=1e-6)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_highest_temperature_leaves_a_loss_in_float32(backend, classes):
    """To a few per cent, at most 15, where the student is within 0.1 of its teacher."""
    y, t, _, _ = draw((64, classes), "float64")
    y = t + 0.1 * y / 3
    y, t = y.astype(np.float32), t.astype(np.float32)
    loss, dy = ops.distillation_loss(y, t, 100, backend=backend)
    want, want_dy = ops.distillation_loss(y.astype(np.float64), t.astype(np.float64), 100, backend=backend)
    assert loss == pytest.approx(want, rel=0.15)
    assert np.linalg.norm(dy - want_dy) < 1e-3 * np.linalg.norm(want_dy)


def test_inputs_are_not_written_to(backend):
    y, t, weights, labels = draw((6, 4), "float32")
    for array in (y, t, weights, labels):
        array.flags.writeable = False
    ops.mimic_loss(y, t, weights, backend=backend)
    ops.cross_entropy(y, labels, weights, backend=backend)
    ops.distillation_loss(y, t, 2.0, weights, labels, 0.5, backend=backend)


def test_losses_and_gradients_are_torchs(backend, torch):
    y, t, _, labels = draw((9, 7), "float64")
    log_softmax, kl = torch.nn.functional.log_softmax, torch.nn.functional.kl_div
    pairs = [
        (ops.mimic_loss(y, t, backend=backend), lambda v: torch.nn.functional.mse_loss(v, torch.tensor(t), reduction="sum") / 18),
        (ops.cross_entropy(y, labels, backend=backend), lambda v: torch.nn.functional.cross_entropy(v, torch.tensor(labels))),
        (
            ops.distillation_loss(y, t, 4.0, backend=backend),
            lambda v: 16 * kl(log_softmax(v / 4, 1), log_softmax(torch.tensor(t) / 4, 1), reduction="batchmean", log_target=True),
        ),
    ]
    for (loss, dy), theirs in pairs:
        v = torch.tensor(y, requires_grad=True)
        value = theirs(v)
        value.backward()
        assert loss == pytest.approx(value.item(), rel=1e-12)
        np.testing.assert_allclose(dy, v.grad.numpy(), rtol=1e-10, atol=1e-14)
