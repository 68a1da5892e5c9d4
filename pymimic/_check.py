"""Checks of arguments, shared by the public functions. Every message names the argument, what was expected, what came."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, cast

import numpy as np
from ml_dtypes import bfloat16

from .backends.interface import ACTIVATIONS, ANYWHERE, Activation, Array, Mask, Saved, Seed, ShallowGrads
from .devices import capturing, is_device, module, overlap, place, shared
from .plan import Plan
from .plan import plan as make_plan

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
        allowed = ["float32", *([] if is_device(array) else ["float64"]), *(["bfloat16"] if bf16 else [])]
        if str(array.dtype) not in allowed:
            raise TypeError(f"{name}: expected dtype {' or '.join(allowed)}{' on a device' * is_device(array)}, got {array.dtype}")
        if self.dtype is None:
            self.dtype, self._dtype_of = array.dtype, name
        self._at(name, array)
        if array.dtype != self.dtype:
            raise TypeError(f"{name}: expected dtype {self.dtype} as {self._dtype_of} has, got {array.dtype}")
        self.shape(name, array.shape, axes)
        return cast(Array, module(array).ascontiguousarray(array))

    def labels(self, name: str, value: object) -> Array:
        """`value` as (B,) integers in [0, C), beside arrays that have bound B and C."""
        array = any_array(name, value)
        if array.dtype.kind not in "iu":
            raise TypeError(f"{name}: expected an integer dtype, got {array.dtype}")
        self._at(name, array)
        self.shape(name, array.shape, ("B",))
        if is_device(array) and capturing():
            return array  # nobody can look at them now
        if array.size and not 0 <= int(array.min()) <= int(array.max()) < self["C"]:
            raise ValueError(f"{name}: expected values in [0, {self['C']}), got [{array.min()}, {array.max()}]")
        return array

    @property
    def on_device(self) -> bool:
        """Whether the arrays so far are."""
        return self._place.startswith("device")

    def _at(self, name: str, array: Array) -> None:
        """Demand that all arrays lie in one memory."""
        here = place(array)
        self._place = self._place or here
        if here != self._place:
            raise ValueError(f"{name}: expected an array on {self._place}, as {self._dtype_of} is, got one on {here}")

    def beside(self, name: str, value: object, *axes: str) -> Array:
        """As `array`, for what stays in float32 beside bfloat16 operands: there it may be either, and is widened."""
        if self.dtype != BFLOAT16:
            return self.array(name, value, *axes)
        array = any_array(name, value)
        if array.dtype not in (BFLOAT16, np.float32):
            raise TypeError(f"{name}: expected dtype float32 or bfloat16 beside a bfloat16 {self._dtype_of}, got {array.dtype}")
        self._at(name, array)
        self.shape(name, array.shape, axes)
        return cast(Array, module(array).ascontiguousarray(array, np.float32))

    def shape(self, name: str, shape: Sequence[int], axes: Sequence[str]) -> None:
        """Demand a shape, binding the axes that are new."""
        want = [self.size.get(axis) for axis in axes]
        if len(shape) != len(want) or any(w is not None and w != s for w, s in zip(want, shape)):
            known = tuple("any" if w is None else w for w in want)
            expected = f"({', '.join(axes)}{',' if len(axes) == 1 else ''}) = {_tuple(known)}"
            raise ValueError(f"{name}: expected shape {expected}, got {_tuple(shape)}")
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

    def gradients(self, given: ShallowGrads | None, needs: frozenset[str], inputs: Iterable[Array]) -> ShallowGrads:
        """`given` as arrays to write gradients into, each as `output` demands it, wanted, and apart from the others."""
        if given is None:
            return ANYWHERE
        if not isinstance(given, ShallowGrads):
            raise TypeError(f"out: expected a pymimic.ops.ShallowGrads of arrays to write into, got {type(given).__name__}")
        taken, axes = list(inputs), {"z": ("B", "k"), "U": ("H", "k"), "b": ("H",), "W": ("H", "C"), "c": ("C",)}
        for key, value in given._asdict().items():
            if value is not None and key not in needs:
                raise ValueError(f"out.{key}: expected None, as `needs` leaves it out, got an array")
            array = self.output(f"out.{key}", value, axes[key], taken)
            given = given._replace(**{key: array})
            if array is not None:
                taken.append(array)
        return given


def any_array(name: str, value: object) -> Array:
    """Demand a NumPy array or one in a device's memory, and give the latter as CuPy's, over the same memory."""
    return shared(name, value) if is_device(value) else host_array(name, value)


def host_array(name: str, value: object) -> Array:
    """Demand a NumPy array."""
    if isinstance(value, np.ndarray) and not is_device(value):
        return value
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    raise TypeError(f"{name}: expected a NumPy array, got {kind}")


def float_shape(name: str, value: object, shape: tuple[int, ...]) -> Array:
    """Demand a float array of that shape, anywhere."""
    array = any_array(name, value)
    if array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
    if array.shape != shape:
        raise ValueError(f"{name}: expected shape {shape}, got {array.shape}")
    return array


def float_rows(name: str, value: object, columns: int) -> Array:
    """Demand a (B, columns) float array, anywhere."""
    array = any_array(name, value)
    if array.dtype not in FLOATS:
        raise TypeError(f"{name}: expected dtype float32 or float64, got {array.dtype}")
    Dims(D=columns).shape(name, array.shape, ("B", "D"))
    return array


def writable(name: str, array: Array, owner: Any = None) -> None:
    """Demand an array that can be updated in place; `owner` is whose memory it shares, if anyone's."""
    if not array.flags.c_contiguous:
        raise ValueError(f"{name}: expected a C-contiguous array, as it is updated in place, got strides {array.strides}")
    read_only = getattr(owner, "__cuda_array_interface__", {"data": (0, False)})["data"][1]  # CuPy's arrays know of no such thing
    if read_only or not getattr(array.flags, "writeable", True):
        raise ValueError(f"{name}: expected a writable array, as it is updated in place, got a read-only one")


def activation(value: str) -> Activation:
    """Demand the name of an activation."""
    if value not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {value!r}")
    return value


def keep(value: str, dtype: str) -> None:
    """Demand a type of h between the passes that goes with the products' dtype."""
    if value not in ("float32", "bfloat16"):
        raise ValueError(f"keep: expected 'float32' or 'bfloat16', got {value!r}")
    if value == "bfloat16" and dtype != "float32":
        raise ValueError(f"keep: expected 'bfloat16' with dtype 'float32' only, got dtype {dtype!r}")


def integer(name: str, value: object, low: int, high: int) -> int:
    """Demand an int in [low, high)."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name}: expected an int, got {type(value).__name__}")
    if not low <= value < high:
        raise ValueError(f"{name}: expected an int in [{low}, {high}), got {value}")
    return int(value)


def mask(dropout: float, seed: Seed, offset: Seed, origin: tuple[int, int], on_device: bool = False) -> Mask:
    """Turn a dropout probability into the integer threshold that every backend compares bytes with."""
    if isinstance(dropout, bool) or not isinstance(dropout, (int, float, np.integer, np.floating)):
        raise TypeError(f"dropout: expected a number, got {type(dropout).__name__}")
    if not 0 <= dropout < 1:
        raise ValueError(f"dropout: expected a probability in [0, 1), got {dropout}")
    keep = math.floor(256 * (1 - dropout) + 0.5)
    if dropout > 0 and keep in (0, 256):
        raise ValueError(f"dropout: expected 0 or a probability in (1/512, 511/512], the grain being 1/256, got {dropout}")
    try:
        row, unit = origin
    except (TypeError, ValueError):
        raise ValueError(f"origin: expected two ints (row, unit), got {origin!r}") from None
    integer("origin", row, 0, 1 << 36)
    integer("origin", unit, 0, 1 << 37)
    if row % 16 or unit % 32:
        raise ValueError(f"origin: expected (row, unit), a multiple of (16, 32), got {_tuple((row, unit))}")
    key, step = (_seed(name, value, 1 << bits, on_device) for name, value, bits in (("seed", seed, 64), ("offset", offset, 32)))
    return Mask(keep, key, step, int(row), int(unit))


def _seed(name: str, value: Any, high: int, on_device: bool) -> int:
    """Demand an int in [0, high), or beside arrays on a device a 0-d int64 array there."""
    if not on_device or not is_device(value):
        return integer(name, value, 0, high)
    array: Any = shared(name, value)
    if array.shape != () or array.dtype != np.int64:
        raise ValueError(f"{name}: expected an int or a 0-d int64 array, got shape {array.shape} of {array.dtype}")
    return array  # type: ignore[no-any-return]


def plan(given: Plan | None, dims: Dims, kept: Saved | None = None, dtype: str | None = None) -> Plan:
    """The plan for the sizes in `dims`, and their dtype if no other is given: `given`, or that of the forward pass, or a new one."""
    name = "plan"
    if given is None and isinstance(kept, Saved):
        name, given = "saved", kept.plan
    B, k, H, C = (dims[axis] for axis in "BkHC")
    dtype = dtype or str(dims.dtype)
    if given is None:
        return make_plan(B, k, k, H, C, dtype)
    if not isinstance(given, Plan):
        raise TypeError(f"plan: expected a pymimic.Plan, got {type(given).__name__}")
    have = (given.B, given.k, given.H, given.C, given.dtype)
    if have != (B, k, H, C, dtype):
        raise ValueError(f"{name}: expected one for (B, k, H, C, dtype) = {(B, k, H, C, dtype)}, got {have}")
    return given


def save(given: bool | Saved) -> tuple[bool, Array | None]:
    """Whether h is to be kept, and memory for it."""
    if isinstance(given, Saved):
        return True, given.array
    if not isinstance(given, (bool, np.bool_)):
        raise TypeError(f"save: expected a bool, or what an earlier call saved, got {type(given).__name__}")
    return bool(given), None


def saved(given: Saved | None, backend: str, act: Activation, how: Mask, planned: Plan) -> Array | None:
    """The array that the forward pass kept, if it was kept by the same call."""
    if given is None:
        return None
    if not isinstance(given, Saved):
        raise TypeError(f"saved: expected what shallow_forward(save=True) returned, got {type(given).__name__}")
    want, have = (backend, act, how, planned), (given.backend, given.activation, given.mask, given.plan)
    if not _same(want, have):
        raise ValueError(f"saved: expected what shallow_forward(save=True) kept for {want}, got what it kept for {have}")
    return given.array


def _same(a: Any, b: Any) -> bool:
    """Whether the values are, and seeds in a device's memory the same memory: nobody waits for what is in it."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if is_device(a) or is_device(b):
        return is_device(a) and is_device(b) and bool(a.data.ptr == b.data.ptr)
    return bool(a == b)


def finite(name: str, array: Array, first_row: int = 0) -> None:
    """Demand finite values, naming the first row that has others; some rows at a time, as the array may be memory-mapped."""
    step = max(1, (1 << 22) // max(1, math.prod(array.shape[1:])))
    for start in range(0, len(array), step):
        slab = array[start : start + step]
        if not np.isfinite(slab).all():
            row = int(np.flatnonzero(~np.isfinite(slab).reshape(len(slab), -1).all(axis=1))[0])
            value = slab[row][~np.isfinite(slab[row])].flat[0] if slab.ndim > 1 else slab[row]
            raise ValueError(f"{name}: expected finite values, got {value} in row {first_row + start + row}")


def needs(value: Iterable[str], known: Sequence[str]) -> frozenset[str]:
    """Demand a set of argument names."""
    chosen = frozenset([value] if isinstance(value, str) else value)
    if not chosen <= set(known):
        raise ValueError(f"needs: expected names among {', '.join(known)}, got {', '.join(sorted(chosen - set(known)))}")
    return chosen


def _tuple(values: Iterable[object]) -> str:
    items = [str(value) for value in values]
    return f"({', '.join(items)}{',' if len(items) == 1 else ''})"
