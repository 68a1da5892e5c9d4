"""The shallow kernels in float64, rounding where they round, and how far float32 sums may lead them from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from emulator import ELEMENTS

from pymimic.backends import reference
from pymimic.backends.interface import Activation, Mask


def rounded(values: np.ndarray, precision: str) -> np.ndarray:
    """To the type of the precision's operands, by way of float32."""
    return values.astype(np.float32).astype(ELEMENTS[precision]).astype(np.float64)


def product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a b, and twice the error that a sum in float32 is likely to have: a random walk of roundings, of sums that walk too."""
    return a @ b, 2 * 2.0**-24 * (4 + a.shape[1] ** 0.5) * np.sqrt((a * a) @ (b * b))


class Hidden(NamedTuple):
    """h as the kernels round it, and how far theirs may lie from it: they may round to the other side."""

    h: np.ndarray
    error: np.ndarray


def hidden(z: np.ndarray, U: np.ndarray, b: np.ndarray, activation: Activation, mask: Mask, precision: str) -> Hidden:
    """z and U as rounded operands."""
    a, a_error = product(z, U.T)
    a, a_error = a + b, a_error + 2.0**-23 * (np.abs(a) + np.abs(b))
    kept = reference.multiplier(a.shape, mask, a.dtype)
    h = reference.activate(a, activation)[0] * kept
    # no activation is steeper than 1.13; 16 roundings inside it
    reach = (1.13 * a_error + 2.0**-20 * np.minimum(1, np.abs(a))) * kept
    low, middle, high = (rounded(x, precision) for x in (h - reach, h, h + reach))
    return Hidden(middle, np.maximum(high - middle, middle - low))


def forward(
    z: np.ndarray, U: np.ndarray, b: np.ndarray, W: np.ndarray, c: np.ndarray, activation: Activation, mask: Mask, precision: str
) -> tuple[np.ndarray, np.ndarray]:
    """y and its bound, from operands in the precision's type."""
    z, U, b, W, c = (x.astype(np.float64) for x in (z, U, b, W, c))
    h, h_error = hidden(z, U, b, activation, mask, precision)
    y, error = product(h, W)
    other_side = 4 * np.sqrt((h_error * h_error) @ (W * W))
    return y + c, error + other_side + 2.0**-23 * (np.abs(y) + np.abs(c)) + 1e-30
