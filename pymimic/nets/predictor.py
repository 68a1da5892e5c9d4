"""Prediction of a few rows at a time, as a service makes them: the weights laid out for it, in float32, bfloat16 or int8."""

from __future__ import annotations

import os

import numpy as np

from .. import _check
from ..backends import default_host, get
from ..backends.interface import Array
from ..devices import is_device, kind, to
from ..numerics import warn_of_bad_rows
from ..plan import FEW_ROWS
from .student import Student

DTYPES = ("float32", "bfloat16", "int8")


class Predictor:
    """A student's net, x to y, for a few rows at a time: one call, bound by reading the weights once.

    It runs where the student is. A row's bits do not depend on the rows beside it. Only weights are rounded; sums are float32 or exact.

    - float32 gives the bits of `Student.predict` on the CPU. It shares the student's weights, or copies them into a layout that is read
      faster.
    - bfloat16 takes half the memory.
    - int8 takes a quarter, and has a scale for each row of V, U and W: largest / 127, or those of a student that `pymimic.compress` made
      integers of, to 8 or 4 bits. On the CPU x, z and h are taken to 16 bits of the
      largest value in their row (h with W's scales, 2048 units at a time), and a value that is not finite makes its row NaN. Otherwise
      such values propagate.

    On a device x, z, h and all sums are float32. float32 shares the student's weights there if rows of U, V and W are multiples of 16
    values. Weights are read once for every 8 rows, so `Student.predict` is faster for many rows. A call does not wait for the device, and
    can be captured into a CUDA graph inside a `pymimic.Workspace`.

    Parameters
    ----------
    student : the net, on the CPU or on a device; later changes to it are not seen
    dtype : "float32", "bfloat16" or "int8"
    copy : whether to copy float32 weights on the CPU into the faster layout; None copies weights of at most 64 MiB

    Raises
    ------
    ValueError
        An unknown dtype; on the CPU int8 with more than 65,536 inputs or bottleneck units; on a device more than 2048 bottleneck units (or
        inputs where there is no bottleneck) or 1024 outputs.
    BackendUnavailableError
        This installation has no compiled core, or for a student on a device no CUDA kernels.
    """

    def __init__(self, student: Student, dtype: str = "float32", copy: bool | None = None) -> None:
        if not isinstance(student, Student):
            cure = ": Student.load(path) reads a saved one" if isinstance(student, (str, os.PathLike)) else ""
            raise TypeError(f"student: expected a pymimic.Student, got {type(student).__name__}{cure}")
        if not _check.one_of(dtype, DTYPES):
            raise ValueError(f"dtype: expected one of {', '.join(DTYPES)}, got {dtype!r}")
        copy = None if copy is None else _check.flag("copy", copy)
        student = student.as_it_is()
        self.dtype, self.inputs, self.outputs = dtype, student.inputs, student.outputs
        backend = default_host() if student.device == "cpu" else get("cuda")
        steps = {} if student._rounding is None else student._rounding.steps
        self._net = backend.predictor(student.weights(), student.activation, student.mean, student.scale, dtype, copy, steps)
        self.nbytes: int = self._net.nbytes
        self._device = student.device

    def predict(self, x: Array) -> Array:
        """Logits y (B, C) float32 of x (B, D), float32 or float64.

        y is where x is. A student on a device takes NumPy arrays too. Of more than 8 rows on the host a UserWarning names those whose
        logits are not finite, as `Student.predict` does.

        Raises
        ------
        TypeError, ValueError
            x has another dtype or shape.
        """
        if _check.are_float32_rows(x, self._net.array, self.inputs):
            y = self._net.predict(x)
        else:
            x = _check.float_rows("x", _check.host_array("x", x) if self._device == "cpu" and is_device(x) else x, self.inputs)
            rows = to(self._device, x)
            y = to(kind(x), self._net.predict(_check.contiguous(rows, np.float32)))
        if len(y) > FEW_ROWS:  # to look at a few would take as long as to answer them
            warn_of_bad_rows(x, y)
        return y
