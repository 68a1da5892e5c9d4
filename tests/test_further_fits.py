"""A net that has learned is trained further: it goes on from what it gives, in the units of its targets."""

import numpy as np
import pytest
from toy import Logits

import pymimic as pm
from pymimic.data.moments import standardisation

RNG = np.random.default_rng(0)
X = RNG.standard_normal((400, 6)).astype(np.float32)
T = (1000 + 100 * np.abs(X[:, :2])).astype(np.float32)
DATA = pm.TransferSet(X, T)
NETS = {
    "student": lambda: pm.Student(6, 64, 2),
    "bottleneck": lambda: pm.Student(6, 64, 2, rank=4),
    "deep": lambda: pm.DeepNet([6, 64, 2]),
    "convolutional": lambda: pm.ConvNet((1, 6), [pm.Convolution(8, 3)], 2),
}
net_of_each_kind = pytest.mark.parametrize("make", NETS.values(), ids=NETS)


def fit(net, epochs=3, rate=1e-4, data=DATA, **more):
    settings = {"epochs": epochs, "batch_size": 50, "standardise_targets": True, "progress": False} | more
    return pm.Trainer(net, pm.AdamW(rate), **settings).fit(data)


def error(net):
    return float(np.sqrt(np.mean(np.square(net.predict(X) - T))))


@net_of_each_kind
def test_a_second_fit_goes_on_from_the_first(make):
    net = make()
    fit(net, epochs=20, rate=5e-3)
    first = error(net)
    assert first < 30  # of targets around 1,080
    fit(net)
    assert error(net) < 1.05 * first
    fit(net, ema=0.9)
    assert error(net) < 1.05 * first


@net_of_each_kind
def test_no_epochs_change_nothing(make):
    net = make()
    for _ in range(2):
        before = net.arrays()
        fit(net, epochs=0)
        assert all(np.array_equal(array, before[name]) for name, array in net.arrays().items())
        fit(net, epochs=1)


@net_of_each_kind
def test_a_fit_that_fails_before_its_first_step_changes_nothing(make):
    def fails(x, targets, rng):
        raise RuntimeError("no cases")

    net = make()
    fit(net, epochs=2, rate=5e-3)
    before = net.arrays()
    with pytest.raises(RuntimeError, match="no cases"):
        fit(net, augment=fails)
    assert all(np.array_equal(array, before[name]) for name, array in net.arrays().items())


def test_the_units_are_those_of_the_new_targets():
    """In the first step of rate 0 nothing moves: the loss is that of the net as it was, in units of the new deviation."""
    net, other = pm.Student(6, 64, 2), pm.TransferSet(X, 3 * T + 7)
    fit(net, epochs=20, rate=5e-3)
    before = net.predict(X).astype(np.float64)
    with pytest.warns(UserWarning, match="learning rate above 0"):
        (record,) = fit(net, epochs=1, rate=lambda step: 0.0, data=other)
    residual = (before - (3 * T + 7)) / (3 * T).std(axis=0, dtype=np.float64)
    assert record.train_loss == pytest.approx(np.square(residual).sum() / (2 * len(X)), rel=1e-3)
    np.testing.assert_allclose(net.predict(X), before, rtol=1e-5)


def test_weights_too_large_for_the_units_are_refused():
    net = pm.Student(6, 8, 2)
    net.set_arrays(W=np.full((8, 2), 1e30))
    with pytest.raises(ValueError, match=r"^standardise_targets: .*expected the last layer to stay finite"):
        fit(net, data=pm.TransferSet(X, 1e-20 * X[:, :2]))


@net_of_each_kind
def test_a_net_that_has_learned_from_inputs_as_they_are_gets_no_standardisation(make):
    net = make()
    fit(net, epochs=1)
    with pytest.raises(ValueError, match=r"standardise_inputs: expected False for a net whose weights .*got 'all': `set_standardisation`"):
        fit(net, standardise_inputs="all")
    assert net.mean is None
    net.set_standardisation(np.zeros(6), np.ones(6))
    fit(net, standardise_inputs="all")


def test_a_deep_net_that_was_fitted_keeps_what_it_has():
    labels = (X[:, 0] > 0).astype(int)
    net = pm.DeepNet([6, 64, 2]).fit(X, labels, epochs=20, batch_size=20, standardise=None, progress=False)
    net.fit(X, labels, epochs=1, progress=False)
    assert net.mean is None
    assert net.score(X, labels) > 0.9


def test_a_bottleneck_that_knows_the_inputs_is_still_fresh():
    """Its other weights are the first ones, so that inputs, given before, and targets are standardised as for any new student."""
    student = pm.Student(6, 64, 2, rank=4)
    student.initialise_bottleneck(X)
    assert student.fresh
    with pytest.warns(
        UserWarning, match="standardise_inputs: expected a net without a standardisation, .* call `set_standardisation` before"
    ):
        fit(student, epochs=20, rate=5e-3, standardise_inputs=True)
    assert error(student) < 40
    student = pm.Student(6, 64, 2, rank=4)
    student.set_standardisation(*standardisation([X], 6, "each"))
    student.initialise_bottleneck(X)
    fit(student, epochs=20, rate=5e-3, standardise_inputs=True)
    assert error(student) < 40


def test_more_patience_goes_on_where_less_had_stopped(tmp_path):
    data, held_out = Logits(), Logits(40, seed=1)

    def run(patience, **more):
        student = pm.Student(data.inputs, 30, data.outputs)
        trainer = pm.Trainer(
            student,
            pm.SGD(pm.cosine(0.1, 36)),
            epochs=12,
            batch_size=32,
            patience=patience,
            seed=7,
            checkpoint=tmp_path / "c",
            progress=False,
        )
        return trainer.fit(data, held_out, **more), student

    whole, wanted = run(30)
    stopped, _ = run(1)
    assert len(stopped) < len(whole) == 12
    assert stopped.stopped_early
    history, student = run(30, resume=tmp_path / "c")
    assert [record.validation_loss for record in history] == [record.validation_loss for record in whole]
    assert not history.stopped_early
    assert all(np.array_equal(array, wanted.arrays()[name]) for name, array in student.arrays().items())
