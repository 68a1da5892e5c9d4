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


# Times that a tensor core cuts a sum off towards zero, for each product in it.
CUTS = {"bf16": 1 / 16, "fp16": 1 / 16, "tf32": 1 / 8, "fp32": 0}


def product(a: np.ndarray, b: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """a b, and twice the error that a sum in float32 is likely to have.

    A random walk of roundings, of sums that walk too; and, as cuts all go one way, half a unit in the last place for each.
    """
    terms, value = a.shape[1], a @ b
    walk = 2 * 2.0**-24 * (4 + terms**0.5) * np.sqrt((a * a) @ (b * b))
    return value, walk + 2.0**-24 * CUTS[precision] * terms * np.abs(value)


class Rounded(NamedTuple):
    """Values as the kernels round them, and how far theirs may lie from it: they may round to the other side."""

    value: np.ndarray
    error: np.ndarray


def within(value: np.ndarray, reach: np.ndarray, precision: str) -> Rounded:
    """`value` rounded, where the kernels round something within `reach` of it."""
    low, middle, high = (rounded(x, precision) for x in (value - reach, value, value + reach))
    return Rounded(middle, np.maximum(high - middle, middle - low))


def pre_activation(z: np.ndarray, U: np.ndarray, b: np.ndarray, precision: str) -> tuple[np.ndarray, np.ndarray]:
    """z U^T + b and its bound."""
    a, error = product(z, U.T, precision)
    return a + b, error + 2.0**-23 * (np.abs(a + b) + np.abs(b))


# How far f may lie from its value beside roundings, where it is made for 16 bits: kernels/hidden/activate_16bit.cuh.
APPROXIMATE = {"relu": 0.0, "identity": 0.0, "tanh": 2.0**-21, "sigmoid": 2.0**-21, "gelu": 2.0**-21}


def hidden(a: np.ndarray, a_error: np.ndarray, activation: Activation, kept: np.ndarray, precision: str) -> Rounded:
    """h from the pre-activation."""
    # no activation is steeper than 1.13; 16 roundings inside it
    approximate = APPROXIMATE[activation] if precision in ("bf16", "fp16") else 0.0
    reach = (1.13 * a_error + 2.0**-20 * np.minimum(1, np.abs(a)) + approximate) * kept
    return within(reference.activate(a, activation)[0] * kept, reach, precision)


def forward(
    z: np.ndarray, U: np.ndarray, b: np.ndarray, W: np.ndarray, c: np.ndarray, activation: Activation, mask: Mask, precision: str
) -> tuple[np.ndarray, np.ndarray]:
    """y and its bound, from the operands that the kernel reads."""
    z, U, W = (rounded(x, precision) for x in (z, U, W))
    b, c = b.astype(np.float64), c.astype(np.float64)
    a, a_error = pre_activation(z, U, b, precision)
    h, h_error = hidden(a, a_error, activation, reference.multiplier(a.shape, mask, a.dtype), precision)
    y, error = product(h, W, precision)
    return y + c, error + other_side(h_error, W) + 2.0**-23 * (np.abs(y) + np.abs(c)) + 1e-30


def other_side(error: np.ndarray, factor: np.ndarray) -> np.ndarray:
    """What `error`, of either sign in each element, does to a product."""
    return 4 * np.sqrt((error * error) @ (factor * factor))


class Gradients(NamedTuple):
    """Each with its bound."""

    dz: tuple[np.ndarray, np.ndarray]
    dU: tuple[np.ndarray, np.ndarray]  # noqa: N815
    db: tuple[np.ndarray, np.ndarray]
    dW: tuple[np.ndarray, np.ndarray]  # noqa: N815


def backward(
    dy: np.ndarray, z: np.ndarray, U: np.ndarray, b: np.ndarray, W: np.ndarray, activation: Activation, mask: Mask, precision: str
) -> Gradients:
    """From the operands that the kernels read; db sums da before it is rounded."""
    dy, z, U, W = (rounded(x, precision) for x in (dy, z, U, W))
    a, a_error = pre_activation(z, U, b.astype(np.float64), precision)
    kept = reference.multiplier(a.shape, mask, a.dtype)
    h, h_error = hidden(a, a_error, activation, kept, precision)
    dh, dh_error = product(dy, W.T, precision)
    slope, lower, upper = (reference.activate(x, activation)[1] for x in (a, a - a_error, a + a_error))
    slope_error = np.maximum(abs(lower - slope), abs(upper - slope)) + (0 if activation in ("relu", "identity") else 2.0**-20)
    reach = (dh_error * np.abs(slope) + (np.abs(dh) + dh_error) * slope_error) * kept
    exact = dh * slope * kept
    da, da_error = within(exact, reach, precision)
    ones = np.ones((1, len(a)))

    def summed(left: np.ndarray, error: np.ndarray, right: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        value, bound = product(left, right, precision)
        return value, bound + other_side(error, right) + 1e-30

    db, db_error = summed(exact.T, reach.T, ones.T)
    return Gradients(summed(da, da_error, U), summed(da.T, da_error.T, z), (db[:, 0], db_error[:, 0]), summed(h.T, h_error.T, dy))
