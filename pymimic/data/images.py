"""New images from old ones: each turned, stretched, slanted, shifted and distorted by a map of its own, thickened, blended, stitched."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np

from .. import _check
from ..backends.interface import Array
from .generators import demand_called, differences_held, keep

_PIXELS = 32 * 28 * 28  # of images made at once: what is held of them fits the cache
_KEPT = 0.999  # of the variance of elastic displacements, which few waves make
_OF_28 = {"shift": 2.0, "elastic": 1.3, "sigma": 5.0}  # defaults in pixels for images of 28 x 28, in proportion for others


@dataclass(frozen=True)
class Deform:
    """A generator of cases, for square images: each new one is an old one, looked at through a smooth random map of its own.

    The map turns, slants, stretches and shifts the image about its centre, and distorts it elastically. Values are interpolated linearly
    between pixels; outside an image they are 0. Then shares of the images are made thicker or thinner, blended with another of the batch,
    or stitched together with it: blends and stitches are no longer of one class, and only a teacher can label them.

    Parameters
    ----------
    side : pixels of a row of the image, and of a column; D = side * side, pixels row by row
    degrees : rotation, uniform in [-degrees, degrees]
    stretch : scale along each axis, uniform in [1 - stretch, 1 + stretch], and slant, uniform in [-stretch, stretch]
    shift : along each axis, uniform in [-shift, shift] pixels; None: 2 pixels for a side of 28, and in proportion for others
    elastic : root mean square of a smooth random displacement (Simard et al. 2003), in pixels along each axis; None: 1.3 for a side of 28,
        and in proportion for others
    sigma : of elastic displacements: they are white noise smoothed by a Gaussian of that deviation, in pixels; None: 5 for a side of 28,
        and in proportion for others
    thicken : share of images that are mixed, in random parts, with their own dilation or erosion by 3 x 3 pixels
    blend : share of images that are mixed, in random parts, with another of the batch
    stitch : share of images whose left or upper part, up to a random line in the middle half, is that of another

    Raises
    ------
    TypeError, ValueError
        An argument of the wrong kind or out of range. When called: x is not (B, side * side) floats; rng is no generator of NumPy's.
    """

    side: int
    degrees: float = 15.0
    stretch: float = 0.15
    shift: float | None = None
    elastic: float | None = None
    sigma: float | None = None
    thicken: float = 0.0
    blend: float = 0.0
    stitch: float = 0.0

    def __post_init__(self) -> None:
        keep(self, "side", _check.integer("side", self.side, 1, 1 << 15))
        keep(self, "degrees", _check.number("degrees", self.degrees, 0, most=180))
        keep(self, "stretch", _check.number("stretch", self.stretch, 0, 1))
        for name in ("shift", "elastic"):
            keep(self, name, _check.number(name, self._pixels(name), 0, float32=True))
        keep(self, "sigma", _check.number("sigma", self._pixels("sigma"), above=0, float32=True))
        for name in ("thicken", "blend", "stitch"):
            keep(self, name, _check.number(name, getattr(self, name), 0, most=1))
        if self.blend + self.stitch > 1:
            raise ValueError(f"stitch: expected at most {1 - self.blend:g} beside blend = {self.blend}, got {self.stitch}")

    def __call__(self, x: Array, rng: np.random.Generator) -> Array:
        """New images (B, side * side) float32 of the images x; ValueError where float32 does not hold two pixels' difference."""
        pixels = self.side**2
        x = demand_called(x, rng, pixels)
        new = np.empty((len(x), pixels), np.float32)
        rows = max(1, _PIXELS // pixels)
        with np.errstate(over="ignore", invalid="ignore"):  # values that are not finite are refused afterwards
            for start in range(0, len(x), rows):
                new[start : start + rows] = self._moved(x[start : start + rows], rng)
            if self.thicken:
                _thicken(new.reshape(-1, self.side, self.side), rng, self.thicken)
            if self.blend or self.stitch:
                new = self._mixed(new, rng)
        return differences_held(new, x)

    def _pixels(self, name: str) -> float:
        """A setting in pixels; where it is None, in proportion to the side."""
        given: float | None = getattr(self, name)
        return _OF_28[name] * self.side / 28 if given is None else given

    def _moved(self, x: Array, rng: np.random.Generator) -> Array:
        n, side, shift, elastic = len(x), self.side, self._pixels("shift"), self._pixels("elastic")
        centre = (side - 1) / 2
        # where each pixel of the new image comes from in the old one, and one further down and right: there a border of zeros begins
        at = _maps(n, rng, math.radians(self.degrees), self.stretch) @ _grid(side)
        at += (rng.uniform(-shift, shift, (n, 2, 1)) + centre + 1).astype(np.float32)
        if elastic:
            waves = _waves(side, self._pixels("sigma"))
            heights = rng.standard_normal((n, 2, waves.shape[1], waves.shape[1]), np.float32) * np.float32(elastic)
            at += (waves @ heights @ waves.T).reshape(n, 2, -1)
        np.clip(at, 0, side + np.float32(0.999), out=at)  # pixels outside are 0, so that they are no special case
        wide = side + 2
        padded = np.zeros((n, wide, wide), np.float32)
        padded[:, 1:-1, 1:-1] = x.reshape(n, side, side)
        corner = at.astype(np.int32)
        at -= corner
        index = corner[:, 0] * wide
        index += corner[:, 1]
        index += np.arange(0, n * wide * wide, wide * wide, dtype=np.int32)[:, None]
        flat, down, right = padded.reshape(-1), at[:, 0], at[:, 1]
        above, below = flat.take(index, mode="clip"), flat[wide:].take(index, mode="clip")
        above += right * (flat[1:].take(index, mode="clip") - above)
        below += right * (flat[wide + 1 :].take(index, mode="clip") - below)
        below -= above
        below *= down
        above += below
        return above

    def _mixed(self, x: Array, rng: np.random.Generator) -> Array:
        """Some images blended with the one before, others stitched to it."""
        kind, part, mixed = rng.random(len(x)), rng.random((len(x), 1), np.float32), x.copy()
        rows = np.flatnonzero(kind < self.blend)
        mixed[rows] += part[rows] * (x[rows - 1] - x[rows])
        rows = np.flatnonzero(kind >= 1 - self.stitch)
        along = np.indices((self.side, self.side)).reshape(2, -1)[rng.integers(2, size=len(rows))]  # rows or columns
        mixed[rows] = np.where(along < self.side * (0.25 + 0.5 * part[rows]), x[rows - 1], x[rows])
        return mixed


@functools.cache
def _grid(side: int) -> Array:
    """(2, pixels) float32: row and column of each pixel, from the centre."""
    grid = np.indices((side, side)).reshape(2, -1) - (side - 1) / 2
    return grid.astype(np.float32)


@functools.cache
def _waves(side: int, sigma: float) -> Array:
    """A (side, few) float32: A z A^T of white noise z is white noise smoothed by a Gaussian, of variance 1."""
    apart = np.subtract.outer(np.arange(side), np.arange(side))
    values, vectors = np.linalg.eigh(np.exp(-np.square(apart / (2 * sigma))))  # of the smoothed field's correlations; in ascending order
    few = int(np.searchsorted(np.cumsum(values[::-1]), _KEPT * values.sum())) + 1
    waves = vectors[:, ::-1][:, :few] * np.sqrt(values[::-1][:few])
    return np.asarray(waves * math.sqrt(side / np.square(waves).sum()), np.float32)


def _maps(n: int, rng: np.random.Generator, angle: float, stretch: float) -> Array:
    """(n, 2, 2) float32: rotation after slant after scale."""
    turn, scale, slant = rng.uniform(-angle, angle, n), rng.uniform(1 - stretch, 1 + stretch, (2, n)), rng.uniform(-stretch, stretch, n)
    cos, sin = np.cos(turn), np.sin(turn)
    maps = np.array([[cos * scale[0], (cos * slant - sin) * scale[1]], [sin * scale[0], (sin * slant + cos) * scale[1]]])
    return maps.transpose(2, 0, 1).astype(np.float32)


def _thicken(images: Array, rng: np.random.Generator, share: float) -> None:
    """Mix some of the images (n, side, side) with their dilation, or erosion, in random parts; in place."""
    rows = np.flatnonzero(rng.random(len(images)) < share)
    signs = rng.choice(np.array([-1, 1], np.float32), (len(rows), 1, 1))  # erosion is dilation of the background
    padded = np.pad(images[rows] * signs, ((0, 0), (1, 1), (1, 1)), "edge")
    most = np.maximum(np.maximum(padded[:, :-2], padded[:, 1:-1]), padded[:, 2:])
    most = np.maximum(np.maximum(most[:, :, :-2], most[:, :, 1:-1]), most[:, :, 2:])
    images[rows] += rng.random((len(rows), 1, 1), np.float32) * (most * signs - images[rows])
