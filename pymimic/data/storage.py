"""How shards keep their arrays: as float32, or in fewer bytes."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from .largest import dense, largest, put, record, reduced, share_of_others
from .rounding import lost_values

_CHOICES = {"inputs": ("float32", "float16", "uint8"), "logits": ("float32", "float16")}
_CODES = 255  # that uint8 has beside 0
_NARROWEST, _WIDEST = 1e-36, 1e36  # ranges of which float32 holds both 1 / 255 and 255 times as much
_OTHERS = 1 / 2  # of the probability may be that of the logits which are not kept
_LEVEL = 6  # zlib's own choice
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
    top: int = 0  # logits of a row that are kept, each with its class; 0: all, without classes
    compress: int = 0  # level; 0: not

    @classmethod
    def of(
        cls, inputs_dtype: DType = "float32", logits_dtype: DType = "float32", inputs_range: Sequence[float] = (0.0, 1.0),
        top_logits: int | None = None, compress: object = False,
    ) -> Storage:  # fmt: skip
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
        top = 0 if top_logits is None else _check.integer("top_logits", top_logits, 1, 1 << 27)
        return cls(inputs, logits, *((low, high) if inputs == "uint8" else (0.0, 1.0)), top, _level(compress))

    def described(self) -> dict[str, Any] | None:
        """As manifests have it: those of earlier versions know neither `top` nor `compress`."""
        return None if self == Storage() else {key: value for key, value in asdict(self).items() if value or key not in ("top", "compress")}

    def dtype(self, kind: str, outputs: int) -> np.dtype[Any]:
        """Of files of "inputs", "logits" or "weights", of C outputs."""
        if kind == "logits" and self.top:
            return record(self.top, outputs, self.logits)
        return np.dtype(self._narrow(kind))

    def pack(self, kind: str, array: Array, first_row: int) -> Array:
        """Finite float32 rows as files have them; ValueError where they don't fit, with the row."""
        if kind != "logits" or not self.top:
            return self._narrowed(kind, array, first_row)
        classes = largest(array, self.top)
        packed = np.empty(len(array), self.dtype(kind, array.shape[1]))
        packed["values"], packed["classes"] = self._narrowed(kind, reduced(array, classes), first_row), classes
        return packed

    def _narrow(self, kind: str) -> str:
        return {"inputs": self.inputs, "logits": self.logits}.get(kind, "float32")

    def _narrowed(self, kind: str, array: Array, first_row: int) -> Array:
        dtype = self._narrow(kind)
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

    def unpack(self, kind: str, packed: Array, outputs: int) -> Array:
        """What `pack` was given, rounded, as float32; logits have C outputs."""
        if kind == "logits" and self.top:
            return dense(packed["values"], packed["classes"], outputs)
        if packed.dtype != np.uint8:
            return packed.astype(np.float32, copy=False)
        x = packed.astype(np.float32)
        x *= np.float32(self.high - self.low)
        x /= _CODES  # a division: pixels that were k / 255 come back as they were
        x += np.float32(self.low)
        return x

    def same_columns(self, packed: Array, answers: Array) -> tuple[Array, Array]:
        """Packed logits, and logits (n, C) for the same rows, in columns that can be compared: near ties may change which K are kept."""
        if not self.top:
            return packed, answers
        return packed["values"], reduced(answers, packed["classes"])

    def losses(self, kind: str, array: Array, packed: Array) -> str:
        """In words, what float32 rows lost when they were packed, and what to do; nothing without any.

        That is a column that lost what it says to a narrower dtype, or much probability that is that of logits which are not kept.
        """
        dtype, lost = self._narrow(kind), ""
        if dtype != "float32":
            span = "give inputs_range= no more than the inputs' own range, or " * (dtype == "uint8")
            cure = f'Scale the columns alike and subtract their means first, or {span}{kind}_dtype="float32"'
            lost = lost_values(kind, array, self._as_kept(kind, array, packed), dtype, cure)
        return lost or (self._left_out(array.shape[1] - self.top, packed) if kind == "logits" and self.top else "")

    def _left_out(self, others: int, packed: Array) -> str:
        share = share_of_others(packed["values"], others)
        if share <= _OTHERS:
            return ""
        return (
            f"logits: expected top_logits to hold most of the teacher's probability, got {share:.0%} in the other {others}, "
            f"which come back alike: keep more than {self.top}, or all"
        )

    def _as_kept(self, kind: str, array: Array, packed: Array) -> Array:
        """The rows as they come back; logits that are not kept as they are, as that is no loss of the dtype's."""
        if kind != "logits" or not self.top:
            return self.unpack(kind, packed, array.shape[1])
        kept = array.copy()
        put(kept, packed["values"], packed["classes"])
        return kept

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


def _level(compress: object) -> int:
    """Demand True, False or a level of zlib's."""
    if isinstance(compress, (bool, np.bool_)):
        return _LEVEL if compress else 0
    if not isinstance(compress, (int, np.integer)):
        raise TypeError(f"compress: expected True, False or a level from 1 to 9, got {type(compress).__name__}")
    return _check.integer("compress", compress, 0, 10)
