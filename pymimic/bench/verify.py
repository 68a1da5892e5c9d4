"""What a contestant's results must be, by the reference in float64, written to a folder that all contestants read."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np

from .. import ops
from ..backends.interface import Array
from .shapes import Shape, What, arrays

LEARNING_RATE, WEIGHT_DECAY, EPSILON = 3e-5, 0.01, 1e-8  # of the AdamW that all contestants run
_TOLERANCE = {"V": 5e-3, "U": 5e-3, "b": 5e-3}  # relu's gate may flip where the pre-activation is within rounding of 0
_ROUNDING = 1e-4
_ADAMW_TOLERANCE = 2e-2  # an update is 3e-5 beside weights of 1
_SLAB_VALUES = 1 << 20
_BLOCK_ROWS = 1 << 12


class WrongResultError(ValueError):
    """A contestant computed something else than the reference."""


def write_case(shape: Shape, folder: Path, whats: set[What], seed: int = 0) -> None:
    """Write the arguments, y, and the gradients if one of `whats` needs them, as one .npy file each."""
    a = arrays(shape, seed)
    for name, array in a.items():
        np.save(folder / f"{name}.npy", array)
    for name, array in reference(a, backward=not whats <= {"forward", "serving"}).items():
        np.save(folder / f"expected_{name}.npy", array)


def read_case(folder: Path, B: int | None = None) -> dict[str, Array]:
    """The arguments by name; x and t cut to their first B rows."""
    a = {name: np.load(folder / f"{name}.npy") for name in "xtVUbWc" if (folder / f"{name}.npy").exists()}
    return a | {name: np.ascontiguousarray(a[name][:B]) for name in "xt"}


def reference(a: dict[str, Array], *, backward: bool) -> dict[str, Array]:
    """y and, with `backward`, the gradients by name: float64 throughout, a slab of hidden units at a time, rounded to float32."""
    x, t = a["x"].astype(np.float64), a["t"].astype(np.float64)
    V = a["V"].astype(np.float64) if "V" in a else None
    z = x if V is None else ops.linear_dropout(x, V, np.zeros(len(V)), activation="identity", backend="reference")
    step = max(1, _SLAB_VALUES // max(1, len(x)))
    slabs = [slice(start, start + step) for start in range(0, len(a["U"]), step)]

    def wide(slab: slice) -> tuple[Array, Array, Array]:
        return a["U"][slab].astype(np.float64), a["b"][slab].astype(np.float64), a["W"][slab].astype(np.float64)

    y = np.tile(a["c"].astype(np.float64), (len(x), 1))
    for slab in slabs:
        y += ops.shallow_forward(z, *wide(slab), np.zeros(y.shape[1]), backend="reference")
    results = {"y": y.astype(np.float32)}
    if not backward:
        return results
    _, dy = ops.mimic_loss(y, t, backend="reference")
    results |= {name: np.empty_like(a[name]) for name in "UbW"} | {"c": dy.sum(0).astype(np.float32)}
    dz = np.zeros_like(z)
    for slab in slabs:
        part = ops.shallow_backward(dy, z, *wide(slab), backend="reference")
        for name in "UbW":
            results[name][slab] = getattr(part, name)
        dz += part.z if part.z is not None else 0.0
    if V is not None:
        results["V"] = (dz.T @ x).astype(np.float32)
    return results


def check(what: What, got: Array | dict[str, Array], folder: Path, tolerance: float = 0.0) -> float:
    """The largest relative error of a contestant's results: y (forward, serving), gradients (step), or weights after one update (adamw).

    `tolerance` is what the contestant asks for beyond rounding, as for bfloat16.

    Raises
    ------
    WrongResultError
        An error is too large; the message names the array.
    """
    named = got if isinstance(got, dict) else {"y": np.asarray(got)}
    demanded = {"y"} if what in ("forward", "serving") else {path.stem[-1] for path in folder.glob("expected_[VUbWc].npy")}
    if not demanded <= set(named):
        raise WrongResultError(f"{what}: expected {', '.join(sorted(demanded))}, got {', '.join(sorted(named))}")
    worst = 0.0
    for name in sorted(demanded):
        expected = np.load(folder / f"expected_{name}.npy", mmap_mode="r")
        if name == "y":
            expected = expected[: len(named["y"])]
        if named[name].shape != expected.shape:
            raise WrongResultError(f"{what}: expected {name} of shape {expected.shape}, got {named[name].shape}")
        if what == "adamw":
            error, most = _update_error(named[name], np.load(folder / f"{name}.npy", mmap_mode="r"), expected), _ADAMW_TOLERANCE
        else:
            error, most = _error(named[name], expected), _TOLERANCE.get(name, _ROUNDING)
        if not error <= max(most, tolerance):
            raise WrongResultError(f"{what}: {name} is wrong: relative error {error:.2g}, at most {max(most, tolerance):.2g} is rounding")
        worst = max(worst, error)
    return worst


def _error(got: Array, expected: Array) -> float:
    """|got - expected| / |expected|, Euclidean norms over the whole array."""
    difference = norm = 0.0
    for start in range(0, len(expected), _BLOCK_ROWS):
        block = expected[start : start + _BLOCK_ROWS]
        off = got[start : start + _BLOCK_ROWS] - block
        difference += float(np.vdot(off, off))
        norm += float(np.vdot(block, block))
    return math.sqrt(difference / norm) if norm else math.sqrt(difference)


def _update_error(after: Array, before: Array, gradient: Array) -> float:
    """The same for the change that the first step of AdamW makes, where the gradient is well away from 0."""
    clear = np.abs(gradient) > 0.01 * np.abs(gradient).max(initial=0)
    g, p = gradient[clear].astype(np.float64), before[clear].astype(np.float64)
    decay = WEIGHT_DECAY if before.ndim > 1 else 0.0
    return _error(after[clear] - p, -LEARNING_RATE * (g / (np.abs(g) + EPSILON) + decay * p))
