"""Convolutional nets: what a fit promises, what they refuse, and that every net is a teacher."""

import json
import re
import warnings

import numpy as np
import pytest

import pymimic as pm
from pymimic import ConvNet, Convolution
from pymimic.backends import default_host
from pymimic.errors import FileFormatError

# Fitting


def signals(rows, seed=0):
    """A bump of one of three shapes somewhere in noise: the place says nothing."""
    rng = np.random.default_rng(seed)
    shapes = np.float32([[1, 2, 1, 0], [1, -1, 1, -1], [2, 0, 0, 2]])
    labels = rng.integers(0, 3, rows)
    x = rng.standard_normal((rows, 24), np.float32) * np.float32(0.4)
    for row, start in enumerate(rng.integers(0, 21, rows)):
        x[row, start : start + 4] += shapes[labels[row]]
    return x * 3 + 5, labels


def small(seed=0, **keywords):
    return ConvNet((1, 24), [Convolution(16, 5, 2, 2), Convolution(16, 3, 2, 1)], 3, seed=seed, **keywords)


def test_it_learns_what_a_dense_net_learns_worse():
    (x, labels), held_out = signals(300), signals(1000, seed=1)
    fit = {"validation": held_out, "epochs": 20, "batch_size": 32, "ema": 0.9}
    net = small(dropout=0.25).fit(x, labels, optimizer=pm.AdamW(5e-3), **fit)
    dense = pm.DeepNet([24, 256, 3], dropout=0.25).fit(x, labels, optimizer=pm.AdamW(5e-3), **fit)
    assert net.history[-1].validation_accuracy > 0.9
    assert dense.history[-1].validation_accuracy < net.history[-1].validation_accuracy - 0.03
    assert net.score(*held_out) == net.history[-1].validation_accuracy


@pytest.mark.filterwarnings("ignore:net:UserWarning")
def test_the_same_seed_gives_the_same_bits_for_any_number_of_threads_and_another_seed_others(threads):
    x, labels = signals(150)

    def fit(seed, n):
        threads(n)
        return small(seed, dropout=0.5, input_dropout=0.125).fit(x, labels, epochs=2, batch_size=40, ema=0.9)

    first = fit(7, 1)
    for n in (2, 5):
        again = fit(7, n)
        assert again.describe() == first.describe()
        assert np.array_equal(again.logits(x), first.logits(x))
    assert fit(8, 1).describe()["sha256"] != first.describe()["sha256"]


def test_fresh_weights_keep_the_scale_of_the_signal():
    net = ConvNet((3, 16, 16), [(64, 3, 1, 1), (64, 3, 2, 1), (64, 3, 2, 1)], 300)
    x = np.random.default_rng(0).standard_normal((50, net.inputs), np.float32)
    assert 0.5 < net.logits(x).std() < 2
    assert net.parameter_count == 28 * 64 + 2 * (64 * 9 + 1) * 64 + 300 * (64 * 16 + 1)


def test_patience_keeps_the_best_epoch():
    (x, labels), held_out = signals(60), signals(200, seed=1)
    net = small().fit(x, labels, validation=held_out, epochs=200, batch_size=20, optimizer=pm.AdamW(1e-2), patience=4, monitor="accuracy")
    values = [record.validation_accuracy for record in net.history]
    assert net.history.stopped_early
    assert net.score(*held_out) == max(values)


def test_the_best_epoch_is_kept_without_stopping():
    (x, labels), held_out = signals(60), signals(200, seed=1)
    fit = {"validation": held_out, "epochs": 30, "batch_size": 20, "optimizer": pm.AdamW(1e-2), "monitor": "accuracy"}
    net = small().fit(x, labels, keep_best=True, **fit)
    assert len(net.history) == 30
    assert net.score(*held_out) == max(record.validation_accuracy for record in net.history)


def test_it_learns_from_a_teachers_logits():
    x, _ = signals(400)
    teacher = small(1)
    net = ConvNet((1, 24), [(24, 5, 2, 2), (24, 3, 2, 1)], 3, (16,), "gelu")
    history = pm.Trainer(net, pm.AdamW(3e-3), epochs=15, batch_size=32, standardise_inputs=True).fit(pm.TransferSet(x, teacher.logits(x)))
    assert history[-1].train_loss < 0.1 * history[0].train_loss


# Arguments


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"input_shape": (24,)}, ValueError, r"input_shape: expected (channels, length) or (channels, height, width), got [24]"),
        ({"input_shape": (1, 2, 3, 4)}, ValueError, "input_shape: expected (channels, length) or (channels, height, width)"),
        ({"input_shape": 24}, TypeError, "input_shape: expected a sequence of ints, got int"),
        ({"input_shape": (1, 0)}, ValueError, "input_shape: expected an int in"),
        ({"input_shape": (1, 2.5)}, TypeError, "input_shape: expected an int, got float"),
        ({"input_shape": (1 << 20, 1 << 20)}, ValueError, "input_shape: expected an int in"),
        ({"convolutions": []}, ValueError, "convolutions: expected at least one Convolution, got none"),
        ({"convolutions": Convolution(8, 3)}, TypeError, "convolutions: expected a sequence of Convolution, got Convolution("),
        ({"convolutions": 3}, TypeError, "convolutions: expected a sequence of Convolution, got 3"),
        ({"convolutions": [8, 3]}, TypeError, "convolutions[0]: expected a Convolution(channels, kernel, stride=1, padding=0), got 8"),
        ({"convolutions": [(8,)]}, TypeError, "convolutions[0]: expected a Convolution(channels, kernel, stride=1, padding=0), got (8,)"),
        ({"convolutions": [(8, 3), (0, 3)]}, ValueError, "convolutions[1].channels: expected an int in [1, "),
        ({"convolutions": [(8.0, 3)]}, TypeError, "convolutions[0].channels: expected an int, got float"),
        ({"convolutions": [(8, 0)]}, ValueError, "convolutions[0].kernel: expected an int in [1, "),
        ({"convolutions": [(8, "3")]}, TypeError, "convolutions[0].kernel: expected an int, got str"),
        ({"convolutions": [(8, (3, 3))]}, ValueError, "convolutions[0].kernel: expected an int or 1 of them, one for each axis, got"),
        ({"convolutions": [(8, 3, 0)]}, ValueError, "convolutions[0].stride: expected an int in [1, "),
        ({"convolutions": [(8, 3, 1, -1)]}, ValueError, "convolutions[0].padding: expected an int in [0, "),
        ({"convolutions": [(8, 3, 8), (8, 4)]}, ValueError, "convolutions[1].kernel: expected at most [3], the size of the padded"),
        ({"convolutions": [(8, 29, 1, 2)]}, ValueError, "convolutions[0].kernel: expected at most [28], the size of the padded"),
        ({"convolutions": [(1 << 30, 1)]}, ValueError, "convolutions: expected fewer than 2147483648 outputs of the last one, got"),
        ({"outputs": 0}, ValueError, "outputs: expected an int in"),
        ({"hidden": 8}, TypeError, "hidden: expected a sequence of ints, got int"),
        ({"hidden": [0]}, ValueError, "hidden: expected an int in"),
        ({"activation": "swish"}, ValueError, "activation: expected one of"),
        ({"dropout": 1.0}, ValueError, "dropout: expected a probability in [0, 1), got 1.0"),
        ({"input_dropout": -0.1}, ValueError, "input_dropout: expected a probability"),
        ({"seed": -1}, ValueError, "seed: expected an int in"),
    ],
)  # fmt: skip
def test_a_net_refuses_bad_arguments(change, error, message):
    with pytest.raises(error, match="^" + re.escape(message)):
        ConvNet(**{"input_shape": (1, 24), "convolutions": [(8, 3)], "outputs": 3, **change})


def test_one_number_stands_for_all_axes():
    short, long = ConvNet((1, 8, 9), [(4, 3, 2, 1)], 3), ConvNet([1, 8, 9], (Convolution(4, (3, 3), [2, 2], (1, np.int64(1))),), 3, [])
    assert repr(short) == repr(long)
    assert short.describe() == long.describe()
    assert eval(repr(short)).describe() == short.describe()


# Teachers and files


@pytest.mark.parametrize(
    "net",
    [lambda: pm.Student(24, 9, 3, rank=2), lambda: pm.DeepNet([24, 9, 3]), lambda: small(dropout=0.5)],
    ids=["student", "deep", "conv"],
)
def test_every_net_is_a_teacher(net, tmp_path):
    x, labels = signals(50)
    net = net()
    described = net.describe()
    assert json.loads(json.dumps(described)) == described
    assert described["kind"] == net.file_kind
    stored = pm.TransferSet.create(tmp_path / "set", pm.Ensemble([net, net]), x)
    assert np.array_equal(stored.batch(np.arange(50))[1], net.logits(x))
    assert np.array_equal(net.logits(x), net.logits(x, backend=default_host().name))
    right = np.mean(net.logits(x).argmax(1) == labels)
    assert net.score(x, labels) == right
    assert isinstance(net.score(x.astype(np.float64), labels.astype(np.uint8)), float)
    bias = list(net.shapes)[-1]
    net.set_arrays(**{bias: np.float32([0, 100, 0])})
    assert net.describe() != described
    assert net.score(x, np.ones(50, int)) == 1
    for change, error, message in (
        ({"labels": labels + 1}, ValueError, r"labels: expected values in \[0, 3\), got \[1, 3\]"),
        ({"labels": labels[:9]}, ValueError, "labels: expected shape"),
        ({"labels": labels * 1.0}, TypeError, "labels: expected an integer dtype"),
        ({"x": x[:0], "labels": labels[:0]}, ValueError, "x: expected at least one row, got none"),
        ({"x": x[:, :5]}, ValueError, "x: expected shape"),
        ({"x": np.full_like(x, np.nan)}, ValueError, "x: expected finite values"),
    ):
        with pytest.raises(error, match=message):
            net.score(**{"x": x, "labels": labels} | change)


@pytest.mark.filterwarnings("ignore:net:UserWarning")  # one epoch is short
@pytest.mark.parametrize("standardise", ["each", "all", None])
def test_a_saved_net_is_the_same_net(tmp_path, standardise):
    x, labels = signals(100)
    net = small(2**64 - 1, activation="gelu", dropout=0.25, input_dropout=0.125, hidden=(7,)).fit(
        x, labels, epochs=1, standardise=standardise
    )
    net.save(tmp_path / "net.safetensors")
    again = ConvNet.load(tmp_path / "net.safetensors")
    assert repr(again) == repr(net)
    assert np.array_equal(again.logits(x), net.logits(x))
    assert again.describe() == net.describe()
    with pytest.raises(FileFormatError, match="expected a deepnet, got a 'convnet' file"):
        pm.DeepNet.load(tmp_path / "net.safetensors")


@pytest.mark.parametrize(("shape", "meant"), [((8, 8, 3), (3, 8, 8)), ((8, 6, 1), (1, 8, 6)), ((8, 8), (1, 8, 8))])
def test_channels_that_seem_to_be_last_are_pointed_out(shape, meant):
    with pytest.warns(UserWarning, match=r"input_shape: expected .*channels first, got .* it is ") as warned:
        pm.ConvNet(shape, [(4, 1)], 2)
    assert re.search(r"it is (\(.*?\))", str(warned[0].message))[1] == str(meant)
    assert warned[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for right in (meant, (3, 40), (40, 3), (3, 3, 3), (8, 4, 4)):
            pm.ConvNet(right, [(4, 1)], 2)


@pytest.mark.parametrize(
    "net", [pm.ConvNet((1, 6), [(4, 3)], 3), pm.DeepNet([6, 4, 3]), pm.Student(6, 4, 3)], ids=lambda net: net.file_kind
)
def test_every_net_predicts_by_the_same_names(net):
    x = np.random.default_rng(0).standard_normal((20, 6))
    y = np.exp(net.logits(x).astype(float))
    assert np.array_equal(net.predict(x), net.logits(x))
    np.testing.assert_allclose(net.predict_proba(x), y / y.sum(axis=1, keepdims=True), rtol=1e-5)


def test_true_standardises_each_input_and_false_none():
    x, labels = np.random.default_rng(0).random((20, 6), np.float32), np.arange(20) % 3
    for given, same in ((True, "each"), (False, None)):
        one, other = (pm.DeepNet([6, 4, 3]).fit(x, labels, epochs=1, standardise=how, progress=False) for how in (given, same))
        assert one.describe() == other.describe()
