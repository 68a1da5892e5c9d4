"""New images from old ones, for a teacher to label: small random turns, stretches, slants and shifts."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..backends.interface import Array

_ROWS = 4096  # images deformed at once: some 100 MiB of temporaries at 28 x 28


def deformed(x: Array, copies: int, seed: int, *, degrees: float, stretch: float, shift: float) -> Iterator[Array]:
    """Yield `copies` versions of square images x, each image deformed by an affine map of its own around its centre.

    Values are interpolated linearly between pixels; outside an image they are 0.

    Parameters
    ----------
    x : (N, side * side) float32 array, pixels row by row
    copies : how many (N, side * side) arrays to yield
    seed : copy i draws from numpy.random.SeedSequence(seed, spawn_key=(i,))
    degrees : rotation, uniform in [-degrees, degrees]
    stretch : scale along each axis, uniform in [1 - stretch, 1 + stretch], and slant, uniform in [-stretch, stretch]
    shift : along each axis, uniform in [-shift, shift] pixels
    """
    for i in range(copies):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(i,)))
        parts = (x[start : start + _ROWS] for start in range(0, len(x), _ROWS))
        yield np.concatenate([_deform(part, rng, np.deg2rad(degrees), stretch, shift) for part in parts])


def _deform(x: Array, rng: np.random.Generator, angle: float, stretch: float, shift: float) -> Array:
    n, side = len(x), round(np.sqrt(x.shape[1]))
    turn = rng.uniform(-angle, angle, n)
    scale = rng.uniform(1 - stretch, 1 + stretch, (n, 2, 1))
    slant = rng.uniform(-stretch, stretch, n)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]]).transpose(2, 0, 1)
    shear = np.tile(np.eye(2), (n, 1, 1))
    shear[:, 0, 1] = slant
    centre = (side - 1) / 2
    grid = np.indices((side, side)).reshape(2, -1) - centre
    # where each pixel of the new image comes from in the old one: (n, 2, pixels), rows and columns
    source = (rotation @ shear * scale) @ grid + centre + rng.uniform(-shift, shift, (n, 2, 1))
    # a border of zeros, so that what lies outside is 0 and needs no cases
    padded = np.zeros((n, side + 2, side + 2), np.float32)
    padded[:, 1:-1, 1:-1] = x.reshape(n, side, side)
    source = np.clip(source + 1, 0, side + 0.999).astype(np.float32)
    corner = source.astype(np.int32)
    down, right = (source - corner.astype(np.float32)).transpose(1, 0, 2)
    index = corner[:, 0] * (side + 2) + corner[:, 1] + np.arange(n, dtype=np.int32)[:, None] * (side + 2) ** 2
    flat = padded.reshape(-1)
    above = flat[index] * (1 - right) + flat[index + 1] * right
    below = flat[index + side + 2] * (1 - right) + flat[index + side + 3] * right
    mixed: Array = above * (1 - down) + below * down
    return mixed
