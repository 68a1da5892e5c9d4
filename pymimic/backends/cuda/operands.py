"""Operands: arrays as the matrix kernels read them, in float32 or as 16-bit words, rows padded with zeros to a multiple of 16 elements."""

from __future__ import annotations

import weakref
from typing import Any, cast

import numpy as np

from ... import _cuda
from ..interface import Array
from .memory import allocate, empty, stream

BF16, FP16, TF32, FP32 = range(4)  # pymimic_precision
_GROUP = 16  # a row is a multiple of so many elements
_MOST = 64  # arrays whose interfaces are remembered


def form(a: Array, precision: int) -> tuple[tuple[int, int], Any]:
    """Shape and type."""
    groups = max(1, -(-a.shape[1] // _GROUP))
    return (len(a), groups * _GROUP), np.float32 if precision in (TF32, FP32) else np.uint16


def operand(a: Array, precision: int) -> Array:
    """`a` itself where it has the form already, else a copy."""
    return a if _has_form(a, precision) else copied(a, precision)


def copied(a: Array, precision: int) -> Array:
    """A copy."""
    padded = empty(*form(a, precision))
    pack(a, padded, precision)
    return padded


def packed(a: Array, precision: int) -> Array:
    """As `operand`, for weights that stay: a copy comes from the memory pool, not from a workspace."""
    if _has_form(a, precision):
        return a
    padded = cast(Array, allocate(*form(a, precision)))
    pack(a, padded, precision)
    return padded


def pack(a: Array, padded: Array, precision: int) -> None:
    """Write `a` to an operand."""
    if len(a):
        _cuda.pack(a, BF16 if a.itemsize == 2 else FP32, padded, precision, stream())


def _has_form(a: Array, precision: int) -> bool:
    shape, dtype = form(a, precision)
    as_it_is = a.shape == shape and a.itemsize == np.dtype(dtype).itemsize and cast(Any, a).data.ptr % 16 == 0
    return as_it_is and precision != FP16


def checked(a: Array) -> Any:
    """`a` for several calls of the binding, which ask it only once where its memory is."""
    return _cuda.CheckedArray(a, True)


class Checked:
    """The same for arrays that come again and again. They are not kept alive."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Array], Any]] = {}

    def __call__(self, a: Array) -> Any:
        known = self._known.get(id(a))
        if known is None or known[0]() is not a:
            if len(self._known) >= _MOST:
                self._known.clear()
            known = self._known[id(a)] = weakref.ref(a), _cuda.CheckedArray(a, False)
        return known[1]
