"""New images from old ones: flips, crops and mixtures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.generators import demand_called, keep
from .cifar10_images import PIXELS, SHAPE


@dataclass(frozen=True)
class Crop:
    """A generator of cases, for images in three colours: each new one is a piece of the old one, mirrored at its borders, or flipped.

    Parameters
    ----------
    shift : along each axis, one of the whole numbers in [-shift, shift] pixels; at most 31
    flip : whether half of the images are turned left to right
    mixup : share of images that are mixed, in random parts, with the one before (Zhang et al. 2018): only a teacher can label these
    """

    shift: int = 4
    flip: bool = True
    mixup: float = 0.0

    def __post_init__(self) -> None:
        keep(self, "shift", _check.integer("shift", self.shift, 0, SHAPE[1]))
        keep(self, "mixup", _check.number("mixup", self.mixup, 0, most=1))

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """New images (B, 3072) float32 of the images x."""
        images = demand_called(x, rng, PIXELS).reshape(-1, *SHAPE)
        n, s = len(images), self.shift
        padded = np.pad(images, ((0, 0), (0, 0), (s, s), (s, s)), "reflect")
        pieces = np.lib.stride_tricks.sliding_window_view(padded, SHAPE[1:], axis=(2, 3))
        down, right = rng.integers(0, 2 * s + 1, (2, n))
        new: Array = pieces[np.arange(n), :, down, right]
        if self.flip:
            turned = rng.random(n) < 0.5
            new[turned] = new[turned, :, :, ::-1]
        if self.mixup:
            rows = np.flatnonzero(rng.random(n) < self.mixup)
            mixed = new[rows] + rng.random((len(rows), 1, 1, 1), np.float32) * (new[rows - 1] - new[rows])
            new[rows] = mixed
        return np.ascontiguousarray(new.reshape(n, PIXELS))
