"""What results must be: float64 on the device, a slab of hidden units at a time, operands rounded as the kernels round them."""

from __future__ import annotations

from typing import Any

import cupy
import numpy as np

from pymimic.bench.verify import LEARNING_RATE, WEIGHT_DECAY

_SLAB_VALUES = 1 << 26  # of h at once

Arrays = dict[str, Any]


def rounded(a: Any, precision: str) -> Any:
    """As an operand of that precision, to nearest, ties to even; "float32" and "tf32" as they are."""
    if precision == "fp16":
        return a.astype(np.float16).astype(a.dtype)
    if precision == "bf16":
        bits = a.astype(np.float32).view(np.uint32)
        bits = (bits + np.uint32(0x7FFF) + ((bits >> 16) & np.uint32(1))) & np.uint32(0xFFFF0000)
        return bits.view(np.float32).astype(a.dtype)
    return a


def shallow(dy: Any, z: Any, U: Any, b: Any, W: Any, c: Any, activation: str = "relu", precision: str = "float32") -> Arrays:
    """y and, unless dy is None, the gradients, float64 on the device. dy may be a function of y."""
    z, U, W = (rounded(a, precision).astype(np.float64) for a in (z, U, W))
    step = max(1, _SLAB_VALUES // max(1, len(z)))
    slabs = [slice(start, start + step) for start in range(0, len(U), step)]

    def f(a: Any) -> Any:
        return cupy.maximum(a, 0) if activation == "relu" else cupy.tanh(a)

    y = cupy.zeros((len(z), W.shape[1])) + c.astype(np.float64)
    for slab in slabs:
        y += rounded(f(z @ U[slab].T + b[slab]), precision) @ W[slab]
    if dy is None:
        return {"y": y}
    dy = (dy(y) if callable(dy) else dy).astype(np.float64)
    dc, dy = dy.sum(0), rounded(dy, precision)
    dU, db, dW, dz = cupy.empty(U.shape), cupy.empty(len(U)), cupy.empty(W.shape), cupy.zeros(z.shape)
    for slab in slabs:
        h = f(z @ U[slab].T + b[slab])
        da = (dy @ W[slab].T) * ((h > 0) if activation == "relu" else 1 - h * h)
        db[slab], da = da.sum(0), rounded(da, precision)
        dU[slab], dW[slab] = da.T @ z, rounded(h, precision).T @ dy
        dz += da @ U[slab]
    return {"y": y, "z": dz, "U": dU, "b": db, "W": dW, "c": dc}


def net(a: dict[str, Any]) -> dict[str, Any]:
    """y and the gradients of the loss of a net of `pymimic.bench.shapes.arrays`, as NumPy arrays of float32."""
    there = {name: cupy.asarray(array).astype(np.float64) for name, array in a.items()}
    z = there["x"] @ there["V"].T if "V" in a else there["x"]
    results = shallow(lambda y: (y - there["t"]) / len(y), z, *(there[name] for name in "UbWc"))
    dz = results.pop("z")
    if "V" in a:
        results["V"] = dz.T @ there["x"]
    return {name: cupy.asnumpy(array.astype(np.float32)) for name, array in results.items()}


def error(got: Any, expected: Any) -> float:
    """|got - expected| / |expected|, Euclidean norms; 1e30 where a value is not finite, as JSON has no infinity."""
    got, expected = cupy.asarray(got).astype(np.float64), cupy.asarray(expected).astype(np.float64)
    if got.shape != expected.shape:
        raise ValueError(f"expected shape {expected.shape}, got {got.shape}")
    off, norm = float(cupy.linalg.norm(got - expected)), float(cupy.linalg.norm(expected))
    return off / (norm or 1.0) if np.isfinite(off) else 1e30


def update_error(after: Any, before: Any, gradient: Any) -> float:
    """The same of the change that AdamW's first step makes, which is the gradient's sign, where that is well away from 0."""
    after, before, gradient = (cupy.asarray(array).astype(np.float64) for array in (after, before, gradient))
    decay = WEIGHT_DECAY if before.ndim > 1 else 0.0
    expected = -LEARNING_RATE * (cupy.sign(gradient) + decay * before)
    clear = cupy.abs(gradient) > 0.1 * cupy.abs(gradient).max()
    return error((after - before)[clear], expected[clear])
