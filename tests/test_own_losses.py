"""Losses of the user's own, and data with logits and labels."""

import math

import numpy as np
import pytest
from toy import NETS, C, D, H, Logits, N, order, same, trained

import pymimic as pm
from pymimic import AdamW, LabelledSet, Student, Targets, TransferSet, ops
from pymimic.training.losses import loss_function

# What a loss returns


def bad_shape(y, t, weights):
    return 1.0, np.zeros((len(y), C + 1), np.float32)


def one_value(y, t, weights):
    return 1.0


def only_gradient(y, t, weights):
    return y - t


def three_values(y, t, weights):
    return 1.0, y - t, None


def no_number(y, t, weights):
    return np.ones(len(y)), y - t


def a_list(y, t, weights):
    return 1.0, (y - t).tolist()


def integers(y, t, weights):
    return 1.0, np.zeros(y.shape, int)


def nothing(y, t, weights):
    pass


def turned(y, t, weights):
    return 1.0, (y - t).T


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize(
    ("loss", "error", "message"),
    [
        (bad_shape, ValueError, r"bad_shape to return dL/dy of the shape that y has, \(32, 4\), got \(32, 5\)"),
        (turned, ValueError, r"turned to return dL/dy of the shape that y has, \(32, 4\), got \(4, 32\)"),
        (one_value, TypeError, r"one_value to return a pair \(loss, dL/dy\), got float"),
        (only_gradient, TypeError, r"only_gradient to return a pair \(loss, dL/dy\), got ndarray"),
        (three_values, TypeError, r"three_values to return a pair \(loss, dL/dy\), got tuple"),
        (nothing, TypeError, r"nothing to return a pair \(loss, dL/dy\), got NoneType"),
        (no_number, TypeError, r"no_number to return a number first, .*, got numpy.ndarray of shape \(32,\)"),
        (a_list, TypeError, "a_list to return dL/dy as a numpy array, got builtins.list"),
        (integers, TypeError, "integers to return dL/dy of dtype float32, got int64"),
    ],
)
def test_an_answer_that_is_none_names_the_loss_and_no_step_is_taken(net, loss, error, message):
    student = net()
    with pytest.raises(error, match=f"^loss: expected {message}"):
        trained(Logits(), student=student, loss=loss)
    assert same(student, net())


def test_tensors_that_require_gradients_are_named(torch):
    def by_torch(y, t, weights):
        return 1.0, torch.from_numpy(y - t).requires_grad_()

    with pytest.raises(
        TypeError, match=r"^loss: expected .*by_torch to return dL/dy as a numpy array, got torch.Tensor of shape \(32, 4\)"
    ):
        trained(Logits(), loss=by_torch)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("keywords", [{}, {"accumulate": 2, "batch_size": 16}])
def test_what_can_be_taken_is_taken(net, keywords):
    """float64, a 0-d array for the number, a list for the pair, Fortran order, a read-only gradient: the run is that of mimic_loss."""

    def odd(y, t, weights):
        loss, dy = ops.mimic_loss(y, t, weights)
        dy = np.asfortranarray(dy.astype(np.float64))
        dy.flags.writeable = False
        return [np.array(loss, np.float32), dy]

    plain, own = net(), net()
    trained(Logits(), student=plain, **keywords)
    trained(Logits(), student=own, loss=odd, **keywords)
    assert same(plain, own)


def test_a_gradient_is_not_written_to():
    kept = []

    def keeps(y, t, weights):
        loss, dy = ops.mimic_loss(y, t, weights)
        kept.append((dy, dy.copy()))
        return loss, dy

    trained(Logits(), loss=keeps, accumulate=3, batch_size=8)
    assert all(np.array_equal(dy, before) for dy, before in kept)


# Logits and labels


def problem(rows=N, weights=None):
    cases = Logits(rows)
    labels = np.random.default_rng(5).integers(0, C, rows)
    return TransferSet(cases.x, cases.t, weights, labels), labels


def test_a_transfer_set_gives_both():
    cases, labels = problem()
    _, targets, weights = cases.batch([3, 3, 80])
    assert isinstance(targets, Targets)
    assert np.array_equal(targets.logits, Logits().t[[3, 3, 80]])
    assert np.array_equal(targets.labels, labels[[3, 3, 80]])
    assert weights is None
    standardised, mean, scale = cases.standardised()
    assert np.array_equal(standardised.batch([3, 80])[1].labels, labels[[3, 80]])
    np.testing.assert_allclose(standardised.batch([3])[1].logits * scale + mean, Logits().t[[3]], rtol=1e-5)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (np.zeros(N), TypeError, "labels: expected an integer dtype, got float64"),
        (np.zeros(N - 1, int), ValueError, r"labels: expected shape \(N,\)"),
        (np.full(N, C), ValueError, r"labels: expected values in \[0, 4\), got \[4, 4\]"),
        ((0,) * N, TypeError, "labels: expected a NumPy array, got builtins.tuple"),
    ],
)
def test_labels_that_are_none_are_refused(labels, error, message):
    with pytest.raises(error, match=message):
        TransferSet(Logits().x, Logits().t, labels=labels)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("alpha", [1.0, 0.3, 0.0])
def test_a_run_with_alpha_is_the_run_of_that_loss(net, weighted, alpha):
    w = np.random.default_rng(1).random(N).astype(np.float32) if weighted else None
    cases, _ = problem(weights=w)

    def by_hand(y, targets, weights):
        assert (weights is None) != weighted
        return ops.distillation_loss(y, targets.logits, 3.0, weights, targets.labels, alpha)

    student, own = net(), net()
    trained(cases, student=student, loss="distillation", temperature=3.0, alpha=alpha)
    trained(cases, student=own, loss=by_hand)
    assert same(student, own)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_each_loss_takes_what_it_is_of(net):
    cases, labels = problem()
    for keywords, data in (
        ({"loss": "cross_entropy"}, LabelledSet(Logits().x, labels, C)), ({"loss": "mimic"}, Logits()),
        ({"loss": "mimic", "standardise_targets": True}, Logits()), ({"loss": "distillation", "alpha": 1}, Logits()),
    ):  # fmt: skip
        student, other = net(), net()
        trained(cases, student=student, **keywords)
        trained(data, student=other, **keywords)
        assert same(student, other)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_weights_of_rows_with_distillation(net):
    """A weight of 2 is a row that is there twice."""
    cases = Logits(40)
    twice = np.r_[np.arange(40), np.arange(40)]
    doubled = TransferSet(cases.x[twice], cases.t[twice])
    weighted = TransferSet(cases.x, cases.t, np.full(40, 2, np.float32))
    nets = [net(), net()]
    losses = [
        trained(data, student=student, optimizer=AdamW(1e-3), loss="distillation", temperature=2.0, batch_size=len(data), epochs=3)[1]
        for student, data in zip(nets, (doubled, weighted))
    ]
    assert [2 * record.train_loss for record in losses[0]] == pytest.approx([record.train_loss for record in losses[1]], rel=1e-3)


def test_validation_counts_labels_and_takes_the_loss_of_both():
    cases, labels = problem()
    held_out = TransferSet(Logits(50, seed=1).x, Logits(50, seed=1).t, labels=labels[:50])
    student, history = trained(cases, held_out, loss="distillation", temperature=2.0, alpha=0.5, patience=9)
    y = student.predict(held_out.batch(range(50))[0])
    best = history[history.best_epoch - 1]
    assert best.validation_accuracy == np.mean(y.argmax(1) == labels[:50])
    t = Logits(50, seed=1).t
    assert best.validation_loss == pytest.approx(ops.distillation_loss(y, t, 2.0, None, labels[:50], 0.5)[0], rel=1e-5)
    _, history = trained(cases, Logits(50, seed=1), loss="distillation", alpha=0.5)  # no labels there: accuracy alone
    assert history[-1].validation_loss is None
    with pytest.raises(ValueError, match="monitor: expected 'accuracy', as loss 'distillation' does not apply"):
        trained(cases, Logits(50, seed=1), loss="distillation", alpha=0.5, patience=2)


def test_augment_gets_both():
    cases, labels = problem()
    seen = []

    def flip(x, targets, generator):
        seen.append(targets.labels)
        return x, targets._replace(labels=C - 1 - targets.labels)

    student, _ = trained(cases, augment=flip, loss="distillation", alpha=0.2)
    flipped = TransferSet(Logits().x, Logits().t, labels=C - 1 - labels)
    other, _ = trained(flipped, loss="distillation", alpha=0.2)
    assert same(student, other)
    assert np.array_equal(np.concatenate(seen[:3]), labels[order(7, 0)])


@pytest.mark.parametrize("loss", ["mimic", "cross_entropy", ops.mimic_loss])
def test_alpha_is_of_distillation(loss):
    with pytest.raises(ValueError, match=r"alpha: expected 1 with loss '.*', as 'distillation' alone takes logits and labels, got 0.5"):
        trained(Logits(), loss=loss, alpha=0.5)


def test_masked_classes_train():
    class Masked(Logits):
        def batch(self, indices):
            x, t, weights = super().batch(indices)
            t = t.copy()
            t[:, 1] = -np.inf
            return x, t, weights

    student, history = trained(Masked(), Masked(), optimizer=AdamW(0.02), epochs=20, loss="distillation")
    assert all(math.isfinite(record.validation_loss) for record in history)
    assert (student.predict_proba(Logits().x)[:, 1] < 0.1).all()
    with pytest.raises(ValueError, match="t: expected logits that squared errors can be taken of, got -inf"):
        trained(Masked(), loss="mimic")


def test_a_label_set_for_a_loss_of_ones_own():
    """It gets what the data have; and validation is of the same kind."""
    labels = Logits().t.argmax(1)
    cases = LabelledSet(Logits().x, labels, C)
    own, history = trained(cases, cases, loss=ops.cross_entropy)
    named, same_history = trained(cases, cases, loss="cross_entropy")
    assert same(own, named)
    assert history[-1].validation_loss == same_history[-1].validation_loss
    _, history = trained(cases, Logits(), loss=ops.cross_entropy)
    assert history[-1].validation_loss is None


def test_names():
    assert pm.Targets is Targets
    assert Student(D, H, C).outputs == C
    with pytest.raises(ValueError, match="loss: expected 'mimic'"):
        loss_function("hinge", 1.0, 1.0, None)
