"""Nets of torch for images: a deep one, and the shallow one behind a front of convolution and pooling. Needs torch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..backends.interface import Array
from ..data.cases import Cases
from ..demo.students import Training
from ..torch import DistillationLoss, MimicLoss, MimicNet

_PATCHES = 20_000  # of which a front's first filters are made
_EPSILON = 0.1  # of whitening patches, in units of their mean variance
_EPSILON_V = 0.05  # of whitening what V sees, in its units, as in Student.initialise_bottleneck
_PART = 256  # rows that go through a front at once


class Standardise(nn.Module):
    """(x - mean) * scale for each colour of images (B, colours, height, width), by the means and deviations of a sample (N, D)."""

    mean: Tensor
    scale: Tensor

    def __init__(self, colours: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(colours))
        self.register_buffer("scale", torch.ones(colours))

    def begin(self, images: Tensor) -> None:
        """Take mean and scale from images."""
        self.mean.copy_(images.mean((0, 2, 3)))
        self.scale.copy_(1 / images.std((0, 2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        """The same shape."""
        y: Tensor = (x - self.mean[:, None, None]) * self.scale[:, None, None]
        return y


def deep(shape: tuple[int, ...], outputs: int, widths: list[int], stride: int, dropout: float) -> nn.Sequential:
    """A convolutional teacher: five layers of four widths, each with batch normalisation and relu; the first at a stride of 1 or 2."""
    first, second, third, fourth = widths
    layers: list[nn.Module] = [Standardise(shape[0])]
    layers += [*_convolution(shape[0], first, 5, stride), *([nn.MaxPool2d(2)] if stride == 1 else [])]
    layers += [*_convolution(first, second, 3), nn.MaxPool2d(2)]
    layers += [*_convolution(second, third, 3), *_convolution(third, third, 3), nn.MaxPool2d(2), *_convolution(third, fourth, 3)]
    layers += [nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(fourth, outputs)]
    return nn.Sequential(nn.Unflatten(1, shape), *layers)


def shallow(
    shape: tuple[int, ...], outputs: int, filters: int, kernel: int, stride: int, pool: int, rank: int, hidden: int, dropout: float,
    seed: int,
) -> nn.Sequential:  # fmt: skip
    """The shallow net: pixels, or one convolution with relu and mean pooling if there are filters, then V, U, b, W and c."""
    front: list[nn.Module] = []
    inputs = math.prod(shape)
    if filters:
        front = [nn.Conv2d(shape[0], filters, kernel, stride), nn.ReLU(), nn.AvgPool2d(pool)]
        inputs = filters * math.prod(((side - kernel) // stride + 1) // pool for side in shape[1:])
    mimic = MimicNet(inputs, hidden, outputs, rank, dropout=dropout, seed=seed)
    return nn.Sequential(nn.Unflatten(1, shape), Standardise(shape[0]), *front, nn.Flatten(), mimic)


def begin(net: nn.Sequential, x: Array, seed: int) -> None:
    """Let a net's fresh weights know a sample of rows x (N, D): its standardisation, its filters and its bottleneck.

    Filters of a shallow net are random whitened patches and their negatives (Coates & Ng 2011), V is PCA of what comes before it, whitened.
    """
    rows = torch.from_numpy(x)
    with torch.no_grad(), torch.random.fork_rng():
        torch.manual_seed(seed % (1 << 63))
        for i, layer in enumerate(net):
            if isinstance(layer, Standardise):
                layer.begin(net[:i](rows))
            elif isinstance(layer, nn.Conv2d) and isinstance(net[-1], MimicNet):
                _set_filters(layer, net[:i](rows), np.random.default_rng(seed))
            elif isinstance(layer, MimicNet):
                _set_bottleneck(layer, torch.cat([net[:i](part) for part in rows.split(_PART)]))


def fit(net: nn.Sequential, cases: Cases, how: Training, seed: int, device: str = "cpu") -> None:
    """Train it by AdamW: the rate rises over a tenth of the steps and falls along a cosine; biases and the like have no weight decay."""
    rng, loss = np.random.default_rng(seed), _loss(how)
    steps = how.epochs * -(-len(cases) // how.batch_size)
    wide = [weights for weights in net.parameters() if weights.dim() > 1]
    rest = [weights for weights in net.parameters() if weights.dim() == 1]
    arranged(net).to(device).train()
    optimizer = torch.optim.AdamW(
        [{"params": wide, "weight_decay": how.weight_decay}, {"params": rest, "weight_decay": 0.0}], how.learning_rate, (0.9, how.beta2),
        fused=True,
    )  # fmt: skip
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, how.learning_rate, steps, pct_start=0.1, cycle_momentum=False)
    with torch.random.fork_rng():
        torch.manual_seed(seed % (1 << 63))
        for _ in range(how.epochs):
            for rows in np.array_split(rng.permutation(len(cases)), steps // how.epochs):
                x, targets, _ = cases.batch(rows)
                new = x if how.augment is None else how.augment(x, rng)
                optimizer.zero_grad()
                value = loss(net(torch.from_numpy(new).to(device)), torch.from_numpy(np.asarray(targets)).to(device))
                value.backward()
                optimizer.step()
                schedule.step()
    net.eval()


def arranged(net: nn.Sequential) -> nn.Sequential:
    """The net with the colours of a pixel side by side, as convolutions on a CPU are fastest."""
    same: nn.Sequential = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return same


def multiply_adds(net: nn.Sequential, inputs: int) -> int:
    """Of one row (D,): a filter's at each of its places."""
    counted: list[int] = []

    def count(layer: nn.Module, _: Any, y: Tensor) -> None:
        places = y[0, 0].numel() if isinstance(layer, nn.Conv2d) else 1
        counted.extend(places * weights.numel() for weights in layer.parameters(recurse=False) if weights.dim() > 1)

    hooks = [layer.register_forward_hook(count) for layer in net.modules()]
    with torch.no_grad():
        net.eval()(next(net.parameters()).new_zeros(1, inputs))
    for hook in hooks:
        hook.remove()
    return sum(counted)


def _convolution(channels: int, filters: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(channels, filters, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(filters), nn.ReLU(inplace=True)]


def _set_filters(layer: nn.Conv2d, images: Tensor, rng: np.random.Generator) -> None:
    """Whiten patches as large as the filters, and let some of them, and their negatives, be the filters."""
    _, _, *size = layer.weight.shape
    corners = [rng.integers(0, side - wide + 1, _PATCHES) for side, wide in zip(images.shape[2:], size)]
    windows = np.lib.stride_tricks.sliding_window_view(images.numpy(), size, axis=(2, 3))
    patches = windows[rng.integers(0, len(images), _PATCHES), :, corners[0], corners[1]].reshape(_PATCHES, -1)
    mean = patches.mean(0)
    values, vectors = np.linalg.eigh(np.cov(patches - mean, rowvar=False))
    whiten = vectors / np.sqrt(values + _EPSILON * values.mean()) @ vectors.T
    half = layer.out_channels // 2
    some = (patches[: layer.out_channels - half] - mean) @ whiten
    some /= np.linalg.norm(some, axis=1, keepdims=True)
    filters = np.concatenate([some, -some[:half]]) @ whiten
    layer.weight.copy_(torch.from_numpy(filters.reshape(layer.weight.shape)))
    if layer.bias is not None:
        layer.bias.copy_(torch.from_numpy(-filters @ mean))


def _set_bottleneck(layer: MimicNet, features: Tensor) -> None:
    """V by PCA, whitened, and b such that hidden units see inputs less their mean."""
    assert layer.V is not None
    assert layer.rank is not None
    _, values, components = torch.pca_lowrank(features, layer.rank)
    layer.V.copy_(components.T / (values.square() / (len(features) - 1) + _EPSILON_V).sqrt()[:, None])
    layer.b.sub_(layer.U @ (layer.V @ features.mean(0)))


def _loss(how: Training) -> Callable[[Tensor, Tensor], Tensor]:
    losses: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "cross_entropy": nn.functional.cross_entropy,
        "mimic": MimicLoss(),
        "distillation": DistillationLoss(how.temperature),
    }
    return losses[how.loss]
