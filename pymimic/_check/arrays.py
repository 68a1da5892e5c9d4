"""Demands on arrays: kind, dtype, place, shape, values."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from ml_dtypes import bfloat16

from ..devices import Array, capturing, is_device, module, overlap, place, shared
from . import others

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
BFLOAT16 = np.dtype(bfloat16)


class Dims:
    """Named sizes, bound by the first array that shows them and demanded of the others."""

    def __init__(self, like: tuple[str, Array] | None = None, **known: int) -> None:
        self.size: dict[str, int] = dict(known)
        self.dtype: np.dtype[Any] | None = like[1].dtype if like else None
        self._dtype_of = like[0] if like else ""
        self._place = place(like[1]) if like else ""

    def __getitem__(self, name: str) -> int:
        return self.size[name]

    def array(self, name: str, value: object, *axes: str, bf16: bool = False) -> Array:
        """`value` as a C-contiguous float array of shape `axes`, bfloat16 if that is allowed; one that is strided is copied once."""
        array = any_array(name, value)
        on_device = is_device(array)
        allowed = (*FLOATS[: 1 if on_device else 2], *((BFLOAT16,) if bf16 else ()))
        if array.dtype not in allowed:
            names, where = " or ".join(map(str, allowed)), " on a device" * on_device
            raise TypeError(f"{name}: expected dtype {names}{where}, got {array.dtype}{_as_float32(array)}")
        if self.dtype is None:
            self.dtype, self._dtype_of = array.dtype, name
        self._at(name, array)
        if array.dtype != self.dtype:
            raise TypeError(f"{name}: expected dtype {self.dtype} as {self._dtype_of} has, got {array.dtype}")
        self.shape(name, array.shape, axes)
        return contiguous(array)

    def labels(self, name: str, value: object) -> Array:
        """`value` as (B,) integers in [0, C), beside arrays that have bound B and C."""
        array = any_array(name, value)
        label_array(name, array)
        self._at(name, array)
        self.shape(name, array.shape, ("B",))
        if is_device(array) and capturing():
            return array  # nobody can look at them now
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < self["C"]:
            raise other_labels(name, array, self["C"])
        return array

    @property
    def on_device(self) -> bool:
        """Whether the arrays so far are."""
        return self._place.startswith("device")

    def _at(self, name: str, array: Array) -> None:
        """Demand that all arrays are on one device."""
        here = place(array)
        self._place = self._place or here
        if here != self._place:
            raise ValueError(f"{name}: expected an array on {self._place}, as {self._dtype_of} is, got one on {here}")

    def beside(self, name: str, value: object, *axes: str) -> Array:
        """As `array`, for arrays that stay float32 beside bfloat16 operands. bfloat16 ones are accepted too, and widened to float32."""
        if self.dtype != BFLOAT16:
            return self.array(name, value, *axes)
        array = any_array(name, value)
        if array.dtype not in (BFLOAT16, np.float32):
            raise TypeError(f"{name}: expected dtype float32 or bfloat16 beside a bfloat16 {self._dtype_of}, got {array.dtype}")
        self._at(name, array)
        self.shape(name, array.shape, axes)
        return contiguous(array, np.float32)

    def shape(self, name: str, shape: Sequence[int], axes: Sequence[str]) -> None:
        """Demand a shape, binding the axes that are new."""
        want = [self.size.get(axis) for axis in axes]
        if len(shape) != len(want) or any(w is not None and w != s for w, s in zip(want, shape)):
            known = tuple("any" if w is None else w for w in want)
            expected = shape_text(axes) + (f" = {shape_text(known)}" if any(want) else "")
            raise ValueError(f"{name}: expected shape {expected}, got {shape_text(shape)}{_reshaped(name, shape, axes, want[-1])}")
        self.size.update(zip(axes, shape))

    def output(self, name: str, value: object, axes: Sequence[str], inputs: Iterable[Array]) -> Array | None:
        """`value` as an array to write into: right shape and dtype, C-contiguous, writable, apart from the inputs."""
        if value is None:
            return None
        array = any_array(name, value)
        dtype = np.dtype(np.float32) if self.dtype == BFLOAT16 else self.dtype
        if array.dtype != dtype:
            raise TypeError(f"{name}: expected dtype {dtype}, got {array.dtype}")
        self._at(name, array)
        self.shape(name, array.shape, axes)
        writable(name, array, value)
        if any(overlap(array, other) for other in inputs):
            raise ValueError(f"{name}: expected memory of its own, got an array that overlaps another argument")
        return array


def any_array(name: str, value: object) -> Array:
    """Demand a NumPy array or one in a device's memory, and give the latter as CuPy's, over the same memory."""
    return shared(name, value) if is_device(value) else host_array(name, value)


def host_array(name: str, value: object) -> Array:
    """Demand an array on the CPU, NumPy's (memory-mapped or not) or another library's, and give it as NumPy's over the same memory."""
    if type(value) is np.ndarray:
        return value
    if isinstance(value, np.ndarray) and not isinstance(value, (np.ma.MaskedArray, np.matrix)) and not is_device(value):
        return np.asarray(value)  # whatever a class of its own says of its shape
    if not is_device(value) and (shared_memory := others.view(name, value)) is not None:
        return shared_memory
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"{name}: expected a NumPy array, got {kind}{_cure(value)}")


def data_array(name: str, value: object, floats: bool = True, columns: Sequence[str] | None = None) -> Array:
    """As `host_array`, for data that a user brings: DataFrames, Series and lists too, with `floats` their integers as float64.

    A DataFrame must have `columns`, if those are known; see `others.demand_columns`.
    """
    if type(value) is np.ndarray:
        return value
    made = others.table(name, value, columns)
    if made is None:
        return host_array(name, value)
    return made.astype(np.float64) if floats and made.dtype.kind in "iub" else made


def whole_array(name: str, values: Any, axes: int, columns: Sequence[str] | None = None) -> Any:
    """One array of so many axes, in whatever form a user brings it, as NumPy's; an iterable of such arrays is returned itself."""
    if isinstance(values, np.ndarray) or is_device(values):
        return values
    if isinstance(values, list):
        return data_array(name, values) if values and _axes(values[0]) < axes else values
    made = others.table(name, values, columns)
    made = others.view(name, values) if made is None else data_array(name, values)
    return values if made is None else made


def _axes(value: object) -> int:
    try:
        return np.ndim(cast(Any, value))
    except ValueError:  # a list of lists of several lengths
        return 2


def _cure(value: object) -> str:
    """How to make a NumPy array of it, as the end of a message."""
    if isinstance(value, np.ma.MaskedArray):
        return ", whose masked values nobody would heed: drop them, or fill them in with .filled(...)"
    ways = (
        ("detach", ".detach().cpu().numpy()"),
        ("toarray", ".toarray()"),
        ("to_numpy", ".to_numpy()"),
        ("__array__", "numpy.asarray(...)"),
    )
    for attribute, way in ways:
        if hasattr(type(value), attribute):
            return f": pass {way}"
    return ": pass numpy.asarray(...)" if isinstance(value, (list, tuple)) else ""


def float_dtype(name: str, array: Array) -> None:
    """Demand float32 or float64."""
    if array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}{_as_float32(array)}")


def integer_array(name: str, array: Array) -> None:
    """Demand integers of any width."""
    if array.dtype.kind not in "iu":
        cure = ": pass .astype(np.int64)" if array.dtype.kind in "fb" else ""
        raise TypeError(f"{name}: expected an integer dtype, got {array.dtype}{cure}")


def label_array(name: str, array: Array) -> None:
    """Demand integers, one for each row, as labels; the message says how to make them of other labels."""
    if array.dtype.kind in "OSUT":
        cure = f": pass np.unique({name}, return_inverse=True)[1], which numbers the classes"
        raise TypeError(f"{name}: expected an integer dtype, got {array.dtype}{cure}")
    if array.ndim == 2 and array.dtype.kind in "fiub":
        cure = f": pass .argmax(axis=1) of one-hot {name}" if array.shape[1] > 1 else ": pass .reshape(-1)"
        raise ValueError(f"{name}: expected shape (B,), a number for each row, got {array.dtype} of shape {array.shape}{cure}")
    integer_array(name, array)


def other_labels(name: str, array: Array, outputs: int | None) -> ValueError:
    """The error for labels that are not in [0, outputs), or below 0 where nobody knows the outputs yet."""
    low, high = int(array.min()), int(array.max())
    cure = f": classes count from 0, pass {name} - 1" if (low, high) == (1, outputs) else ""
    if low < 0 or outputs is None or high > outputs:
        cure = f": np.unique({name}, return_inverse=True)[1] numbers the classes from 0"
    wanted = "of at least 0" if outputs is None else f"in [0, {outputs})"
    return ValueError(f"{name}: expected values {wanted}, got [{low}, {high}]{cure}")


def _reshaped(name: str, shape: Sequence[int], axes: Sequence[str], columns: int | None) -> str:
    """How to make rows of D inputs, or of C outputs, of an array of another shape, as the end of a message."""
    if len(axes) == 2 and axes[1] == "C" and len(shape) == 1 and columns in (None, 1):
        return f": pass {name}[:, None] for one output"
    if len(axes) != 2 or axes[1] != "D":
        return ""
    if len(shape) > 2 and columns in (None, math.prod(shape[1:])):
        return f": pass .reshape(len({name}), -1)"
    return f": pass {name}[None] for one row" if tuple(shape) == (columns,) else ""


def _as_float32(array: Array) -> str:
    """How to make numbers of another dtype float32, as the end of a message."""
    return ": pass .astype(np.float32)" if array.dtype.kind in "iufb" or array.dtype == BFLOAT16 else ""


def float_shape(name: str, value: object, shape: tuple[int, ...]) -> Array:
    """Demand a float array of that shape, anywhere."""
    array = any_array(name, value)
    float_dtype(name, array)
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def float_rows(name: str, value: object, columns: int) -> Array:
    """Demand (B, columns) floats: an array anywhere, or a DataFrame or a list."""
    array = shared(name, value) if is_device(value) else data_array(name, value)
    float_dtype(name, array)
    Dims(D=columns).shape(name, array.shape, ("B", "D"))
    return array


def are_float32_rows(value: object, array: type, columns: int) -> bool:
    """Whether it is a C-contiguous float32 (B, columns) array of that type: nothing has to be checked or copied."""
    x: Any = value
    return (
        type(value) is array
        and x.dtype == np.float32
        and x.ndim == 2
        and x.shape[1] == columns
        and bool(x.flags.c_contiguous)
        and _aligned(x)
    )


def _aligned(array: Array) -> bool:
    """Whether elements lie at multiples of their size; CuPy's arrays, whose flags don't say, always do."""
    return bool(getattr(array.flags, "aligned", True))


def contiguous(array: Array, dtype: Any = None) -> Array:
    """The array as kernels take it, C-contiguous and aligned, copied only where it is neither."""
    laid_out = module(array).ascontiguousarray(array, dtype)
    return cast(Array, laid_out if _aligned(laid_out) else laid_out.copy())


def writable(name: str, array: Array, owner: Any = None) -> None:
    """Demand an array that can be updated in place; `owner` is whose memory it shares, if anyone's."""
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, as it is updated in place, got strides {array.strides}")
    if not _aligned(array):
        raise ValueError(f"{name}: expected an array aligned to its elements, as it is updated in place, got one at {array.ctypes.data:#x}")
    read_only = getattr(owner, "__cuda_array_interface__", {"data": (0, False)})["data"][1]  # CuPy's arrays know of no such thing
    if read_only or not getattr(array.flags, "writeable", True):
        raise ValueError(f"{name}: expected a writable array, as it is updated in place, got a read-only one")


def finite(name: str, array: Array, first_row: int = 0) -> None:
    """Demand finite values, naming the first row that has others; some rows at a time, as the array may be memory-mapped."""
    step = max(1, (1 << 22) // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):
        slab = array[start : start + step]
        if not np.isfinite(slab).all():
            row = int(np.flatnonzero(~np.isfinite(slab).reshape(len(slab), -1).all(axis=1))[0])
            value = slab[row][~np.isfinite(slab[row])].flat[0] if slab.ndim > 1 else slab[row]
            raise ValueError(f"{name}: expected finite values, got {value} in row {first_row + start + row}")


def shape_text(values: Iterable[object]) -> str:
    """A tuple as messages show it."""
    items = [str(value) for value in values]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
