"""How shards keep their arrays: as float32, or in fewer bytes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .. import _check
from ..backends.interface import Array

_CHOICES = {"inputs": ("float32", "float16", "uint8"), "logits": ("float32", "float16")}
_CODES = 255  # that uint8 has beside 0
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
    def of(cls, inputs_dtype: str, logits_dtype: str, inputs_range: Sequence[float]) -> Storage:
        """Demand the arguments of `TransferSet.create`."""
        for kind, dtype in (("inputs", inputs_dtype), ("logits", logits_dtype)):
            if dtype not in _CHOICES[kind]:
                raise ValueError(f"{kind}_dtype: expected one of {', '.join(_CHOICES[kind])}, got {dtype!r}")
        if not isinstance(inputs_range, Sequence) or len(inputs_range) != 2:
            raise TypeError(f"inputs_range: expected a pair (low, high), got {inputs_range!r}")
        low = _check.number("inputs_range", inputs_range[0], float32=True)
        high = _check.number("inputs_range", inputs_range[1], above=low, float32=True)
        return cls(inputs_dtype, logits_dtype, *((low, high) if inputs_dtype == "uint8" else (0.0, 1.0)))

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

    def _demand(self, fits: Array, kind: str, array: Array, first_row: int, what: str) -> None:
        if not fits.all():
            row = int(fits.all(axis=1).argmin())
            raise ValueError(f"{kind}: expected values {what}, got {array[row][~fits[row]][0]} in row {first_row + row}")
