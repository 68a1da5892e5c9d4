"""Convolutions: what nets of them compute, their gradients, any shape, and how much memory they take."""

import itertools
import math
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import pymimic as pm
from pymimic import ConvNet, Convolution, ops
from pymimic.backends import default_host, reference
from pymimic.training.convolution import ConvolutionLayers, Windows

NETS = {
    "1-D": {"input_shape": (2, 13), "convolutions": [Convolution(5, 3), Convolution(4, 4, 2, 1)]},
    "1-D, gaps between windows": {"input_shape": (3, 11), "convolutions": [Convolution(4, 2, 3), Convolution(3, 1, 2, 1)], "hidden": (6,)},
    "2-D": {"input_shape": (2, 6, 7), "convolutions": [Convolution(4, 3, 1, 1), Convolution(3, (3, 2), (2, 1), (0, 1))]},
    "2-D, kernel as wide as the image": {"input_shape": (1, 4, 5), "convolutions": [(3, (1, 5)), (4, (2, 3), 2, (0, 1))], "hidden": [8, 7]},
    "2-D, tall kernels and strides of 4": {"input_shape": (1, 12, 9), "convolutions": [(3, (5, 2), (1, 4)), (2, (6, 1), (1, 4), (0, 1))]},
}


def layers(case, activation="relu", dropout=0.0, input_dropout=0.0, seed=11):
    shape = {"hidden": (), **NETS[case]}
    return ConvolutionLayers(**shape, outputs=5, activation=activation, dropout=dropout, input_dropout=input_dropout, seed=seed)


def problem(case, **keywords):
    """Layers, float64 weights, and a batch."""
    rng = np.random.default_rng(0)
    stack = layers(case, **keywords)
    arrays = {name: rng.standard_normal(shape) * 0.5 for name, shape in stack.shapes.items()}
    return stack, arrays, rng.standard_normal((9, stack.inputs)), rng.integers(0, 5, 9), rng


def by_loops(stack, arrays, x, activation="relu"):
    """The definition, one output at a time, in float64; channels come first."""
    h = np.asarray(x, np.float64).reshape(len(x), *stack.input_shape)
    for i, w in enumerate(stack.windows):
        weight = np.asarray(arrays[f"weight{i}"], np.float64).reshape(-1, *w.kernel, w.channels)
        padded = np.pad(h, [(0, 0), (0, 0), *((p, p) for p in w.padding)])
        out = np.empty((len(x), len(weight), *w.out))
        for at in itertools.product(range(len(x)), range(len(weight)), *map(range, w.out)):
            row, channel, *place = at
            total = float(arrays[f"bias{i}"][channel])
            for offset in itertools.product(*map(range, w.kernel)):
                seen = padded[(row, slice(None), *(p * s + o for p, s, o in zip(place, w.stride, offset)))]
                total += float(weight[(channel, *offset)] @ seen)
            out[at] = total
        h = reference.activate(out, activation)[0]
    h = np.moveaxis(h, 1, -1).reshape(len(x), -1)
    first, last = len(stack.windows), len(stack.shapes) // 2 - 1
    for i in range(first, last + 1):
        h = h @ np.asarray(arrays[f"weight{i}"], np.float64).T + arrays[f"bias{i}"]
        h = reference.activate(h, activation)[0] if i < last else h
    return h


def loss_and_gradients(stack, arrays, x, labels, step=4):
    outs = stack.forward(arrays, x, step, 16)
    loss, dy = ops.cross_entropy(outs[-1], labels)
    return loss, stack.backward(arrays, outs, dy, step, 16)


# What they compute


@pytest.mark.parametrize("case", NETS)
def test_logits_are_the_definition(case, activation):
    net = ConvNet(**NETS[case], outputs=5, activation=activation, dropout=0.5, input_dropout=0.25, seed=3)
    rng = np.random.default_rng(1)
    x = rng.standard_normal((6, net.inputs), np.float32)
    net.set_arrays(**{name: rng.standard_normal(shape) * 0.5 for name, shape in net.shapes.items()})
    mean, scale = rng.standard_normal(net.inputs), 1 + rng.random(net.inputs)
    net.set_standardisation(mean, scale)
    want = by_loops(layers(case), net.arrays(), (x - mean) * scale, activation)
    got = net.logits(x)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-4)
    assert np.array_equal(net.logits(x.astype(np.float64)), got)
    assert net.logits(x[:0]).shape == (0, 5)


@pytest.mark.parametrize("case", NETS)
@pytest.mark.parametrize("dropouts", [(0.0, 0.0), (0.5, 0.25)], ids=["plain", "dropout"])
def test_gradients_are_finite_differences(case, activation, dropouts):
    stack, arrays, x, labels, rng = problem(case, activation=activation, dropout=dropouts[0], input_dropout=dropouts[1])
    _, gradients = loss_and_gradients(stack, arrays, x, labels)
    assert list(stack.shapes) == list(arrays)
    assert gradients.keys() == arrays.keys()
    for name, array in arrays.items():
        direction = rng.standard_normal(array.shape)
        above, below = (loss_and_gradients(stack, {**arrays, name: array + sign * 1e-6 * direction}, x, labels)[0] for sign in (1, -1))
        assert np.vdot(gradients[name], direction) == pytest.approx((above - below) / 2e-6, rel=5e-6, abs=1e-9), name


@pytest.mark.parametrize("case", NETS)
def test_logits_and_gradients_are_torchs(torch, case, activation):
    """In float64, which torch convolves without oneDNN, whose float32 is not to be relied on here."""
    stack, arrays, x, labels, _ = problem(case, activation=activation)
    functions = {"identity": lambda a: a, "gelu": torch.nn.functional.gelu}
    f = functions.get(activation) or getattr(torch, activation)
    leaves = {name: torch.tensor(array, dtype=torch.float64, requires_grad=True) for name, array in arrays.items()}
    h = torch.tensor(x, dtype=torch.float64).reshape(len(x), *stack.input_shape)
    for i, w in enumerate(stack.windows):
        convolve = torch.nn.functional.conv1d if len(w.kernel) == 1 else torch.nn.functional.conv2d
        weight = leaves[f"weight{i}"].reshape(-1, *w.kernel, w.channels).movedim(-1, 1)
        h = f(convolve(h, weight, leaves[f"bias{i}"], w.stride, w.padding))
    h, first, last = h.movedim(1, -1).reshape(len(x), -1), len(stack.windows), len(stack.shapes) // 2 - 1
    for i in range(first, last + 1):
        h = torch.nn.functional.linear(h, leaves[f"weight{i}"], leaves[f"bias{i}"])
        h = f(h) if i < last else h
    torch.nn.functional.cross_entropy(h, torch.tensor(labels)).backward()
    np.testing.assert_allclose(stack.forward(arrays, x)[-1], h.detach().numpy(), rtol=1e-10, atol=1e-12)
    for name, gradient in loss_and_gradients(stack, arrays, x, labels)[1].items():
        np.testing.assert_allclose(gradient, leaves[name].grad.numpy(), rtol=1e-10, atol=1e-13, err_msg=name)


def test_dropout_masks_what_dense_layers_and_the_first_convolution_see():
    """With a key for each, after those of the layers."""
    stack, arrays, x, _, _ = problem("1-D, gaps between windows", dropout=0.5, input_dropout=0.25)
    keys = [pm.training.layers.layer_key(11, i) for i in range(6)]
    plain, outs = stack.forward(arrays, x), stack.forward(arrays, x, 4, 16)
    seen = ops.dropout(x, 0.25, seed=keys[5], offset=4, origin=(16, 0))
    assert np.array_equal(outs[0], seen.reshape(9, 3, 11).transpose(0, 2, 1))
    features = outs[2].reshape(9, -1)
    assert np.array_equal(outs[3], ops.dropout(features, 0.5, seed=keys[4], offset=4, origin=(16, 0)))
    hidden = ops.linear_dropout(outs[3], arrays["weight2"], arrays["bias2"], dropout=0.5, seed=keys[2], offset=4, origin=(16, 0))
    assert np.array_equal(outs[4], hidden)
    assert np.array_equal(plain[2].reshape(9, -1), plain[3])


# Windows


@st.composite
def windows(draw):
    def one(low, high, count):
        return draw(st.lists(st.integers(low, high), min_size=count, max_size=count))

    axes = draw(st.integers(1, 2))
    size, kernel, stride, padding = one(1, 7, axes), one(1, 5, axes), one(1, 6, axes), one(0, 3, axes)
    kernel = [min(k, n + 2 * p) for k, n, p in zip(kernel, size, padding)]
    return Windows(tuple(size), draw(st.integers(1, 3)), Convolution(1, kernel, stride, padding))


@given(windows(), st.integers(0, 3), st.sampled_from([np.float32, np.float64]))
def test_windows_are_what_a_kernel_sees_and_sums_their_transpose(w, rows, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((rows, *w.size, w.channels)).astype(dtype)
    patches = w.patches(x)
    assert patches.dtype == dtype
    assert patches.flags.c_contiguous
    padded = np.pad(x, [(0, 0), *((p, p) for p in w.padding), (0, 0)])
    axes = tuple(range(1, len(w.size) + 1))
    every = np.lib.stride_tricks.sliding_window_view(padded, w.kernel, axes)[(slice(None), *(slice(None, None, s) for s in w.stride))]
    want = np.moveaxis(every, len(w.size) + 1, -1)
    assert want.shape[1 : 1 + len(w.size)] == w.out
    assert np.array_equal(patches, want.reshape(-1, w.columns) if rows else np.empty((0, w.columns)))
    other = rng.standard_normal(patches.shape).astype(dtype)
    sums = w.sums(other)
    assert sums.shape == x.shape
    assert np.vdot(sums, x) == pytest.approx(np.vdot(other, patches), rel=1e-4, abs=1e-4)
    ones = np.ones_like(patches)
    assert np.array_equal(w.sums(ones), w.sums(ones).astype(int))  # each input counts the windows that see it


@pytest.mark.filterwarnings("ignore:net:UserWarning")  # one epoch is short
@given(windows(), st.lists(st.integers(1, 5), max_size=2))
def test_any_shape_computes_and_learns(w, hidden):
    net = ConvNet((w.channels, *w.size), [(3, w.kernel, w.stride, w.padding), (2, 1)], 4, hidden)
    assert net.inputs == w.channels * math.prod(w.size)
    x = np.random.default_rng(0).standard_normal((7, net.inputs), np.float32)
    net.fit(x, np.arange(7) % 4, epochs=1, batch_size=3, optimizer=pm.SGD(0.01))
    assert np.isfinite(net.logits(x)).all()
    assert net.parameter_count == sum(array.size for array in net.arrays().values())


@pytest.mark.parametrize("case", NETS)
def test_blocks_of_rows_change_nothing(monkeypatch, case):
    """Windows are laid out for some rows at a time."""
    stack, arrays, x, labels, _ = problem(case, dropout=0.5)
    whole = loss_and_gradients(stack, arrays, x, labels)
    monkeypatch.setattr("pymimic.training.convolution._BLOCK_BYTES", 2000)
    parts = loss_and_gradients(stack, arrays, x, labels)
    assert parts[0] == pytest.approx(whole[0], rel=1e-12)
    for name, gradient in whole[1].items():
        np.testing.assert_allclose(parts[1][name], gradient, rtol=1e-10, atol=1e-13, err_msg=name)


@pytest.mark.skipif(default_host().name == "reference", reason="NumPy's products do not promise it")
def test_a_rows_logits_have_the_same_bits_in_any_batch_slab_and_block(monkeypatch):
    net = ConvNet(**NETS["2-D"], outputs=7, seed=1)
    x = np.random.default_rng(0).standard_normal((200, net.inputs), np.float32)
    want = net.logits(x)
    assert np.array_equal(np.concatenate([net.logits(x[i : i + 1]) for i in range(30)]), want[:30])
    monkeypatch.setattr("pymimic.training.layered._MOST_ROWS", 37)
    monkeypatch.setattr("pymimic.training.convolution._BLOCK_BYTES", 9000)
    assert np.array_equal(net.logits(x), want)


@pytest.mark.skipif(sys.platform != "linux", reason="the most memory that a process has held is read from /proc")
def test_memory_of_logits_does_not_grow_with_the_rows():
    script = """
import sys
import numpy as np
from pymimic import ConvNet
from pymimic.bench.memory import peak_bytes

net = ConvNet((1, 28, 28), [(16, 3, 1, 1), (16, 3, 2, 1)], 10)
x = np.zeros((int(sys.argv[1]), 784), np.float32)
x += 1
net.logits(x[:300])
before = peak_bytes()
net.logits(x)
print((peak_bytes() - before) >> 20)
"""

    def growth(rows):
        return int(
            subprocess.run([sys.executable, "-c", script, str(rows)], check=True, capture_output=True, text=True, timeout=200).stdout
        )

    few, many = growth(1000), growth(8000)
    assert many < few + 8, (few, many)  # MiB; the windows alone of the second convolution take 900 of all rows
