"""Arrays of other libraries as NumPy's, over the same memory; DataFrames and lists as arrays."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from ml_dtypes import bfloat16

from ..devices import Array
from ..differences import short

_DLPACK_HOST = (1, 3)  # kDLCPU, kDLCUDAHost


def view(name: str, value: Any) -> Array | None:
    """The same memory as an array of NumPy's; None where its owner offers none on the CPU.

    Ways are tensors' own (torch), `__array_interface__`, DLPack and the buffer protocol. TypeError names the argument where a way fails, or
    where a tensor requires gradients, which would be lost.
    """
    if isinstance(value, (np.ndarray, np.generic, str, bytes, type)):
        return None
    if getattr(value, "requires_grad", False) is True:
        raise TypeError(
            f"{name}: expected an array without gradients, got {_kind(value)} that requires them: pass .detach(), or use pymimic.torch"
        )
    try:
        if hasattr(value, "__dlpack_device__"):
            if value.__dlpack_device__()[0] not in _DLPACK_HOST:
                return None
            return of_tensor(value) if hasattr(value, "detach") else np.from_dlpack(value)
        if hasattr(value, "__array_interface__"):
            return np.asarray(value)
    except Exception as error:  # each library has errors of its own
        raise TypeError(f"{name}: expected an array whose memory NumPy can share, got {_kind(value)}: {error}") from error
    try:
        return np.asarray(memoryview(value))
    except (TypeError, ValueError, BufferError):
        return None


def of_tensor(tensor: Any) -> Array:
    """A tensor of torch on the CPU, which NumPy may write to; bfloat16 goes by its bits, as torch makes no array of it."""
    torch = sys.modules.get("torch")
    if torch is not None and tensor.dtype is torch.bfloat16:
        bits: Array = tensor.view(torch.int16).numpy()
        return bits.view(bfloat16)
    return tensor.numpy()  # type: ignore[no-any-return]


def demand_columns(name: str, value: Any, known: Sequence[str] | None, which: str = "that the teacher was fitted on") -> None:
    """Demand of a DataFrame of pandas that its columns have the known names, in that order; those without any text are taken by place."""
    names = None if known is None else column_names(value)
    if known is not None and names is not None and not same_names(names, known):
        raise ValueError(f"{name}: expected the columns {which}, {short([*known])}, in that order, got {short(names)}")


def column_names(value: Any) -> list[Any] | None:
    """Those of a DataFrame of pandas, if a text is among them."""
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, pandas.DataFrame):
        return None
    names = list(value.columns)
    return names if any(isinstance(label, str) for label in names) else None


def same_names(a: Iterable[Any], b: Iterable[Any]) -> bool:
    """Whether columns have the same names in the same order; LightGBM has underscores for spaces."""
    one, other = ([str(name).replace(" ", "_") for name in names] for names in (a, b))
    return one == other


def table(name: str, value: Any, known: Sequence[str] | None = None) -> Array | None:
    """A DataFrame or a Series of pandas, or a list of numbers, as an array; None for anything else.

    A frame must have columns of the `known` names, see `demand_columns`. TypeError and ValueError name the argument and the column of a
    frame that holds no numbers, or lacks some.
    """
    if isinstance(value, list):
        try:
            return np.asarray(value)
        except ValueError:
            raise TypeError(f"{name}: expected numbers in rows of one length, got a list of others") from None
    pandas = sys.modules.get("pandas")
    if pandas is None or not isinstance(value, (pandas.DataFrame, pandas.Series)):
        return None
    if isinstance(value, pandas.Series):
        return _column(name, value, "")
    demand_columns(name, value, known)
    if len(set(value.dtypes)) <= 1 and all(isinstance(dtype, np.dtype) and dtype.kind in "iufb" for dtype in value.dtypes):
        return value.to_numpy()  # type: ignore[no-any-return]
    columns = []
    for i, (label, dtype) in enumerate(zip(value.columns, value.dtypes)):
        if getattr(dtype, "kind", "O") not in "iufb":
            raise TypeError(f"{name}: expected columns of numbers, got {label!r} of dtype {dtype}")
        columns.append(_column(name, value.iloc[:, i], f" in column {label!r}"))
    return np.column_stack(columns)


def _column(name: str, series: Any, where: str) -> Array:
    """A Series as an array, demanded to have all its values where its dtype knows of missing ones."""
    dtype = series.dtype
    if isinstance(dtype, np.dtype) or getattr(dtype, "kind", "O") not in "iufb":
        return np.asarray(series)
    missing = series.isna().to_numpy()
    if missing.any():
        raise ValueError(f"{name}: expected values, got a missing one{where} in row {int(missing.argmax())}")
    return series.to_numpy(dtype=getattr(dtype, "subtype", None) or np.dtype(f"{dtype.kind}{dtype.itemsize}"))  # type: ignore[no-any-return]


def _kind(value: object) -> str:
    return f"{type(value).__module__}.{type(value).__qualname__}"
