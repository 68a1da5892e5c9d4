"""The shallow kernels in float64, rounding where they round, and how far float32 sums may lead them from it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from emulator import ELEMENTS

from pymimic.backends import reference
from pymimic.backends.interface import Activation, Mask


def rounded(values: np.ndarray, precision: str) -> np.ndarray:
    """To what the precision's products see of a value, by way of float32."""
    narrow = values.astype(np.float32).astype(ELEMENTS[precision])
    if precision == "tf32":  # to nearest, halves away from zero
        narrow = ((narrow.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)
    return narrow.astype(np.float64)


def product(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """a b, and twice the error that a sum in float32 is likely to have: a random walk of roundings, of sums that walk too."""
    return a @ b, 2 * 2.0**-24 * (4 + a.shape[1] ** 0.5) * np.sqrt((a * a) @ (b * b))


class Hidden(NamedTuple):
    """h as the kernels round it, and how far theirs may lie from it: they may round to the other side."""

    h: np.ndarray
    error: np.ndarray


def hidden(z: np.ndarray, U: np.ndarray, b: np.ndarray, activation: Activation, mask: Mask, precision: str) -> Hidden:
    """z and U are rounded already."""
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
    """y and its bound, from the operands that the kernel reads."""
    z, U, W = (rounded(x, precision) for x in (z, U, W))
    b, c = b.astype(np.float64), c.astype(np.float64)
    h, h_error = hidden(z, U, b, activation, mask, precision)
    y, error = product(h, W)
    other_side = 4 * np.sqrt((h_error * h_error) @ (W * W))
    return y + c, error + other_side + 2.0**-23 * (np.abs(y) + np.abs(c)) + 1e-30
