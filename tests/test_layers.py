"""A deep stack of layers: its gradients, and the masks and keys of its dropout."""

import numpy as np
import pytest

from pymimic import ops
from pymimic.backends import reference
from pymimic.backends.interface import Mask
from pymimic.numerics import philox4x32
from pymimic.training.layers import Layers, layer_key

SIZES = [7, 13, 40, 5]


def stack(activation, dropout, input_dropout, seed=11):
    """Layers, float64 weights, and a batch; relu's gates are far from 0 for these steps."""
    rng = np.random.default_rng(seed)
    layers = Layers(SIZES, activation, dropout, input_dropout, seed)
    arrays = {name: rng.standard_normal(shape) * 0.5 for name, shape in layers.shapes.items()}
    return layers, arrays, rng.standard_normal((19, SIZES[0])), rng.integers(0, SIZES[-1], 19), rng


def loss_and_gradients(layers, arrays, x, labels, step):
    outs = layers.forward(arrays, x, step)
    loss, dy = ops.cross_entropy(outs[-1], labels)
    return loss, layers.backward(arrays, outs, dy, step)


@pytest.mark.parametrize("dropouts", [(0.0, 0.0), (0.5, 0.25)])
def test_gradients_are_finite_differences(activation, dropouts):
    layers, arrays, x, labels, rng = stack(activation, *dropouts)
    _, gradients = loss_and_gradients(layers, arrays, x, labels, 4)
    assert set(gradients) == set(arrays)
    for name, array in arrays.items():
        direction = rng.standard_normal(array.shape)
        near = [{**arrays, name: array + sign * 1e-6 * direction} for sign in (1, -1)]
        above, below = (loss_and_gradients(layers, moved, x, labels, 4)[0] for moved in near)
        assert np.vdot(gradients[name], direction) == pytest.approx((above - below) / 2e-6, rel=2e-6, abs=1e-9), name


def test_gradients_are_torchs(torch, activation):
    """With torch's own layers, and the reference's masks."""
    layers, arrays, x, labels, _ = stack(activation, 0.5, 0.25)
    functions = {
        "relu": torch.relu,
        "identity": lambda a: a,
        "tanh": torch.tanh,
        "sigmoid": torch.sigmoid,
        "gelu": torch.nn.functional.gelu,
    }
    leaves = {name: torch.tensor(array, requires_grad=True) for name, array in arrays.items()}

    def masked(h, layer, keep):
        kept = reference.multiplier(h.shape, Mask(keep, layer_key(11, layer), 4), np.dtype(np.float64))
        return h * torch.tensor(kept)

    h = masked(torch.tensor(x), 3, 192)
    for i in range(3):
        h = torch.nn.functional.linear(h, leaves[f"weight{i}"], leaves[f"bias{i}"])
        h = masked(functions[activation](h), i, 128) if i < 2 else h
    want = torch.nn.functional.cross_entropy(h, torch.tensor(labels))
    want.backward()
    loss, gradients = loss_and_gradients(layers, arrays, x, labels, 4)
    assert loss == pytest.approx(want.item(), rel=1e-12)
    for name, leaf in leaves.items():
        assert np.allclose(gradients[name], leaf.grad.numpy(), rtol=1e-10, atol=1e-13), name


def test_masks_are_the_references_with_a_key_for_each_layer():
    sizes, seed, step = [45, 70, 33, 4], 2**63 + 12345, 9
    layers = Layers(sizes, "identity", 0.5, 0.25, seed)
    arrays = {name: np.ones(shape, np.float32) for name, shape in layers.shapes.items()}
    outs = layers.forward(arrays, np.ones((50, 45), np.float32), step)
    words = [philox4x32(np.array([i, 0, 0, 0], np.uint32), (seed % 2**32, seed // 2**32)) for i in range(4)]
    keys = [int(w[0]) + 2**32 * int(w[1]) for w in words]
    assert keys == [layer_key(seed, i) for i in range(4)]
    assert len(set(keys)) == 4
    for out, key, keep in ((outs[0], keys[3], 192), (outs[1], keys[0], 128), (outs[2], keys[1], 128)):
        kept = reference.dropout_bytes(*out.shape, Mask(keep, key, step)) < keep
        assert np.array_equal(out != 0, kept)
    assert (outs[3] != 0).all()
    other = layers.forward(arrays, np.ones((50, 45), np.float32), step + 1)
    assert not np.array_equal(outs[1] != 0, other[1] != 0)
    assert all((out != 0).all() for out in layers.forward(arrays, np.ones((50, 45), np.float32)))
