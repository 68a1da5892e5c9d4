"""The deep net: what a fit promises, what it refuses, and its files."""

import os
import signal
import sys
from dataclasses import replace

import numpy as np
import pytest
from roundings import assert_within_roundings

from pymimic import ops
from pymimic.backends import default_host, reference
from pymimic.errors import FileFormatError, TrainingDivergedError
from pymimic.files import write_safetensors
from pymimic.nets.student import Student
from pymimic.optimizer import SGD, AdamW, cosine
from pymimic.training import layered
from pymimic.training.convnet import ConvNet
from pymimic.training.deepnet import DeepNet
from pymimic.training.layers import Layers


def problem(n, seed=0, inputs=6):
    """Rows in three classes by their distance from the origin: no linear net can tell them apart."""
    x = np.random.default_rng(seed).standard_normal((n, inputs), np.float32)
    radius = np.square(x).sum(1)
    return x * 3 + 5, np.digitize(radius, [inputs - 2.5, inputs + 1.5])


def test_logits_are_the_layers_without_dropout_on_standardised_inputs(activation):
    x, labels = problem(200)
    net = DeepNet([6, 20, 10, 3], activation, dropout=0.5, input_dropout=0.2, seed=3).fit(x, labels, epochs=1)
    h = (x.astype(np.float64) - x.mean(0)) / x.std(0)
    for i in range(3):
        h = h @ net.arrays()[f"weight{i}"].T.astype(np.float64) + net.arrays()[f"bias{i}"]
        h = reference.activate(h, activation)[0] if i < 2 else h
    got = net.logits(x)
    assert got.dtype == np.float32
    assert_within_roundings(got, h, 32)  # sums of 6, 20 and 10 terms, of which each takes over the errors before
    assert np.array_equal(net.logits(x.astype(np.float64)), got)
    assert net.logits(x[:0]).shape == (0, 3)


@pytest.mark.skipif(default_host().name == "reference", reason="NumPy's products do not promise it")
def test_a_rows_logits_have_the_same_bits_in_any_batch_and_slab(monkeypatch):
    net = DeepNet([30, 200, 50, 7], seed=1)
    x = np.random.default_rng(0).standard_normal((300, 30), np.float32)
    want = net.logits(x)
    assert np.array_equal(np.concatenate([net.logits(x[i : i + 1]) for i in range(40)]), want[:40])
    monkeypatch.setattr("pymimic.training.layered._MOST_ROWS", 37)
    assert np.array_equal(net.logits(x), want)


@pytest.mark.parametrize(("activation", "gain"), [("relu", 2), ("tanh", 1)])
def test_fresh_weights_are_drawn_one_after_the_other(activation, gain):
    rng = np.random.default_rng(np.random.SeedSequence(3, spawn_key=(0,)))
    arrays = DeepNet([6, 5, 4, 3], activation, seed=3).arrays()
    for i, (rows, columns) in enumerate(((5, 6), (4, 5), (3, 4))):
        want = rng.standard_normal((rows, columns), np.float32) * np.float32(np.sqrt((gain if i < 2 else 1) / columns))
        assert np.array_equal(arrays[f"weight{i}"], want)
        assert not arrays[f"bias{i}"].any()


def test_fresh_weights_keep_the_scale_of_the_signal():
    net = DeepNet([400, 1000, 1000, 300])
    x = np.random.default_rng(0).standard_normal((100, 400), np.float32)
    assert 0.5 < net.logits(x).std() < 2
    assert net.parameter_count == 400 * 1000 + 1000 + 1000 * 1000 + 1000 + 1000 * 300 + 300
    assert net.nbytes == 4 * net.parameter_count
    assert not np.array_equal(DeepNet([4, 3, 2], seed=1).arrays()["weight0"], DeepNet([4, 3, 2]).arrays()["weight0"])


# Fitting


@pytest.mark.parametrize("optimizer", [lambda: AdamW(cosine(1e-2, 640)), lambda: SGD(cosine(0.2, 640), momentum=0.9, nesterov=True)])
def test_it_learns_what_a_linear_net_cannot(optimizer):
    x, labels = problem(2500)
    net = DeepNet([6, 64, 32, 3], dropout=0.1, seed=5)
    net.fit(x[:2000], labels[:2000], validation=(x[2000:], labels[2000:]), epochs=20, batch_size=64, optimizer=optimizer())
    linear = DeepNet([6, 3]).fit(x[:2000], labels[:2000], validation=(x[2000:], labels[2000:]), epochs=5)
    assert net.history[-1].validation_accuracy > 0.85
    assert linear.history[-1].validation_accuracy < 0.6
    right = net.logits(x[2000:]).argmax(1) == labels[2000:]
    assert net.history[-1].validation_accuracy == right.mean()
    assert net.history[-1].validation_loss == pytest.approx(ops.cross_entropy(net.logits(x[2000:]), labels[2000:])[0], rel=1e-5)
    assert [record.epoch for record in net.history] == list(range(1, 21))
    assert net.history[-1].step == 20 * 32
    assert net.history[-1].train_loss < net.history[0].train_loss


def test_the_same_seed_gives_the_same_bits_and_another_seed_others():
    x, labels = problem(300)

    def fit(seed, **keywords):
        augment = lambda x, t, rng: (x + rng.standard_normal(x.shape, np.float32) * np.float32(0.1), t)  # noqa: E731
        return DeepNet([6, 33, 17, 3], dropout=0.3, seed=seed).fit(x, labels, epochs=2, augment=augment, ema=0.9, **keywords)

    first, again, other = fit(7), fit(7), fit(8)
    assert all(np.array_equal(a, b) for a, b in zip(first.arrays().values(), again.arrays().values()))
    assert [record.train_loss for record in first.history] == [record.train_loss for record in again.history]
    assert not np.array_equal(first.arrays()["weight1"], other.arrays()["weight1"])
    assert first.describe() == again.describe() != other.describe()


def test_a_step_is_the_optimizers_on_the_gradients():
    """One batch, no standardisation: the whole of `fit`."""
    x, labels = problem(50)
    net = DeepNet([6, 9, 3], dropout=0.5, seed=2)
    arrays = net.arrays()
    key = int(np.random.SeedSequence(2).generate_state(1, np.uint64)[0])
    layers = Layers([6, 9, 3], "relu", 0.5, 0.0, key)
    order = np.random.default_rng(np.random.SeedSequence(2, spawn_key=(0,))).permutation(50)
    outs = layers.forward(arrays, x[order], 0)
    loss, dy = ops.cross_entropy(outs[-1], labels[order])
    gradients = layers.backward(arrays, outs, dy, 0)
    net.fit(x, labels, epochs=1, batch_size=50, optimizer=SGD(0.1), standardise=None)
    for name, array in net.arrays().items():
        assert np.allclose(array, arrays[name] - 0.1 * gradients[name], rtol=1e-6, atol=1e-8)
    assert net.history[0].train_loss == pytest.approx(loss)


def test_rows_of_weight_0_do_not_matter():
    x, labels = problem(128)
    weights = (np.arange(128) % 2).astype(np.float32)
    wrong = np.where(weights == 0, (labels + 1) % 3, labels)
    nets = [DeepNet([6, 20, 3]).fit(x, given, epochs=2, sample_weight=weights) for given in (labels, wrong)]
    assert all(np.array_equal(a, b) for a, b in zip(*(net.arrays().values() for net in nets)))


def test_augment_sees_raw_rows_of_the_set_and_a_generator():
    x, labels = problem(100)
    seen = []

    def augment(batch, labels, rng):
        assert isinstance(rng, np.random.Generator)
        seen.append(batch.copy())
        return np.zeros_like(batch), labels

    net = DeepNet([6, 8, 3]).fit(x, labels, epochs=1, batch_size=30, augment=augment)
    assert sorted(map(tuple, np.concatenate(seen))) == sorted(map(tuple, x))
    still = DeepNet([6, 8, 3])
    still.mean, still.scale = net.mean, net.scale
    still.fit(np.zeros_like(x), labels, epochs=1, batch_size=30)
    assert all(np.array_equal(a, b) for a, b in zip(net.arrays().values(), still.arrays().values()))


def test_the_average_of_the_weights_is_what_is_kept():
    x, labels = problem(64)
    plain, averaged = (
        DeepNet([6, 8, 3], seed=1).fit(x, labels, epochs=3, batch_size=64, optimizer=SGD(0.1), ema=ema) for ema in (None, 0.2)
    )
    steps = [DeepNet([6, 8, 3], seed=1).fit(x, labels, epochs=e, batch_size=64, optimizer=SGD(0.1)).arrays()["weight0"] for e in range(4)]
    want = steps[0]
    for step in range(3):
        decay = min(0.2, (2 + step) / (11 + step))
        want = decay * want + (1 - decay) * steps[step + 1]
    assert np.array_equal(plain.arrays()["weight0"], steps[3])
    assert_within_roundings(averaged.arrays()["weight0"], want, 8)  # three steps of three operations


@pytest.mark.parametrize("monitor", ["loss", "accuracy"])
def test_patience_stops_and_keeps_the_best_epoch(monitor):
    x, labels = problem(60)
    held_out = problem(200, seed=1)
    net = DeepNet([6, 300, 3]).fit(
        x, labels, validation=held_out, epochs=200, batch_size=20, optimizer=AdamW(5e-3), patience=4, monitor=monitor
    )
    history = net.history
    values = [r.validation_loss if monitor == "loss" else -r.validation_accuracy for r in history]
    assert history.stopped_early
    assert history.best_epoch == int(np.argmin(values)) + 1
    assert len(history) == history.best_epoch + 4 < 200
    y = net.logits(held_out[0])
    best = ops.cross_entropy(y, held_out[1])[0] if monitor == "loss" else -(y.argmax(1) == held_out[1]).mean()
    assert best == pytest.approx(min(values), rel=1e-5)


def test_without_patience_the_last_weights_are_kept():
    x, labels = problem(60)
    fit = {"epochs": 30, "batch_size": 20, "optimizer": AdamW(5e-3)}
    watched = DeepNet([6, 300, 3]).fit(x, labels, validation=problem(200, seed=1), **fit)
    assert watched.history.best_epoch < 30
    assert np.array_equal(watched.logits(x), DeepNet([6, 300, 3]).fit(x, labels, **{**fit, "optimizer": AdamW(5e-3)}).logits(x))


@pytest.mark.parametrize("standardise", ["each", "all", None])
def test_inputs_are_standardised_as_asked_for(standardise):
    x, labels = problem(500)
    x[:, 1] *= 4
    x[:, 2] = 7  # a constant
    net = DeepNet([6, 4, 3]).fit(x, labels, epochs=0, standardise=standardise)
    if standardise is None:
        assert net.mean is None
        return
    seen = (x - net.mean) * net.scale
    if standardise == "each":
        assert np.allclose(seen.mean(0), 0, atol=1e-5)
        assert np.allclose(seen.std(0), [1, 1, 0, 1, 1, 1], atol=1e-5)
    else:
        assert seen.mean() == pytest.approx(0, abs=1e-5)
        assert seen.std() == pytest.approx(1, rel=1e-5)
        assert len(set(net.mean)) == len(set(net.scale)) == 1
    kept = net.mean
    net.fit(x + 1, labels, epochs=1)
    assert net.mean is kept


@pytest.mark.parametrize("call", [1, 4, 7, 8])
def test_a_fit_that_ctrl_c_stops_goes_on_from_its_checkpoint(tmp_path, call):
    x, labels = problem(100)

    def fit(act=None, **keywords):
        calls = []

        def augment(batch, labels, rng):
            calls.append(batch)
            if act is not None and len(calls) == call:
                act()
            return batch + rng.standard_normal(batch.shape, np.float32), labels

        net = DeepNet([6, 9, 3], dropout=0.3, seed=4)
        keywords = {"epochs": 2, "batch_size": 30, "augment": augment, "validation": problem(40, seed=1), "ema": 0.9} | keywords
        try:
            net.fit(x, labels, standardise="all", **keywords)
        except KeyboardInterrupt:
            assert act is not None
        return net

    whole, path = fit(), tmp_path / "run"
    stopped = fit(lambda: os.kill(os.getpid(), signal.SIGINT), checkpoint=path)
    assert len(stopped.history) == (call - 1) // 4
    assert not np.array_equal(stopped.arrays()["weight0"], DeepNet([6, 9, 3], seed=4).arrays()["weight0"])
    resumed = fit(resume=path, resume_with=["augment"])  # which holds another `act`
    assert resumed.describe() == whole.describe()
    assert [replace(record, seconds=0) for record in resumed.history] == [replace(record, seconds=0) for record in whole.history]


def test_fit_trains_by_the_backend_that_it_is_told(monkeypatch):
    x, labels = problem(50)
    seen, real = set(), ops.linear_dropout
    monkeypatch.setattr(ops, "linear_dropout", lambda *arrays, **keywords: (seen.add(keywords["backend"]), real(*arrays, **keywords))[1])
    DeepNet([6, 4, 3]).fit(x, labels, validation=(x, labels), epochs=1, backend="reference")
    assert seen == {"reference"}


@pytest.mark.parametrize("net", [lambda: DeepNet([6, 4, 3], seed=4), lambda: ConvNet((1, 6), [(4, 2)], 3, seed=4)])
def test_fit_hands_every_argument_to_its_trainer(net, monkeypatch, tmp_path):
    x, labels = problem(50)
    given = {
        "epochs": 3, "batch_size": 7, "optimizer": SGD(0.1), "augment": lambda x, targets, rng: (x, targets), "ema": 0.5, "keep_best": True,
        "patience": 2, "monitor": "accuracy", "checkpoint": tmp_path / "c", "checkpoint_every": 9, "progress": False,
        "backend": "reference",
    }  # fmt: skip
    asked, told, student = {}, {}, net()

    class Seen(layered.Trainer):
        def __init__(self, student, optimizer, **keywords):
            asked.update(keywords, student=student, optimizer=optimizer)
            super().__init__(student, optimizer, **keywords)

        def fit(self, data, validation=None, **keywords):
            told.update(keywords, data=data.x, validation=validation.x)

    monkeypatch.setattr(layered, "Trainer", Seen)
    student.fit(x, labels, validation=(x[:9], labels[:9]), standardise="all", resume="r", resume_with="seed", overwrite=True, **given)
    assert asked == given | {"student": student, "seed": 4, "loss": "cross_entropy", "standardise_inputs": "all", "device": "cpu"}
    assert [told.pop(name).shape for name in ("data", "validation")] == [(50, 6), (9, 6)]
    assert told == {"resume": "r", "resume_with": "seed", "overwrite": True}


def test_a_deep_net_does_what_its_weights_say():
    net = DeepNet([6, 8, 3], seed=1)
    x = np.random.default_rng(0).standard_normal((20, 6), np.float32)
    other = DeepNet([6, 8, 3], seed=2)
    net.set_arrays(**other.arrays())
    assert np.array_equal(net.logits(x), other.logits(x))
    mean, scale = np.float32([1, 2, 3]), np.float32([0.5, 1, 2])
    net.fold(mean, scale)
    np.testing.assert_allclose(net.logits(x), other.logits(x) * scale + mean, rtol=1e-5, atol=1e-6)
    net.set_arrays(**other.arrays())
    net.set_standardisation(np.full(6, 0.5), np.full(6, 2.0))
    np.testing.assert_allclose(net.logits(x), other.logits((x - np.float32(0.5)) * 2), rtol=1e-5, atol=1e-6)
    net.set_standardisation(None, None)
    assert np.array_equal(net.logits(x), other.logits(x))
    for scale in (None, np.ones(5)):
        with pytest.raises(ValueError, match="scale: expected "):
            net.set_standardisation(np.zeros(6), scale)
    with pytest.raises(ValueError, match="arrays: expected names among weight0, bias0, weight1, bias1, got 'V'"):
        net.set_arrays(V=np.zeros(3))
    with pytest.raises(ValueError, match=r"bias0: expected shape \(8,\), got \(9,\)"):
        net.set_arrays(weight0=np.zeros((8, 6)), bias0=np.zeros(9))
    assert np.array_equal(net.logits(x), other.logits(x))


def test_it_is_silent_when_output_is_no_terminal(capfd):
    assert not sys.stderr.isatty()
    DeepNet([6, 4, 3]).fit(*problem(50), epochs=2)
    assert capfd.readouterr() == ("", "")


# What goes wrong


def test_a_loss_that_turns_nan_stops_with_the_step_and_keeps_the_last_good_epoch():
    x, labels = problem(96)
    schedule = lambda step: 0.01 if step < 4 else 1e30  # noqa: E731
    good = DeepNet([6, 8, 3]).fit(x, labels, epochs=1, batch_size=32, optimizer=SGD(0.01))
    net = DeepNet([6, 8, 3])
    with (
        pytest.raises(TrainingDivergedError, match=r"diverged at step 6: expected a finite loss, got (nan|inf)"),
        np.errstate(all="ignore"),
    ):
        net.fit(x, labels, epochs=9, batch_size=32, optimizer=SGD(schedule))
    assert len(net.history) == 1
    assert np.array_equal(net.logits(x), good.logits(x))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"x": np.zeros((4, 5), np.float32)}, ValueError, "x: expected at least one row of 6 inputs"),
        ({"x": np.zeros((4, 6), np.int32)}, TypeError, "x: expected dtype float32 or float64, got int32"),
        ({"x": np.full((4, 6), np.nan)}, ValueError, "x: expected finite values, got nan in row 0"),
        ({"labels": np.array([0, 1, 2, 3])}, ValueError, r"labels: expected values in \[0, 3\), got \[0, 3\]"),
        ({"labels": np.zeros(4)}, TypeError, "labels: expected an integer dtype, got float64"),
        ({"labels": np.zeros(3, int)}, ValueError, "labels: expected shape"),
        ({"x": np.zeros((0, 6), np.float32), "labels": np.zeros(0, int)}, ValueError, "x: expected at least one row"),
        ({"validation": (np.zeros((2, 5), np.float32), np.zeros(2, int))}, ValueError, "validation: expected at least one row of 6 inputs"),
        ({"epochs": -1}, ValueError, "epochs: expected an int in"),
        ({"batch_size": 0}, ValueError, "batch_size: expected an int in"),
        ({"ema": 1.0}, ValueError, r"ema: expected a number in \[0, 1\) or None, got 1.0"),
        ({"patience": 3}, ValueError, "validation: expected rows and labels, as keep_best and patience watch them, got None"),
        ({"keep_best": True}, ValueError, "validation: expected rows and labels, as keep_best and patience watch them, got None"),
        ({"monitor": "recall"}, ValueError, "monitor: expected 'loss' or 'accuracy', got 'recall'"),
        ({"standardise": "some"}, ValueError, "standardise: expected True, False, 'each', 'all' or None, got 'some'"),
        ({"sample_weight": np.ones(3, np.float32)}, ValueError, "sample_weight: expected shape"),
    ],
)
def test_fit_refuses_bad_arguments(change, error, message):
    net = DeepNet([6, 4, 3])
    with pytest.raises(error, match=message):
        net.fit(**{"x": np.zeros((4, 6), np.float32), "labels": np.zeros(4, int), "epochs": 1, **change})


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        (([6],), ValueError, r"layer_sizes: expected \[D, hidden units ..., C\], got \[6\]"),
        (([6, 0, 3],), ValueError, "layer_sizes: expected an int in"),
        (([6, 2.5, 3],), TypeError, "layer_sizes: expected an int, got float"),
        (([6, 3], "swish"), ValueError, "activation: expected one of"),
        (([6, 3], "relu", 1.0), ValueError, r"dropout: expected a probability in \[0, 1\), got 1.0"),
        (([6, 3], "relu", 0.0, -0.1), ValueError, "input_dropout: expected a probability"),
        (([6, 3], "relu", 0.0, 0.0, -1), ValueError, "seed: expected an int in"),
    ],
)
def test_a_net_refuses_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        DeepNet(*arguments)


@pytest.mark.parametrize(
    ("x", "error"), [(np.zeros((2, 5), np.float32), ValueError), (np.zeros((2, 6), int), TypeError), (((0.0,) * 6,), TypeError)]
)
def test_logits_refuse_what_are_no_rows(x, error):
    with pytest.raises(error, match="x: expected"):
        DeepNet([6, 3]).logits(x)


# Files


@pytest.mark.parametrize("standardise", ["each", None])
def test_a_saved_net_is_the_same_net(tmp_path, standardise):
    x, labels = problem(100)
    net = DeepNet([6, 8, 3], "gelu", 0.25, 0.125, seed=2**64 - 1).fit(x, labels, epochs=1, standardise=standardise)
    net.save(tmp_path / "net.safetensors")
    again = DeepNet.load(tmp_path / "net.safetensors")
    assert repr(again) == repr(net)
    assert np.array_equal(again.logits(x), net.logits(x))
    assert again.describe() == net.describe()
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


def test_other_files_are_no_nets(tmp_path):
    path = tmp_path / "f"
    net = DeepNet([6, 8, 3])
    net.save(path)
    whole = path.read_bytes()
    damaged = [whole[:100], whole[:-4], b"", whole.replace(b"layer_sizes", b"layer_sixes")]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(FileFormatError, match=r"path: '.*f': expected"):
            DeepNet.load(path)
    Student(6, 8, 3).save(path)
    with pytest.raises(FileFormatError, match="expected a deepnet"):
        DeepNet.load(path)
    metadata = {"kind": "deepnet", "configuration": net.configuration(), "input_standardisation": {"mean": [0.0], "scale": [1.0]}}
    write_safetensors(path, net.arrays(), metadata)
    with pytest.raises(FileFormatError, match=r"mean: expected shape \(6,\), got"):
        DeepNet.load(path)
    write_safetensors(path, {**net.arrays(), "weight0": np.zeros((8, 5), np.float32)}, {**metadata, "input_standardisation": None})
    with pytest.raises(FileFormatError, match=r"got: weight0: expected 'float32 \(8, 6\)', got 'float32 \(8, 5\)'$"):
        DeepNet.load(path)
    with pytest.raises(FileNotFoundError):
        DeepNet.load(tmp_path / "nothing")


def test_augment_of_fit_draws_from_a_stream_of_its_own():
    x, labels = problem(60)
    draws = []
    DeepNet([6, 4, 3], seed=7).fit(
        x, labels, epochs=1, batch_size=30, augment=lambda rows, labels, rng: (draws.append(rng.standard_normal(4)), (rows, labels))[1]
    )
    for first, draw in zip((0, 30), draws, strict=True):
        stream = np.random.default_rng(np.random.SeedSequence(7, spawn_key=(0, first)))
        assert np.array_equal(draw, stream.standard_normal(4))


def test_the_description_tells_weights_and_standardisations_apart():
    net = DeepNet([6, 8, 3])
    seen = [net.describe()["sha256"]]
    ones = np.ones(6, np.float32)
    for mean, scale in ((ones, ones), (2 * ones, ones), (ones, 2 * ones)):
        net.set_standardisation(mean, scale)
        seen.append(net.describe()["sha256"])
    net.set_arrays(bias1=np.ones(3))
    seen.append(net.describe()["sha256"])
    assert len(set(seen)) == len(seen)
    net.set_arrays(bias1=np.zeros(3))
    net.set_standardisation(None, None)
    assert net.describe()["sha256"] == seen[0]
