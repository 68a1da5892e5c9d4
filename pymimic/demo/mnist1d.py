"""MNIST-1D (Greydanus 2020, arXiv 2011.14439): ten short curves, hidden in rows of 40 samples, made here and now.

Templates and constants are those of the package `mnist1d` 0.0.2 (github.com/greydanus/mnist1d, Apache-2.0), which makes the same rows one
at a time, from NumPy's global generator; importing it takes seconds, as it imports matplotlib and requests. A test compares the two.
"""

from __future__ import annotations

import numpy as np

from ..backends.interface import Array

SAMPLES = 40  # D
_TEMPLATES = np.array([  # of the classes 0 to 9
    [5, 6, 6.5, 6.75, 7, 7, 7, 7, 6.75, 6.5, 6, 5],
    [5, 3, 3, 3.4, 3.8, 4.2, 4.6, 5, 5.4, 5.8, 5, 5],
    [5, 6, 6.5, 6.5, 6, 5.25, 4.75, 4, 3.5, 3.5, 4, 5],
    [5, 6, 6.5, 6.5, 6, 5, 5, 6, 6.5, 6.5, 6, 5],
    [5, 4.4, 3.8, 3.2, 2.6, 2.6, 5, 5, 5, 5, 5, 5],
    [5, 3, 3, 3, 3, 5, 6, 6.5, 6.5, 6, 4.5, 5],
    [5, 4, 3.5, 3.25, 3, 3, 3, 3, 3.25, 3.5, 4, 5],
    [5, 7, 7, 6.6, 6.2, 5.8, 5.4, 5, 4.6, 4.2, 5, 5],
    [5, 4, 3.5, 3.5, 4, 5, 5, 4, 3.5, 3.5, 4, 5],
    [5, 4, 3.5, 3.5, 4, 5, 5, 5, 5, 4.7, 4.3, 5],
])  # fmt: skip
_PADDING = (36, 60)  # zeros behind a template, from .. to: the more, the shorter the curve is in the row
_TRANSLATIONS = 48  # the row is rolled by 0 to 47 samples
_SCALE = 0.4  # width of the interval around 1 that amplitudes come from
_SHEAR = 0.75  # width of the interval around 0 that slopes come from
_CORRELATED_NOISE, _SMOOTHNESS = 0.25, 2.0  # where the curve is not: white noise of that deviation, smoothed by a Gaussian
_NOISE = 0.02  # white, everywhere
_LONG = _TEMPLATES.shape[1] + _PADDING[1]  # samples of a row before it is resampled to 40
_MEAN, _DEVIATION = -0.0061, 0.1547  # of all samples, over five million rows
_CHUNK = 2048  # rows made at once: they fit the cache


def rows(count: int, stream: np.random.SeedSequence) -> tuple[Array, Array]:
    """That many rows x (N, 40) float32, of mean 0 and deviation 1 over all samples, and their classes (N,) int64, as many of each."""
    rng = np.random.default_rng(stream)
    labels = rng.permutation(np.arange(count) % len(_TEMPLATES))
    x = np.empty((count, SAMPLES), np.float32)
    for start in range(0, count, _CHUNK):
        x[start : start + _CHUNK] = _rows(labels[start : start + _CHUNK], rng)
    return x, labels


def _rows(labels: Array, rng: np.random.Generator) -> Array:
    n = len(labels)
    padding, roll = rng.integers(len(_IS_CURVE), size=n), rng.integers(_TRANSLATIONS, size=n)
    amplitude = 1 + _SCALE * (rng.random((n, 1), np.float32) - 0.5)
    slope = _SHEAR * (rng.random((n, 1), np.float32) - 0.5)
    noise = rng.standard_normal((2, n, _LONG), np.float32)
    long = np.where(_IS_CURVE[padding, _LONG - roll], amplitude * _CURVES[labels, padding, _LONG - roll], noise[0] @ _SMOOTH)
    long += np.float32(_NOISE) * noise[1]
    long -= slope * np.linspace(-0.5, 0.5, _LONG, dtype=np.float32)
    return np.asarray((long @ _RESAMPLE - np.float32(_MEAN)) / np.float32(_DEVIATION))


def _interpolation(positions: Array, length: int) -> Array:
    """The matrix (length, positions) that takes samples at 0, 1, ... to linear interpolations at those positions."""
    return np.stack([np.interp(positions, np.arange(length), unit) for unit in np.eye(length)])


def _smoothing(length: int) -> Array:
    """The matrix of a Gaussian filter that sees rows mirrored at their ends and is cut off at 4 deviations, as SciPy's."""
    reach = round(4 * _SMOOTHNESS)
    kernel = np.exp(-0.5 * np.square(np.arange(-reach, reach + 1) / _SMOOTHNESS))
    mirrored = np.pad(np.eye(length), ((reach, reach), (0, 0)), "symmetric")
    seen = np.lib.stride_tricks.sliding_window_view(mirrored, len(kernel), axis=0)
    return np.asarray((seen @ (kernel / kernel.sum())).T)


def _curves() -> tuple[Array, Array]:
    """(classes, paddings, rolls + 1, samples) of each curve in a long row, and (paddings, rolls + 1, samples) where it is in it."""
    templates = _TEMPLATES - _TEMPLATES.mean(axis=1, keepdims=True)
    templates = (templates - templates[:, :1]) / templates.std(axis=1, keepdims=True) / 6  # they begin and end at 0
    length = templates.shape[1]
    positions = [np.arange(_LONG) * ((length + zeros - 1) / (_LONG - 1)) for zeros in range(_PADDING[0], _PADDING[1] + 1)]
    curves = np.stack([templates @ _interpolation(at, _LONG)[:length] for at in positions], axis=1)
    is_curve = np.stack([at < length for at in positions])
    every_roll = [np.lib.stride_tricks.sliding_window_view(np.tile(a, 2), _LONG, axis=-1) for a in (curves.astype(np.float32), is_curve)]
    return every_roll[0], every_roll[1]


_CURVES, _IS_CURVE = _curves()
_SMOOTH = (_CORRELATED_NOISE * _smoothing(_LONG)).astype(np.float32)
_RESAMPLE = _interpolation(np.linspace(0, _LONG - 1, SAMPLES), _LONG).astype(np.float32)
