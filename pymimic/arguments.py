"""Demands on the arguments that the ops share: activation, dropout mask, plan, and what the forward pass saved."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, cast

import numpy as np

from . import _check
from .backends.interface import ACTIVATIONS, Activation, Array, Mask, Saved, Seed, ShallowGrads
from .devices import is_device, shared
from .plan import Plan
from .plan import plan as make_plan


def activation(value: str) -> Activation:
    """Demand the name of an activation."""
    if not _check.one_of(value, ACTIVATIONS):
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {value!r}")
    return cast(Activation, value)


def save_dtype(value: str, dtype: str) -> None:
    """Demand a type of h between the passes that goes with the products' dtype."""
    if not _check.one_of(value, ("float32", "bfloat16")):
        raise ValueError(f"keep: expected 'float32' or 'bfloat16', got {value!r}")
    if value == "bfloat16" and dtype != "float32":
        raise ValueError(f"keep: expected 'bfloat16' with dtype 'float32' only, got dtype {dtype!r}")


def mask(
    dropout: float, seed: Seed, offset: Seed, origin: tuple[int, int], on_device: bool = False, name: str = "dropout"
) -> Mask:  # fmt: skip
    """Turn a dropout probability, the argument called `name`, into the integer threshold that every backend compares bytes with."""
    dropout = _check.number(name, dropout, 0, 1, what="a probability")
    threshold = math.floor(256 * (1 - dropout) + 0.5)
    if dropout > 0 and threshold in (0, 256):
        raise ValueError(f"{name}: expected 0 or a probability in (1/512, 511/512], the grain being 1/256, got {dropout}")
    try:
        row, unit = origin
    except (TypeError, ValueError):
        raise ValueError(f"origin: expected two ints (row, unit), got {origin!r}") from None
    row, unit = _check.integer("origin", row, 0, 1 << 36), _check.integer("origin", unit, 0, 1 << 37)
    if row % 16 or unit % 32:
        raise ValueError(f"origin: expected (row, unit), a multiple of (16, 32), got {_check.shape_text((row, unit))}")
    key, step = (_seed(name, value, 1 << bits, on_device) for name, value, bits in (("seed", seed, 64), ("offset", offset, 32)))
    return Mask(threshold, key, step, row, unit)


def _seed(name: str, value: Any, high: int, on_device: bool) -> int:
    """Demand an int in [0, high), or beside arrays on a device a 0-d int64 array there."""
    if not on_device or not is_device(value):
        return _check.integer(name, value, 0, high)
    array: Any = shared(name, value)
    if array.shape != () or array.dtype != np.int64:
        raise ValueError(f"{name}: expected an int or a 0-d int64 array, got shape {array.shape} of {array.dtype}")
    return array  # type: ignore[no-any-return]


def plan(given: Plan | None, dims: _check.Dims, saved: Saved | None = None, dtype: str | None = None) -> Plan:
    """The plan for the sizes in `dims`, and their dtype if no other is given: `given`, or that of the forward pass, or a new one."""
    name = "plan"
    if given is None and isinstance(saved, Saved):
        name, given = "saved", saved.plan
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
    """Whether to save h, and memory for it."""
    if isinstance(given, Saved):
        return True, _array_of("save", given)
    if not isinstance(given, (bool, np.bool_)):
        raise TypeError(f"save: expected a bool, or what an earlier call saved, got {type(given).__name__}")
    return bool(given), None


def saved(given: Saved | None, backend: str, act: Activation, mask: Mask, plan: Plan) -> Array | None:
    """The array that the forward pass saved, if the same call saved it."""
    if given is None:
        return None
    if not isinstance(given, Saved):
        raise TypeError(f"saved: expected what shallow_forward(save=True) returned, got {type(given).__name__}")
    want, have = (backend, act, mask, plan), (given.backend, given.activation, given.mask, given.plan)
    if not _same(want, have):
        named = zip(_settings(*want).items(), _settings(*have).values())
        found = "; ".join(f"{name} = {here}, got {there}" for (name, here), there in named if not _same(here, there))
        raise ValueError(f"saved: expected what shallow_forward(save=True) returned for the same {found}")
    return _array_of("saved", given)


def _array_of(name: str, given: Saved) -> Array:
    """Its array; one that somebody put together may hold anything, and the kernels look at sizes and types only."""
    if not isinstance(given.array, np.ndarray) and not is_device(given.array):
        raise TypeError(f"{name}: expected an array in it, as shallow_forward(save=True) returned it, got {type(given.array).__name__}")
    return given.array


def _settings(backend: str, act: Activation, mask: Mask, plan: Plan) -> dict[str, Any]:
    """What two passes must have in common, by the names of the arguments."""
    return {
        "backend": backend, "activation": act, "dropout": 1 - mask.threshold / 256, "seed": mask.seed, "offset": mask.offset,
        "origin": (mask.row, mask.unit), "plan": plan,
    }  # fmt: skip


def _same(a: Any, b: Any) -> bool:
    """Whether the values are, and seeds in a device's memory the same memory: nobody waits for what is in it."""
    if isinstance(a, tuple) and isinstance(b, tuple):
        return len(a) == len(b) and all(map(_same, a, b))
    if is_device(a) or is_device(b):
        return is_device(a) and is_device(b) and bool(a.data.ptr == b.data.ptr)
    return bool(a == b)


def gradients(dims: _check.Dims, given: ShallowGrads | None, needs: frozenset[str], inputs: Iterable[Array]) -> ShallowGrads:
    """`given` as arrays to write gradients into, each as `Dims.output` demands it, wanted, and apart from the others."""
    if given is None:
        return ShallowGrads()
    if not isinstance(given, ShallowGrads):
        raise TypeError(f"out: expected a pymimic.ops.ShallowGrads of arrays to write into, got {type(given).__name__}")
    taken, axes = list(inputs), {"z": ("B", "k"), "U": ("H", "k"), "b": ("H",), "W": ("H", "C"), "c": ("C",)}
    for key, value in given._asdict().items():
        if value is not None and key not in needs:
            raise ValueError(f"out.{key}: expected None, as `needs` leaves it out, got an array")
        array = dims.output(f"out.{key}", value, axes[key], taken)
        given = given._replace(**{key: array})
        if array is not None:
            taken.append(array)
    return given
