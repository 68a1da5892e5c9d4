"""What training promises, for both kinds of nets: they learn, stop in time, are standardised; and clear words where something is wrong."""

import functools
import io
import warnings

import numpy as np
import pytest
from toy import NETS, C, D, H, Logits, N, close, order, same, trained

from pymimic import SGD, AdamW, cosine, ops
from pymimic.data.cases import LabelledSet
from pymimic.data.transfer import TransferSet
from pymimic.errors import TrainingDivergedError
from pymimic.files import read_safetensors
from pymimic.nets.student import Student
from pymimic.progress import Progress
from pymimic.training.convnet import ConvNet
from pymimic.training.deepnet import DeepNet
from pymimic.training.trainer import Trainer

# Learning


def answers(net, x):
    return net.predict(x) if isinstance(net, Student) else net.logits(x)


@pytest.mark.parametrize(
    "net", [lambda: Student(D, 256, C), lambda: DeepNet([D, 128, 64, C]), lambda: ConvNet((1, D), [(32, 3, 1, 1)], C, [64])], ids=NETS
)
@pytest.mark.parametrize(
    "keywords", [{}, {"loss": "distillation", "temperature": 3.0}, {"loss": ops.mimic_loss}, {"standardise_targets": True}]
)
def test_a_student_learns_its_teacher(net, keywords):
    data, held_out, student = Logits(2000), Logits(500, seed=1), net()
    optimizer = AdamW(cosine(5e-3, 20 * 63))
    _, history = trained(data, held_out, student=student, optimizer=optimizer, epochs=20, standardise_inputs=True, **keywords)
    assert history[-1].validation_loss < 0.05 * history[0].validation_loss + 0.02
    assert history[-1].validation_accuracy > 0.9
    agreement = np.mean(answers(student, held_out.x).argmax(1) == held_out.t.argmax(1))
    assert history[-1].validation_accuracy == agreement


def test_a_student_learns_labels():
    data, held_out = (LabelledSet(cases.x, cases.t.argmax(1), C) for cases in (Logits(2000), Logits(500, seed=1)))
    student, history = trained(data, held_out, student=Student(D, 256, C), optimizer=AdamW(3e-3), epochs=20, loss="cross_entropy")
    assert history[-1].validation_accuracy > 0.95
    y = student.predict(held_out.x)
    assert history[-1].validation_loss == pytest.approx(ops.cross_entropy(y, held_out.labels)[0], rel=1e-5)
    assert history[-1].validation_accuracy == np.mean(y.argmax(1) == held_out.labels)


def test_validation_on_labels_of_a_mimic_gives_accuracy_alone():
    held_out = LabelledSet(Logits(50, seed=1).x, Logits(50, seed=1).t.argmax(1), C)
    student, history = trained(Logits(), held_out, patience=5, monitor="accuracy")
    assert history[-1].validation_loss is None
    best = history[history.best_epoch - 1].validation_accuracy
    assert best == max(record.validation_accuracy for record in history)
    assert np.mean(student.predict(held_out.x).argmax(1) == held_out.labels) == best


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_early_stopping_folds_the_best_weights(net):
    data, held_out, student = Logits(200), Logits(300, seed=1), net()
    for cases in (data, held_out):
        cases.t = cases.t * np.float32([1, 10, 100, 5]) + np.float32([0, 5, -1000, 3])
    _, history = trained(data, held_out, student=student, optimizer=AdamW(0.02), epochs=200, patience=3, standardise_targets=True)
    assert history.stopped_early
    mean, scale = data.t.mean(0, dtype=np.float64), data.t.std(0, dtype=np.float64)
    y, t = ((values - mean) / scale for values in (answers(student, held_out.x), held_out.t))
    assert ops.mimic_loss(y, t)[0] == pytest.approx(min(record.validation_loss for record in history), rel=1e-5)


def test_early_stopping_restores_the_best_weights():
    held_out = Logits(300, seed=1)
    student, history = trained(
        Logits(20), held_out, student=Student(D, 256, C), optimizer=AdamW(0.02), epochs=200, batch_size=4, patience=3
    )
    losses = [record.validation_loss for record in history]
    assert history.stopped_early
    assert len(history) < 200
    assert history.best_epoch == 1 + int(np.argmin(losses)) == len(history) - 3
    assert ops.mimic_loss(student.predict(held_out.x), held_out.t)[0] == pytest.approx(min(losses), rel=1e-6)
    shorter, _ = trained(Logits(20), held_out, student=Student(D, 256, C), optimizer=AdamW(0.02), epochs=history.best_epoch, batch_size=4)
    assert same(student, shorter)


def test_the_best_epoch_is_kept_without_stopping_early():
    held_out = Logits(300, seed=1)
    student, history = trained(
        Logits(20), held_out, student=Student(D, 256, C), optimizer=AdamW(0.02), epochs=12, batch_size=4, keep_best=True
    )
    assert len(history) == 12
    assert not history.stopped_early
    assert history.best_epoch < 12
    shorter, _ = trained(Logits(20), held_out, student=Student(D, 256, C), optimizer=AdamW(0.02), epochs=history.best_epoch, batch_size=4)
    assert same(student, shorter)


def test_standardised_targets_are_folded_in():
    data, scaled, held_out = Logits(), Logits(), Logits(50, seed=1)
    data.t = data.t * np.float32([1, 10, 100, 0]) + np.float32([0, 5, -1000, 3])
    mean, scale = data.t.mean(0, dtype=np.float64).astype(np.float32), data.t.std(0, dtype=np.float64).astype(np.float32)
    scale[3] = 1
    scaled.t = (data.t - mean) / scale
    held_out.t = held_out.t * scale + mean
    student, history = trained(data, held_out, standardise_targets=True)
    by_hand_, _ = trained(scaled)
    by_hand_.fold(mean, scale)
    close(student, by_hand_.arrays())
    assert history[-1].validation_accuracy == np.mean(student.predict(held_out.x).argmax(1) == held_out.t.argmax(1))


def test_standardised_inputs_are_kept_in_the_student():
    data = Logits()
    data.x = data.x * np.float32([1, 2, 3, 4, 5, 0]) + np.float32([0, 0, 100, -7, 0, 42])
    student, _ = trained(data, standardise_inputs=True)
    np.testing.assert_allclose(student.mean, data.x.mean(0, dtype=np.float64), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(student.scale, 1 / np.append(data.x[:, :5].std(0, dtype=np.float64), 1), rtol=1e-5)
    mean = student.mean
    trained(Logits(seed=2), student=student, standardise_inputs=True, epochs=0)
    assert np.array_equal(student.mean, mean)  # one that is there stays
    inside = Logits()
    inside.x = student.standardise(data.x)
    plain, _ = trained(inside)
    fresh = Student(D, H, C, rank=3, seed=5)
    fresh.set_standardisation(student.mean, student.scale)
    trained(data, student=fresh)
    assert same(plain, fresh)


def test_augment_gets_a_generator_of_its_own_at_every_step():
    draws = []

    def jitter(x, t, generator):
        draws.append(generator.standard_normal(x.shape).astype(np.float32))
        return x + draws[-1], t * 2

    trained(Logits(), augment=jitter, epochs=2)
    first = list(draws)
    draws.clear()
    trained(Logits(), augment=jitter, epochs=2)
    assert all(np.array_equal(a, b) for a, b in zip(first, draws))
    assert len({float(draw[0, 0]) for draw in draws}) == 6


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("clip_norm", [None, 1e6])
def test_a_step_that_fails_half_way_leaves_no_half_of_it(net, clip_norm):
    """Some arrays have been updated by then, and others have not: a fused step of a student leaves V for last."""

    class Breaks(SGD):
        def update(self, name, *more):
            if self.steps == 5 and name in ("bias0", "V" if clip_norm is None else "W"):
                raise ZeroDivisionError
            super().update(name, *more)

    student, good = net(), net()
    with pytest.raises(ZeroDivisionError):
        trained(Logits(), student=student, optimizer=Breaks(0.05), clip_norm=clip_norm)
    trained(Logits(), student=good, optimizer=SGD(0.05), clip_norm=clip_norm, epochs=1)
    assert same(student, good)  # which is what it was given last: that was step 5, of the second epoch


# Divergence


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_loss_that_is_nan_stops_at_its_step_and_keeps_the_last_good_checkpoint(tmp_path, net):
    data, path = Logits(), tmp_path / "run.safetensors"
    data.t[order(7, 1)[40]] = np.nan  # in the second batch of the second epoch: step 5
    good = Logits()

    class TurnsBad(Logits):
        def batch(self, indices):
            self.calls.append(indices)
            return (data if len(self.calls) > 1 + 3 else good).batch(indices)  # a sample, then the steps

    for clip in (None, 1.0):
        student = net()
        path.unlink(missing_ok=True)
        with pytest.raises(
            TrainingDivergedError,
            match=r"training diverged at step 5: expected a finite loss, got nan, as logits of its rows .*; .*run\.safetensors",
        ):
            trained(TurnsBad(), student=student, checkpoint=path, checkpoint_every=2, clip_norm=clip)
        arrays, metadata = read_safetensors(path)
        assert metadata["counters"]["step"] == 4
        for name, array in student.arrays().items():  # step 5 was not taken
            assert np.array_equal(arrays[f"weights.{name}"], array)
            assert np.isfinite(array).all()


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_weights_that_overflow_are_never_saved(tmp_path, net):
    path, student = tmp_path / "run.safetensors", net()

    def steep(y, t, weights):
        return 1.0, np.full_like(y, 1e38 if len(calls.calls) == 1 + 5 else 0)

    calls = Logits()
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            TrainingDivergedError,
            match=r"training diverged at step 5: expected finite weights, got NaN or infinity .*: try a lower learning rate",
        ),
    ):
        trained(calls, student=student, loss=steep, checkpoint=path, checkpoint_every=1)
    arrays, metadata = read_safetensors(path)
    assert metadata["counters"]["step"] == 4
    assert all(np.isfinite(array).all() for array in [*arrays.values(), *student.arrays().values()])
    with np.errstate(all="ignore"), pytest.raises(TrainingDivergedError, match=r"training diverged at step \d+: expected a finite loss"):
        trained(Logits(), student=net(), optimizer=SGD(1e6), epochs=50)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize(("bad", "what"), [(5, "at step 6: expected a finite loss"), (6, "at step 6: expected finite weights")])
def test_a_net_whose_weights_overflow_gets_those_of_its_last_good_epoch(net, bad, what):
    """Standardised targets are folded in, as ever."""

    def steep(y, t, weights):
        return float(np.abs(y).mean()), np.full_like(y, 1e38 if len(calls.calls) == 2 + bad else 0.01)  # a sample, the standardisation

    calls, student, good = Logits(), net(), net()
    keywords = {"loss": steep, "standardise_targets": True}
    trained(Logits(), student=good, optimizer=SGD(0.05), epochs=1, **keywords)
    with np.errstate(all="ignore"), pytest.raises(TrainingDivergedError, match=what):
        trained(calls, student=student, optimizer=SGD(0.05), **keywords)
    assert same(student, good)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_resumed_run_that_overflows_at_once_leaves_the_weights_of_the_checkpoint(tmp_path, net):
    good, student = net(), net()
    trained(Logits(), student=good, epochs=1, checkpoint=tmp_path / "run")
    trainer = Trainer(student, SGD(1e38, momentum=0.9), epochs=2, batch_size=32, seed=7)
    with np.errstate(all="ignore"), pytest.raises(TrainingDivergedError, match=r"diverged at step 5: expected a finite loss"):
        trainer.fit(Logits(), resume=tmp_path / "run", resume_with="learning_rate")
    assert same(student, good)
    assert [record.epoch for record in trainer.history] == [1]


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_a_gradient_that_is_not_finite_is_not_clipped_but_reported(net):
    def steep(y, t, weights):
        return 1.0, np.full_like(y, 3e38)

    student, before = net(), net()
    with np.errstate(all="ignore"), pytest.raises(TrainingDivergedError, match="diverged at step 1: expected a finite gradient norm"):
        trained(Logits(), student=student, loss=steep, clip_norm=1.0)
    assert same(student, before)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("keywords", [{}, {"clip_norm": 1.0}, {"accumulate": 2, "batch_size": 16}, {"ema": 0.5}])
def test_a_finite_loss_with_a_gradient_that_is_not_stops_before_that_step(net, bad, keywords):
    """The student keeps the weights of the step before."""

    def turns_bad(y, t, weights):
        loss, dy = ops.mimic_loss(y, t, weights)
        if len(calls.calls) > 1 + 4 * keywords.get("accumulate", 1):
            dy[0, 0] = bad
        return loss, dy

    calls, student = Logits(), net()
    with pytest.raises(TrainingDivergedError, match="diverged at step 5: expected a finite gradient of the loss, got NaN or infinity"):
        trained(calls, student=student, loss=turns_bad, **keywords)
    steps, good = [], net()

    def stops(y, t, weights):
        steps.append(1)
        if len(steps) > 4 * keywords.get("accumulate", 1):
            raise ZeroDivisionError
        return ops.mimic_loss(y, t, weights)

    with pytest.raises(ZeroDivisionError):
        trained(Logits(), student=good, loss=stops, **keywords)
    assert same(student, good)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("rate", [1e13, 1e20, 1e30, 3e38])
@pytest.mark.parametrize("keywords", [{}, {"clip_norm": 1.0}, {"accumulate": 2}, {"ema": 0.5}, {"checkpoint_every": 1}])
def test_weights_that_give_infinity_are_neither_saved_nor_handed_over(tmp_path, net, rate, keywords):
    """After one step weights of 1e13 and more are finite, and what they make of any row is not."""
    path, student, data = tmp_path / "run", net(), Logits(64)
    with (
        np.errstate(all="ignore"),
        pytest.raises(TrainingDivergedError, match=r"diverged at step 1: expected finite weights, got NaN or inf"),
    ):
        trained(data, student=student, optimizer=AdamW(rate), epochs=1, batch_size=64, checkpoint=path, **keywords)
    assert same(student, net())
    assert not path.exists()


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_ctrl_c_after_a_step_too_far_leaves_what_was_good(net):
    def press(y, t, weights):
        if len(calls.calls) == 1 + 5:
            raise KeyboardInterrupt
        return ops.mimic_loss(y, t, weights)

    student, calls = net(), Logits()
    rates = [0.01, 0.01, 0.01, 1e30, 1e30]
    with np.errstate(all="ignore"), pytest.raises((KeyboardInterrupt, TrainingDivergedError)):
        trained(calls, student=student, optimizer=AdamW(rates.__getitem__), loss=press)
    good = net()
    trained(Logits(), student=good, optimizer=AdamW(0.01), epochs=1)
    assert same(student, good)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize(
    ("rate", "error"), [(np.nan, ValueError), (-0.1, ValueError), (np.inf, ValueError), (1e39, ValueError), ("1", TypeError)]
)
def test_a_schedule_that_gives_no_rate_stops_before_that_step(net, rate, error):
    student, good = net(), net()
    with pytest.raises(error, match=r"learning_rate: expected a number.*, got .*, from the schedule at step 4"):
        trained(Logits(), student=student, optimizer=SGD(lambda step: 0.05 if step < 4 else rate))

    def until(y, t, weights):
        if len(calls.calls) == 1 + 5:
            raise ZeroDivisionError
        return ops.mimic_loss(y, t, weights)

    calls = Logits()
    with pytest.raises(ZeroDivisionError):
        trained(calls, student=good, optimizer=SGD(0.05), loss=until)
    assert same(student, good)


def test_a_rate_of_zero_throughout_is_warned_of():
    student, optimizer = Student(D, H, C), AdamW(cosine(1e-2, 6))
    trained(Logits(), student=student, optimizer=optimizer, epochs=2)
    with pytest.warns(
        UserWarning, match=r"optimizer: expected a learning rate above 0, got 0 at each of the 6 steps to come, from step 6 of"
    ):
        trained(Logits(), student=student, optimizer=optimizer, epochs=2)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "optimizer")
        trained(Logits(), student=student, optimizer=optimizer, epochs=0)
        trained(Logits(), optimizer=AdamW(cosine(1e-2, 2)), epochs=2)  # one step is enough


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_one_optimizer_trains_one_net(net):
    optimizer, first = AdamW(1e-3), net()
    trained(Logits(), student=first, optimizer=optimizer, epochs=1)
    trained(Logits(), student=first, optimizer=optimizer, epochs=1)  # goes on
    other = net()
    with pytest.raises(
        ValueError, match=r"optimizer: expected one without steps .*, got one with 6 steps.*new AdamW, or call its reset\(\)"
    ):
        trained(Logits(), student=other, optimizer=optimizer)
    del first
    with pytest.raises(ValueError, match="optimizer: expected one without steps"):
        trained(Logits(), student=other, optimizer=optimizer)
    assert same(other, net())
    optimizer.reset()
    fresh = net()
    trained(Logits(), student=other, optimizer=optimizer)
    trained(Logits(), student=fresh, optimizer=AdamW(1e-3))
    assert same(other, fresh)


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
@pytest.mark.parametrize("part", ["inputs", "logits", "weights"])
def test_data_that_are_not_finite_are_named(net, part):
    data = Logits(weights=np.ones(N, np.float32))
    {"inputs": data.x[:, 0], "logits": data.t[:, 0], "weights": data.weights}[part][order(7, 0)[40]] = np.inf
    student, clean = net(), net()
    with (
        np.errstate(all="ignore"),
        pytest.raises(
            TrainingDivergedError, match=rf"at step 2: expected a finite loss, got .*, as {part} of its rows in `data` are not finite$"
        ),
    ):
        trained(data, student=student)
    assert all(np.isfinite(array).all() for array in student.arrays().values())
    assert not same(student, clean) or part == "inputs"


# The rest


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_bar_is_silent_where_output_is_no_terminal(capfd, net):
    trained(Logits(), student=net())
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_the_bar_counts_steps_on_a_terminal(monkeypatch, net):
    terminal = io.StringIO()
    terminal.isatty = lambda: True
    monkeypatch.setattr("pymimic.training.loop.Progress", functools.partial(Progress, file=terminal, mininterval=0, miniters=1))
    trained(Logits(), student=net(), progress=False)
    assert terminal.getvalue() == ""
    trained(Logits(), student=net())
    assert "epoch 3/3: 100%" in terminal.getvalue()
    assert "9/9" in terminal.getvalue()
    assert "loss=" in terminal.getvalue()


@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_training_goes_on_where_it_was(net):
    twice = net()
    optimizer = AdamW(1e-3)
    trained(Logits(), student=twice, optimizer=optimizer, epochs=1)
    assert optimizer.steps == 3
    trained(Logits(), student=twice, optimizer=optimizer, epochs=1)
    assert optimizer.steps == 6


@pytest.mark.parametrize(
    ("keywords", "error", "message"),
    [
        ({"epochs": -1}, ValueError, "epochs: expected"),
        ({"batch_size": 0}, ValueError, "batch_size: expected"),
        ({"batch_size": 1.5}, TypeError, "batch_size: expected an int, got float"),
        ({"accumulate": 0}, ValueError, "accumulate: expected"),
        ({"seed": -1}, ValueError, "seed: expected"),
        ({"patience": 0}, ValueError, "patience: expected"),
        ({"checkpoint_every": 0}, ValueError, "checkpoint_every: expected"),
        ({"monitor": "error"}, ValueError, "monitor: expected 'loss' or 'accuracy', got 'error'"),
        ({"clip_norm": 0.0}, ValueError, "clip_norm: expected a number above 0"),
        ({"ema": 1.0}, ValueError, "ema: expected a number in"),
        ({"loss": "hinge"}, ValueError, "loss: expected 'mimic', 'cross_entropy', 'distillation' or a function, got 'hinge'"),
        ({"loss": "distillation", "temperature": 0.0}, ValueError, "temperature: expected a number above 0"),
        ({"loss": "distillation", "temperature": 1e5}, ValueError, r"temperature: expected a number in \(0, 100\]"),
        ({"loss": "cross_entropy", "standardise_targets": True}, ValueError, "standardise_targets: expected False"),
        ({"backend": "tpu"}, ValueError, "backend: expected one of"),
        ({"keep_best": 1}, TypeError, "keep_best: expected"),
        ({"keep_best": True}, ValueError, "validation: expected a set, as keep_best and patience watch it, got None"),
        ({"patience": 2}, ValueError, "validation: expected a set, as keep_best and patience watch it, got None"),
    ],
)
@pytest.mark.parametrize("net", NETS.values(), ids=NETS)
def test_bad_configurations(net, keywords, error, message):
    with pytest.raises(error, match=message):
        trained(Logits(), student=net(), **keywords)


def test_one_output_has_no_accuracy():
    """It is the largest whatever the net says."""
    x = np.random.default_rng(0).standard_normal((200, D), np.float32)
    heights, labels, said = TransferSet(x, np.abs(x[:, :1])), np.zeros(200, int), r"^monitor: expected 'loss' for a net with one output, "
    history = trained(heights, heights, student=Student(D, 16, 1), keep_best=True)[1]
    assert [record.validation_accuracy for record in history] == [None] * len(history)
    assert history.best_epoch == 1 + np.argmin([record.validation_loss for record in history]) > 1
    for net in (DeepNet([D, 4, 1]), ConvNet((1, D), [(2, 2)], 1)):
        assert trained(heights, heights, student=net)[1][0].validation_accuracy is None
        with pytest.raises(ValueError, match=said):
            trained(heights, heights, student=net, monitor="accuracy")
        with pytest.raises(ValueError, match=r"^labels: expected a net of two outputs or more to learn them, got one with one"):
            net.fit(x, labels, epochs=1)
    for loss in ("distillation", "cross_entropy"):
        with pytest.raises(ValueError, match=rf"^loss: expected 'mimic' or a function for a net with one output, .* got '{loss}'"):
            trained(heights, student=Student(D, 16, 1), loss=loss)
    with pytest.raises(ValueError, match=said):
        trained(heights, heights, student=Student(D, 16, 1), monitor="accuracy")
    with pytest.raises(ValueError, match=r"^validation: expected targets that loss 'mimic' applies to, got others$"):
        trained(heights, LabelledSet(x, labels, 1), student=Student(D, 16, 1), keep_best=True)


@pytest.mark.parametrize("keywords", [{"dtype": "bfloat16"}, {"keep": "bfloat16"}])
def test_layers_of_a_deep_net_are_float32(keywords):
    with pytest.raises(ValueError, match=r"dtype, keep: expected 'float32' for a net other than a Student, got .*'bfloat16'"):
        trained(Logits(), student=NETS["deep net"](), **keywords)


def test_bad_data():
    wide = LabelledSet(np.zeros((9, D + 1), np.float32), np.zeros(9, int), C)
    many = LabelledSet(np.zeros((9, D), np.float32), np.zeros(9, int), C + 1)
    labels = LabelledSet(np.zeros((9, D), np.float32), np.zeros(9, int), C)
    with pytest.raises(ValueError, match=f"data: expected {D} inputs, as the student has, got {D + 1}"):
        trained(wide)
    with pytest.raises(ValueError, match=f"data: expected {C} outputs, as the student has, got {C + 1}"):
        trained(many)
    with pytest.raises(ValueError, match=f"validation: expected {D} inputs"):
        trained(Logits(), wide)
    with pytest.raises(ValueError, match="data: expected at least one row"):
        trained(Logits(0))
    with pytest.raises(TypeError, match=r"data: expected labels, .*LabelledSet has, with loss 'cross_entropy', got logits"):
        trained(Logits(), loss="cross_entropy")
    for loss in ("mimic", "distillation"):
        with pytest.raises(
            TypeError, match=rf"data: expected a teacher's logits, .*with loss '{loss}', got labels; loss='cross_entropy' takes"
        ):
            trained(labels, loss=loss)
    with pytest.raises(
        TypeError, match=r"data: expected labels beside the logits, as alpha = 0.5 leaves .* TransferSet\(x, logits, labels"
    ):
        trained(Logits(), loss="distillation", alpha=0.5)
    with pytest.raises(ValueError, match="monitor: expected 'accuracy'"):
        trained(Logits(), labels, patience=2)


@pytest.mark.parametrize(
    ("x", "labels", "weights", "error", "message"),
    [
        (np.zeros((3, 2), int), np.zeros(3, int), None, TypeError, "x: expected dtype float32 or float64, got int64"),
        (np.zeros(3), np.zeros(3, int), None, ValueError, r"x: expected shape \(N, D\)"),
        (np.array([[0.0], [np.inf], [0.0]]), np.zeros(3, int), None, ValueError, "x: expected finite values, got inf in row 1"),
        (np.zeros((3, 2)), np.zeros(3), None, TypeError, "labels: expected an integer dtype, got float64"),
        (np.zeros((3, 2)), np.zeros(4, int), None, ValueError, r"labels: expected shape \(N,\) = \(3,\), got \(4,\)"),
        (np.zeros((3, 2)), np.array([0, 1, 5]), None, ValueError, r"labels: expected values in \[0, 5\), got \[0, 5\]"),
        (np.zeros((3, 2)), np.array([0, -1, 4]), None, ValueError, r"labels: expected values in \[0, 5\), got \[-1, 4\]"),
        (np.zeros((3, 2)), np.zeros(3, int), np.ones(2), ValueError, r"weights: expected shape"),
        (np.zeros((3, 2)), np.zeros(3, int), np.array([1, -1, 1.0]), ValueError, "weights: expected values of at least 0"),
    ],
)
def test_bad_labelled_sets(x, labels, weights, error, message):
    with pytest.raises(error, match=message):
        LabelledSet(x, labels, 5, weights)
