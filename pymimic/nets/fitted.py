"""Weights fitted to rows by closed formulas: W by least squares, and integers whose errors the weights still to be rounded make good."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..backends.interface import Activation, Array, quantised
from ..data.moments import mean_and_spread
from ..ops import shallow_forward
from ..progress import Progress
from .fewer import Weights, bottleneck, hidden
from .integers import LARGEST, Integers, integers

_RIDGE = 1e-2  # of covariances, over their mean variance
_ROWS = 4096  # of a matrix at once


def fitted(
    weights: Weights, activation: Activation, x: Array, target: Array, bits: int | None = None, progress: bool = False
) -> tuple[Weights, Array | None]:
    """The net with W and c such that y comes near `target` over the rows, by least squares; with `bits` W is rounded as it is fitted.

    Hidden units are taken some after the others, each time what is still missing to the target is fitted, with a ridge.

    Parameters
    ----------
    x : (N, D) float32 rows that the net sees, standardised
    target : (N, C)

    Returns
    -------
    The weights, and with `bits` the scale of each row of W.
    """
    z, W = bottleneck(weights, x), weights["W"].astype(np.float64)
    wide = (weights[name] for name in "UbWc")
    missing = target - shallow_forward(z, *wide, activation=activation).astype(np.float64)
    steps = np.zeros(len(W), np.float32)
    bar = Progress(total=len(W), desc="fitting W", unit="unit", disable=None if progress else True)
    with bar:
        for here, h in hidden(weights, activation, z):
            mean, spread = mean_and_spread(h, _RIDGE)
            part = W[here] + np.linalg.solve(spread, (h - mean).T @ missing / len(h))
            if bits is not None:
                part, steps[here] = _rounded_rows(part, spread, LARGEST[bits])
            missing -= h @ (part - W[here])
            W[here] = part
            bar.update(len(part))
    c = weights["c"] + missing.mean(axis=0)
    return weights | {"W": W.astype(np.float32), "c": c.astype(np.float32)}, None if bits is None else steps


def rounded(
    weights: Weights, activation: Activation, bits: int, x: Array | None, target: Array | None, progress: bool = False
) -> tuple[Weights, dict[str, Integers]]:
    """The net with V, U and W as integers of so many bits times a scale a row; returns b and c, and those integers.

    Without rows x and a target each weight is rounded to the nearest. With them V and U are rounded column by column, and W unit by unit;
    each time the columns or units that are still to come are changed so that what the rows lose is least (Frantar et al. 2023, GPTQ). What
    is lost on average goes into b and c, and W is fitted to the target beforehand.
    """
    names = [name for name in "VUW" if name in weights]
    if x is None or target is None:
        return weights, {name: integers(weights[name], bits) for name in names}
    steps: dict[str, Array] = {}
    for name in names[:-1]:
        mean, spread = mean_and_spread(x if name == "V" else bottleneck(weights, x), _RIDGE)
        old = weights[name].astype(np.float64)
        steps[name] = np.abs(weights[name]).max(axis=1) / np.float32(LARGEST[bits])
        new = _rounded_columns(old, spread, steps[name], LARGEST[bits])
        lost = (old - new) @ mean
        b = weights["b"] + (weights["U"] @ lost if name == "V" else lost)
        weights = weights | {name: new.astype(np.float32), "b": b.astype(np.float32)}
    weights, scale = fitted(weights, activation, x, target, bits, progress)
    assert scale is not None
    return weights, {name: integers(weights[name], bits, step) for name, step in {**steps, "W": scale}.items()}


def _rounded_rows(matrix: Array, spread: Array, most: int) -> tuple[Array, Array]:
    """W (H, C) in float64, as integers times a scale a row, and those scales."""
    steps = np.zeros(len(matrix), np.float32)

    def nearest(i: int, row: Array) -> Array:
        values, steps[i : i + 1] = quantised(row[None].astype(np.float32), None, most)
        return np.asarray(values[0] * steps[i])

    return _fed_back(matrix, spread, nearest), steps


def _rounded_columns(matrix: Array, spread: Array, steps: Array, most: int) -> Array:
    """V or U in float64, as integers times these scales."""
    new = np.empty_like(matrix)
    for start in range(0, len(matrix), _ROWS):
        here = slice(start, start + _ROWS)

        def nearest(_: int, column: Array, scale: Array = steps[here]) -> Array:
            return np.asarray(quantised(column[:, None].astype(np.float32), scale, most)[0][:, 0] * scale)

        new[here] = _fed_back(matrix[here].T, spread, nearest).T
    return new


def _fed_back(matrix: Array, spread: Array, nearest: Callable[[int, Array], Array]) -> Array:
    """The matrix with row after row rounded by `nearest`, and the rows after each changed to make good for it.

    `spread` (rows, rows) is the covariance of what the matrix is multiplied by, and can be inverted.
    """
    new, upper = matrix.copy(), np.linalg.cholesky(np.linalg.inv(spread)).T
    for i in range(len(new)):
        kept = nearest(i, new[i])
        new[i + 1 :] -= np.outer(upper[i, i + 1 :], (new[i] - kept) / upper[i, i])
        new[i] = kept
    return new
