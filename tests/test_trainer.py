"""The trainer against a training loop written out in NumPy."""

import math

import numpy as np
import pytest
from toy import NETS, C, D, H, Logits, N, close, order, same, trained

from pymimic import SGD, AdamW, ops
from pymimic.backends import default_host
from pymimic.backends.interface import Backend
from pymimic.nets.student import Student
from pymimic.training.loop import Run
from pymimic.training.trainer import Trainer


def by_hand(student, data, steps, *, momentum=0.9, rate=0.05, clip=None):
    """Those steps of SGD with momentum on the mimic loss, in float64; `steps` has the rows of each. Returns weights and losses."""
    w = {name: array.astype(np.float64) for name, array in student.arrays().items()}
    velocity = {name: np.zeros_like(array) for name, array in w.items()}
    losses = []
    for rows in steps:
        x, t = data.x[rows].astype(np.float64), data.t[rows].astype(np.float64)
        weights = np.ones(len(rows)) if data.weights is None else data.weights[rows].astype(np.float64)
        z = x @ w["V"].T if "V" in w else x
        a = z @ w["U"].T + w["b"]
        h = np.maximum(a, 0)
        residual = h @ w["W"] + w["c"] - t
        losses.append((weights * (residual**2).sum(1)).sum() / (2 * len(rows)))
        dy = residual * weights[:, None] / len(rows)
        da = dy @ w["W"].T * (a > 0)
        grads = {"U": da.T @ z, "b": da.sum(0), "W": h.T @ dy, "c": dy.sum(0)}
        if "V" in w:
            grads["V"] = (da @ w["U"]).T @ x
        if clip is not None:
            norm = math.sqrt(sum((g**2).sum() for g in grads.values()))
            grads = {name: g * min(1, clip / norm) for name, g in grads.items()}
        for name, g in grads.items():
            velocity[name] = momentum * velocity[name] + g
            w[name] -= rate * velocity[name]
    return w, losses


@pytest.mark.parametrize("rank", [None, 3])
@pytest.mark.parametrize("unfused", [False, True])
def test_three_epochs_equal_a_loop_written_out(backend, rank, unfused):
    data, student = Logits(), Student(D, H, C, rank=rank, seed=5)
    steps = [order(7, epoch)[start : start + 32] for epoch in range(3) for start in range(0, N, 32)]
    expected, losses = by_hand(student, data, steps)
    _, history = trained(data, student=student, backend=backend, clip_norm=1e6 if unfused else None)
    close(student, expected)
    assert np.array_equal(np.concatenate(data.calls[1:]), np.concatenate(steps))  # after a sample
    for epoch, record in enumerate(history):
        mean = sum(loss * len(rows) for loss, rows in zip(losses[3 * epoch : 3 * epoch + 3], steps)) / N
        assert (record.epoch, record.step) == (epoch + 1, 3 * epoch + 3)
        assert record.train_loss == pytest.approx(mean, rel=1e-5)
        assert record.learning_rate == 0.05
        assert record.validation_loss is None


def test_clipping_limits_the_norm_over_all_arrays():
    data, student = Logits(), Student(D, H, C, rank=3, seed=5)
    steps = [order(7, 0)[start : start + 32] for start in range(0, N, 32)]
    expected, _ = by_hand(student, data, steps, clip=0.3)
    free, _ = by_hand(student, data, steps)
    trained(data, student=student, clip_norm=0.3, epochs=1)
    close(student, expected)
    assert np.abs(free["W"] - expected["W"]).max() > 0.01  # it did clip


def test_accumulated_batches_make_the_step_of_one_large_batch():
    data, student = Logits(), Student(D, H, C, rank=3, seed=5)
    steps = [order(7, 0)[start : start + 40] for start in range(0, N, 40)]  # 40, 40 and 10 rows: 3, 3 and 1 batches
    expected, losses = by_hand(student, data, steps)
    _, history = trained(data, student=student, batch_size=16, accumulate=3, epochs=0)
    assert history == []
    _, history = trained(data, student=student, batch_size=20, accumulate=2, epochs=1)
    close(student, expected)
    assert history[-1].step == 3
    assert history[-1].train_loss == pytest.approx(sum(loss * len(rows) for loss, rows in zip(losses, steps)) / N, rel=1e-5)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_first_clipped_step_has_that_norm(net):
    student = net()
    before = student.arrays()
    trained(Logits(), student=student, optimizer=SGD(0.5), batch_size=N, epochs=1, clip_norm=0.25)
    change = [array - before[name] for name, array in student.arrays().items()]
    assert math.sqrt(sum((array.astype(np.float64) ** 2).sum() for array in change)) == pytest.approx(0.125, rel=1e-5)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_accumulation_keeps_the_dropout_mask_of_the_large_batch(net):
    large, _ = trained(Logits(), student=net(dropout=0.5), batch_size=48, clip_norm=1e6)
    parts, _ = trained(Logits(), student=net(dropout=0.5), batch_size=16, accumulate=3)
    close(parts, large.arrays())
    other, _ = trained(Logits(), student=net(dropout=0.5), batch_size=48, clip_norm=1e6, seed=8)
    assert not same(other, large)


def test_weights_of_rows(backend):
    weights = np.random.default_rng(3).uniform(0, 2, N).astype(np.float32)
    data, student = Logits(weights=weights), Student(D, H, C, rank=3, seed=5)
    steps = [order(7, 0)[start : start + 32] for start in range(0, N, 32)]
    expected, _ = by_hand(student, data, steps)
    trained(data, student=student, epochs=1, backend=backend)
    close(student, expected)


def test_dropout_uses_the_masks_of_the_seed_and_the_step():
    data, student = Logits(), Student(D, H, C, dropout=0.5, seed=5)
    w = student.arrays()
    key = int(np.random.SeedSequence(7).generate_state(1, np.uint64)[0])
    optimizer = SGD(0.05)
    for step, start in enumerate(range(0, N, 32)):
        rows = order(7, 0)[start : start + 32]
        keywords = {"dropout": 0.5, "seed": key, "offset": step}
        y = ops.shallow_forward(data.x[rows], w["U"], w["b"], w["W"], w["c"], **keywords)
        grads = ops.shallow_backward(ops.mimic_loss(y, data.t[rows])[1], data.x[rows], w["U"], w["b"], w["W"], **keywords)
        optimizer.advance()
        for name, array in w.items():
            optimizer.update(name, array, getattr(grads, name))
    trained(data, student=student, optimizer=SGD(0.05), epochs=1)
    close(student, w)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_averaged_weights_are_what_is_kept(net):
    student, average = net(), net().arrays()
    for steps in range(1, 7):  # the weights after each step, by training that long
        plain, _ = trained(Logits(32), student=net(), epochs=steps, seed=1)
        share = 1 - min(0.5, (1 + steps) / (10 + steps))
        average = {name: array + share * (plain.arrays()[name] - array) for name, array in average.items()}
    trained(Logits(32), student=student, epochs=6, seed=1, ema=0.5)
    close(student, average)


def test_the_same_run_gives_the_same_bits_and_another_seed_does_not(backend):
    first, _ = trained(Logits(), backend=backend, student=Student(D, H, C, rank=3, dropout=0.3))
    again, _ = trained(Logits(), backend=backend, student=Student(D, H, C, rank=3, dropout=0.3))
    other, _ = trained(Logits(), backend=backend, student=Student(D, H, C, rank=3, dropout=0.3), seed=8)
    assert same(first, again)
    assert not same(first, other)


@pytest.mark.parametrize("activation", ["relu", "tanh", "gelu"])
def test_keeping_h_changes_no_bits(backend, activation):
    nets = [Student(D, H, C, rank=3, activation=activation, dropout=0.3) for _ in range(2)]
    for net, budget in zip(nets, (1 << 30, 0)):
        trained(Logits(), student=net, memory_budget=budget, backend=backend)
    assert same(*nets)


def test_the_path_says_which_and_why():
    student = Student(D, H, C)
    assert Trainer(student, SGD(0.1), epochs=1).path.startswith("fused")
    assert Trainer(student, SGD(0.1), epochs=1, clip_norm=2.0).path.startswith("unfused: clip_norm=2.0")
    assert Trainer(student, SGD(0.1), epochs=1, accumulate=4).path.startswith("unfused: accumulate=4")
    assert Trainer(NETS["deep net"](), SGD(0.1), epochs=1).path.startswith("unfused: the layers of a deep net")


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("batch_size", [20, 16, 1])
def test_batches_of_one_step_have_masks_of_their_own(net, batch_size):
    """All rows are one row, so that equal masks give equal outputs: rows of the second batch look like none of the first."""
    data, seen = Logits(2 * batch_size), []
    data.x[:] = data.x[0]

    def watch(y, t, weights):
        seen.append(y.copy())
        return ops.mimic_loss(y, t, weights)

    trained(data, student=net(dropout=0.5), loss=watch, accumulate=2, batch_size=batch_size, epochs=1)
    first, second = seen
    assert not any(np.array_equal(a, b) for a in first for b in second)


def test_memory_budget_and_keep_reach_the_wide_layer():
    """h in bfloat16 changes bits, unless the budget has no room for it."""
    nets = [Student(D, H, C, rank=3, seed=5) for _ in range(3)]
    for net, keywords in zip(nets, ({}, {"keep": "bfloat16"}, {"keep": "bfloat16", "memory_budget": 0})):
        trained(Logits(), student=net, backend="cpu", **keywords)
    assert not same(nets[0], nets[1])
    assert same(nets[0], nets[2])


@pytest.mark.parametrize(("keep", "dtype"), [("float16", "float32"), ("bfloat16", "bfloat16"), (None, "float32")])
def test_a_type_that_h_cannot_have_is_found_at_construction(keep, dtype):
    with pytest.raises((TypeError, ValueError), match="keep: expected"):
        Trainer(Student(D, H, C), SGD(0.1), epochs=1, keep=keep, dtype=dtype)


@pytest.mark.skipif(default_host().name == "reference", reason="there is no other backend to forget it for")
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize(
    "keywords",
    [{}, {"clip_norm": 1.0, "ema": 0.5}, {"accumulate": 2, "loss": "distillation"}, {"patience": 2, "standardise_targets": True}],
    ids=str,
)
def test_every_op_is_the_backends_that_a_trainer_is_told(net, keywords, monkeypatch):
    """Whatever forgets to say which takes the fastest, and that fails here."""

    def never(*arguments):
        raise AssertionError("another backend was asked")

    for op in Backend.__abstractmethods__:
        monkeypatch.setattr(type(default_host()), op, never)
    monkeypatch.setattr(Run, "_loss_on_sample", lambda self, y: 0.0)  # whether the run was of use: on the host, wherever it runs
    trained(Logits(), Logits(40, seed=1), student=net(dropout=0.5), optimizer=AdamW(1e-3), backend="reference", **keywords)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_augment_is_a_function_of_three_that_returns_two(net):
    for augment, error, message in (
        (lambda x, generator: x, TypeError, r"augment: expected a function of \(x, targets, rng\), got .+\(x, generator\)"),
        (lambda x, targets, generator: x, TypeError, r"augment: expected \(x, targets\) from it, got ndarray"),
        (lambda x, targets, generator: (x[:, 1:], targets), ValueError, rf"augment: expected x of shape \(32, {D}\) from it, got"),
        (lambda x, targets, generator: (x[1:], targets), ValueError, rf"augment: expected x of shape \(32, {D}\) from it, got \(31, {D}\)"),
    ):  # fmt: skip
        with pytest.raises(error, match=message):
            trained(Logits(), student=net(), augment=augment)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_augment_draws_from_a_stream_of_its_own(net):
    """As `Trainer` documents it: (epoch, first row)."""
    draws = []

    def watch(x, t, generator):
        draws.append(generator.standard_normal(4))
        return x, t

    trained(Logits(), student=net(), augment=watch, epochs=2)
    keys = [(epoch, first) for epoch in range(2) for first in (0, 32, 64)]
    for key, draw in zip(keys, draws, strict=True):
        stream = np.random.default_rng(np.random.SeedSequence(7, spawn_key=key))
        assert np.array_equal(draw, stream.standard_normal(4))
