"""How shards keep their arrays: as float32, or in fewer bytes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from .rounding import lost_values

_CHOICES = {"inputs": ("float32", "float16", "uint8"), "logits": ("float32", "float16")}
_CODES = 255  # that uint8 has beside 0
_NARROWEST, _WIDEST = 1e-36, 1e36  # ranges of which float32 holds both 1 / 255 and 255 times as much
DType = str | np.dtype[Any] | type[Any]  # "float16", numpy.dtype("float16") or numpy.float16
ROUNDING = {"float32": 2.0**-21, "float16": 2.0**-10}
"""Share of the greatest logit by which one logit may come back another: a few units in the last place."""


@dataclass(frozen=True)
class Storage:
    """The dtypes of files of inputs and logits; weights are float32."""

    inputs: str = "float32"
    logits: str = "float32"
    low: float = 0.0  # what an input of code 0 is
    high: float = 1.0  # and one of code 255

    @classmethod
    def of(cls, inputs_dtype: DType, logits_dtype: DType, inputs_range: Sequence[float]) -> Storage:
        """Demand the arguments of `TransferSet.create`."""
        inputs, logits = _name("inputs", inputs_dtype), _name("logits", logits_dtype)
        if not isinstance(inputs_range, Sequence) or isinstance(inputs_range, str) or len(inputs_range) != 2:
            raise TypeError(f"inputs_range: expected a pair (low, high), got {inputs_range!r}")
        low = _check.number("inputs_range", inputs_range[0], float32=True)
        high = _check.number("inputs_range", inputs_range[1], above=low, float32=True)
        with np.errstate(over="ignore"):
            width = float(np.float32(high - low))
        if not _NARROWEST <= width <= _WIDEST:
            raise ValueError(f"inputs_range: expected numbers that are {_NARROWEST:g} to {_WIDEST:g} apart, got ({low:g}, {high:g})")
        return cls(inputs, logits, *((low, high) if inputs == "uint8" else (0.0, 1.0)))

    def dtype(self, kind: str) -> str:
        """Of files of "inputs", "logits" or "weights"."""
        return {"inputs": self.inputs, "logits": self.logits}.get(kind, "float32")

    def pack(self, kind: str, array: Array, first_row: int) -> Array:
        """Finite float32 rows as files have them; ValueError where they don't fit, with the row."""
        dtype = self.dtype(kind)
        if dtype == "float32":
            return array
        if dtype == "float16":
            with np.errstate(over="ignore"):  # infinity is found next
                packed = array.astype(np.float16)
            self._demand(np.isfinite(packed), kind, array, first_row, "that float16 holds, of at most 65504")
            return packed
        with np.errstate(over="ignore"):  # values far outside are refused next
            codes: Array = np.rint((array - np.float32(self.low)) * np.float32(_CODES / (self.high - self.low)))
        self._demand((codes >= 0) & (codes <= _CODES), kind, array, first_row, f"in inputs_range, [{self.low:g}, {self.high:g}]")
        return codes.astype(np.uint8)

    def unpack(self, kind: str, packed: Array) -> Array:
        """What `pack` was given, rounded, as float32."""
        if packed.dtype != np.uint8:
            return packed.astype(np.float32, copy=False)
        x = packed.astype(np.float32)
        x *= np.float32(self.high - self.low)
        x /= _CODES  # a division: pixels that were k / 255 come back as they were
        x += np.float32(self.low)
        return x

    def losses(self, kind: str, array: Array, packed: Array) -> str:
        """In words, which columns of float32 rows lost what they say when they were packed, and what to do; nothing without any."""
        if self.dtype(kind) == "float32":
            return ""
        narrower = (
            f"give inputs_range= no more than the inputs' own range, or {kind}_dtype=" if self.dtype(kind) == "uint8" else f"{kind}_dtype="
        )
        cure = f"Scale the columns alike and subtract their means first, or {narrower}"
        return lost_values(kind, array, self.unpack(kind, packed), self.dtype(kind), f'{cure}"float32"')

    def _demand(self, fits: Array, kind: str, array: Array, first_row: int, what: str) -> None:
        if not fits.all():
            row = int(fits.all(axis=1).argmin())
            raise ValueError(f"{kind}: expected values {what}, got {array[row][~fits[row]][0]} in row {first_row + row}")


def _name(kind: str, dtype: DType) -> str:
    """Demand a dtype that files of that kind can have, and give its name."""
    name: object = dtype
    if isinstance(dtype, (np.dtype, type)):
        with suppress(TypeError):  # a class that is no dtype
            name = np.dtype(dtype).name
    if not isinstance(name, str) or name not in _CHOICES[kind]:
        raise ValueError(f"{kind}_dtype: expected one of {', '.join(_CHOICES[kind])}, got {dtype!r}")
    return name
