"""Weights that are integers times a scale a row, as `pymimic.compress` makes them: their check, and how files keep them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from .. import _check
from ..backends.interface import Array, quantised
from ..differences import differences

LARGEST = {8: 127, 4: 7}
"""The largest integer of so many bits; the least is its negative."""

Shapes = Mapping[str, tuple[int, ...]]
Integers = tuple[Array, Array]
"""Values (rows, columns) int8, and the scale of each row (rows,) float32."""


class Rounding(NamedTuple):
    """What makes integers of a net's matrices again, each of which is `product` of integers and scales."""

    bits: int  # 8 or 4
    steps: dict[str, Array]  # the scale of each row, (rows,) float32


def matrices(shapes: Shapes) -> list[str]:
    """The names of those that are rounded: all but biases."""
    return [name for name, shape in shapes.items() if len(shape) == 2]


def product(integers: Integers) -> Array:
    """The weights, float32."""
    values, steps = integers
    with np.errstate(over="ignore"):
        return np.asarray(values * steps[:, None], np.float32)


def integers(matrix: Array, bits: int, steps: Array | None = None) -> Integers:
    """The nearest integers of so many bits times a scale a row; `steps` (rows,) are the scales, or None for the rows' own."""
    values, steps = quantised(matrix, steps, LARGEST[bits])
    return values.astype(np.int8), steps


def demand_integers(bits: int, given: Mapping[str, Integers], shapes: Shapes) -> None:
    """Demand integers of so many bits for each matrix, and scales that are finite and not below 0."""
    if _check.integer("bits", bits, 4, 9) not in LARGEST:
        raise ValueError(f"bits: expected 8 or 4, got {bits!r}")
    names = matrices(shapes)
    if given.keys() != set(names):
        raise ValueError(f"integers: expected those of {', '.join(names)}, got {', '.join(given) or 'none'}")
    for name in names:
        _demand_integers(LARGEST[bits], name, given[name], shapes[name])


def _demand_integers(most: int, name: str, integers: Integers, shape: tuple[int, ...]) -> None:
    values, steps = (_check.host_array(name, array) for array in integers)
    for what, array, dtype, wanted in (("integers", values, "int8", shape), ("scales", steps, "float32", shape[:1])):
        if array.dtype != dtype:
            raise TypeError(f"{name}: expected {what} of dtype {dtype}, got {array.dtype}")
        if array.shape != wanted:
            raise ValueError(f"{name}: expected {what} of shape {wanted}, got {array.shape}")
    if not -most <= values.min() <= values.max() <= most:
        raise ValueError(f"{name}: expected integers in [-{most}, {most}], got [{values.min()}, {values.max()}]")
    _check.finite(f"{name}: scales", steps)
    if steps.min() < 0:
        raise ValueError(f"{name}: expected scales of at least 0, got {steps.min()} in row {int(steps.argmin())}")


def stored(arrays: dict[str, Array], rounding: Rounding | None) -> dict[str, Array]:
    """The arrays as a file has them.

    Those that are rounded are integers, of 4 bits two in a byte, the first in the lower half, and scales as "NAME.scale".
    """
    found = dict(arrays)
    if rounding is None:
        return found
    for name, steps in rounding.steps.items():
        values, _ = integers(arrays[name], rounding.bits, steps)
        found[name] = values if rounding.bits == 8 else _paired(values)
        found[f"{name}.scale"] = steps
    return found


def restored(found: dict[str, Array], shapes: Shapes, bits: int) -> dict[str, Integers]:
    """The integers that `stored` put into a file."""
    whole = {name: found[name] if bits == 8 else _parted(found[name], shapes[name][1]) for name in matrices(shapes)}
    return {name: (values, found[f"{name}.scale"]) for name, values in whole.items()}


def demand_forms(found: dict[str, Array], shapes: Shapes, bits: int | None) -> None:
    """Demand the arrays that a file of such a net has."""
    if bits not in (None, *LARGEST):
        raise ValueError(f"bits: expected 8 or 4, got {bits!r}")
    have = {name: f"{array.dtype} {array.shape}" for name, array in found.items()}
    want = {name: f"{dtype} {shape}" for name, (dtype, shape) in forms(shapes, bits).items()}
    if have != want:
        raise ValueError("; ".join(f"{name}: expected {a}, got {b}" for name, a, b in differences("", want, have)))


def forms(shapes: Shapes, bits: int | None) -> dict[str, tuple[str, tuple[int, ...]]]:
    """dtype and shape of each array of a file; `bits` is None for float32."""
    found = {name: ("float32", shape) for name, shape in shapes.items()}
    for name in matrices(shapes) if bits else ():
        rows, columns = shapes[name]
        found[name] = ("int8", (rows, columns)) if bits == 8 else ("uint8", (rows, -(-columns // 2)))
        found[f"{name}.scale"] = ("float32", (rows,))
    return found


def _paired(values: Array) -> Array:
    """Two integers in [-8, 8) in a byte, each in two's complement; a row's odd one has a 0 beside it."""
    halves = np.zeros((len(values), values.shape[1] + values.shape[1] % 2), np.uint8)
    halves[:, : values.shape[1]] = values.view(np.uint8) & 15
    return np.asarray(halves[:, 0::2] | halves[:, 1::2] << 4)


def _parted(pairs: Array, columns: int) -> Array:
    """The integers that `_paired` put together."""
    halves = np.stack([pairs & 15, pairs >> 4], axis=2).reshape(len(pairs), -1)[:, :columns]
    return np.asarray((halves ^ 8).astype(np.int8) - np.int8(8))
