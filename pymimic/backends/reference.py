"""The definition of every op, in plain NumPy: readable beside the paper, and what the tests compare with.

It works in the dtype of its arguments, writes h (B x H) out in full, and is not fast.
"""

from __future__ import annotations

import math

import numpy as np
from ml_dtypes import bfloat16

from ..numerics import log_softmax, philox4x32
from ..plan import Plan
from .interface import Activation, Array, Backend, LinearGrads, Mask, Shallow, ShallowGrads, Slots, Update, memory_for


def dropout_bytes(rows: int, units: int, mask: Mask) -> Array:
    """The random byte of each (row, unit), shape (rows, units): the layout of mma.m16n8 accumulators."""
    row = np.arange(mask.row, mask.row + rows)[:, None]
    unit = np.arange(mask.unit, mask.unit + units)[None, :]
    lane = 4 * (row % 8) + unit % 8 // 2
    byte = 4 * (unit % 32 // 8) + 2 * (row % 16 // 8) + unit % 2
    counter = np.empty((rows, units, 4), np.uint32)
    counter[..., 0] = mask.offset
    counter[..., 1] = lane
    counter[..., 2] = row // 16
    counter[..., 3] = unit // 32
    words = philox4x32(counter, (mask.seed & 0xFFFFFFFF, mask.seed >> 32))
    word = np.take_along_axis(words, (byte // 4)[..., None], axis=-1)[..., 0]
    return (word >> (8 * (byte % 4)).astype(np.uint32) & np.uint32(255)).astype(np.uint8)


def multiplier(shape: tuple[int, ...], mask: Mask, dtype: np.dtype[np.floating]) -> Array:
    """What dropout multiplies each (row, unit), the last two axes of `shape`, by: 0, or 256 / threshold."""
    rows, units = shape[-2:]
    if mask.threshold == 256:
        return np.ones((rows, units), dtype)
    return np.where(dropout_bytes(rows, units, mask) < mask.threshold, dtype.type(mask.scale), dtype.type(0))


def activate(a: Array, activation: Activation) -> tuple[Array, Array]:
    """f(a) and f'(a); gelu is the erf form and relu'(0) = 0."""
    if activation == "identity":
        return a, np.ones_like(a)
    if activation == "relu":
        return np.maximum(a, 0), (a > 0).astype(a.dtype)
    if activation == "tanh":
        h = np.tanh(a)
        return h, 1 - h * h
    if activation == "sigmoid":
        h = 0.5 * (1 + np.tanh(0.5 * a))
        return h, h * (1 - h)
    with np.errstate(over="ignore"):  # a^2 may be infinite: then the density is 0
        density = np.exp(-0.5 * a * a) / math.sqrt(2 * math.pi)
    normal_cdf = (0.5 * _erfc(-a * math.sqrt(0.5))).astype(a.dtype)
    return a * normal_cdf, normal_cdf + a * density


_erfc = np.vectorize(math.erfc, otypes=[np.float64])


def slope_from_output(out: Array, activation: Activation, mask: Mask) -> Array:
    """f'(a) from out = f(a) times the mask; not for gelu, which takes the same value twice."""
    h: Array = out / out.dtype.type(mask.scale)
    slope: Array = np.ones_like(h)
    if activation == "relu":
        slope = (h > 0).astype(out.dtype)
    elif activation == "tanh":
        slope = 1 - h * h
    elif activation == "sigmoid":
        slope = h * (1 - h)
    return slope


def rounded(array: Array, plan: Plan) -> Array:
    """An operand of a product: rounded to bfloat16, and widened for the sums, where the plan says so."""
    if plan.dtype != "bfloat16":
        return array
    return array.astype(bfloat16).astype(np.float32 if array.dtype == bfloat16 else array.dtype)


def to_save_dtype(h: Array, plan: Plan) -> Array:
    """What is saved between the passes, in the type that the plan says."""
    return h.astype(bfloat16) if plan.rounds_h else h


def _sgd(param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
    """v = momentum v + g with g = gradient + weight_decay p; p -= learning_rate (g + momentum v, or v)."""
    g = grad + update.weight_decay * param
    if slots:
        (v,) = slots
        v *= update.momentum
        v += g
        g = g + update.momentum * v if update.nesterov else v
    param -= update.learning_rate * g


def _adamw(param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
    """Loshchilov & Hutter 2019, algorithm 2: decay is apart from the gradient."""
    m, v = slots
    m += (1 - update.beta1) * (grad - m)
    v += (1 - update.beta2) * (grad * grad - v)
    param *= 1 - update.learning_rate * update.weight_decay
    denominator = np.sqrt(v / update.correction2) + update.epsilon
    param -= update.learning_rate / update.correction1 * m / denominator


class Reference(Backend):
    """The ops as the paper has them. A faster backend that derives from this one takes from it what it does not do itself."""

    writes_h = True

    # z -> h = dropout(f(z U^T + b)) -> y = h W + c

    def shallow_forward(self, net: Shallow, c: Array, save: bool, room: Array | None, out: Array | None) -> tuple[Array, Array | None]:
        _, _, b, _, activation, mask, plan = net
        z, U, W = (rounded(array, plan) for array in (net.z, net.U, net.W))
        a = z @ U.T + b
        h = rounded(activate(a, activation)[0] * multiplier(a.shape, mask, a.dtype), plan)
        y = np.add(h @ W, c, out=out)
        if not save:
            return y, None
        to_save = to_save_dtype(h if activation == "relu" else a, plan)
        saved = memory_for(to_save.shape, to_save.dtype, room)
        saved[...] = to_save
        return y, saved

    def shallow_backward(self, dy: Array, net: Shallow, saved: Array | None, needs: frozenset[str], out: ShallowGrads) -> ShallowGrads:
        _, _, b, _, activation, mask, plan = net
        dc = dy.sum(0) if "c" in needs else None
        dy, z, U, W = (rounded(array, plan) for array in (dy, net.z, net.U, net.W))
        if saved is not None and activation == "relu":
            h = saved.astype(z.dtype)
            factor = (h > 0) * z.dtype.type(mask.scale)
        else:
            a = z @ U.T + b if saved is None else saved.astype(z.dtype)
            h, slope = activate(a, activation)
            kept = multiplier(a.shape, mask, a.dtype)
            h, factor = rounded(h * kept, plan), slope * kept
        da = rounded(dy @ W.T * factor, plan)
        grads = ShallowGrads(
            z=da @ U if "z" in needs else None,
            U=da.T @ z if "U" in needs else None,
            b=da.sum(0) if "b" in needs else None,
            W=h.T @ dy if "W" in needs else None,
            c=dc,
        )
        for key, given in out._asdict().items():
            if given is not None:
                given[...] = getattr(grads, key)
                grads = grads._replace(**{key: given})
        return grads

    def shallow_step(
        self, dy: Array, net: Shallow, c: Array, slots: Slots, updates: dict[str, Update], saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        needs = frozenset("zUbWc" if need_dz else "UbWc")
        grads = Reference.shallow_backward(self, dy, net, saved, needs, ShallowGrads())
        for key, param in {"U": net.U, "b": net.b, "W": net.W, "c": c}.items():
            self.optimizer_update(param, getattr(grads, key), slots[key], updates[key])
        return grads.z

    # x -> dropout(f(x weight^T + bias))

    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        a = x @ weight.T if bias is None else x @ weight.T + bias
        return np.multiply(activate(a, activation)[0], multiplier(a.shape, mask, a.dtype), out=out)

    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation, mask: Mask,
        needs: frozenset[str],
    ) -> LinearGrads:  # fmt: skip
        kept = multiplier(out.shape, mask, out.dtype)
        slope = activate(x @ weight.T + bias, "gelu")[1] if activation == "gelu" else slope_from_output(out, activation, mask)
        da = dout * (slope * kept)
        return LinearGrads(
            x=da @ weight if "x" in needs else None,
            weight=da.T @ x if "weight" in needs else None,
            bias=da.sum(0) if "bias" in needs else None,
        )

    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array:
        return np.multiply(x, multiplier(x.shape, mask, x.dtype), out=out)

    # Losses, each with its gradient

    def mimic_loss(self, y: Array, t: Array, weights: Array | None) -> tuple[float, Array]:
        residual = y - t
        rows = max(1, len(y))
        if weights is None:
            return float(np.vdot(residual, residual)) / (2 * rows), residual / rows
        dy = residual * (weights[:, None] / rows)
        return float(np.vdot(residual, dy)) / 2, dy

    def cross_entropy(self, y: Array, labels: Array, weights: Array | None) -> tuple[float, Array]:
        rows = np.arange(len(y))
        log_p = log_softmax(y)
        w = np.full(len(y), 1 / max(1, len(y)), y.dtype) if weights is None else weights / max(1, len(y))
        dy = np.exp(log_p)
        dy[rows, labels] -= 1
        dy *= w[:, None]
        return float(-np.sum(w * log_p[rows, labels])), dy

    def distillation_loss(self, y: Array, t: Array, temperature: float, weights: Array | None) -> tuple[float, Array]:
        log_q, log_p = log_softmax(y / temperature), log_softmax(t / temperature)
        p = np.exp(log_p)
        w = (np.ones(len(y), y.dtype) if weights is None else weights)[:, None] / max(1, len(y))
        ratio = np.subtract(log_p, log_q, out=np.zeros_like(p), where=p != 0)  # 0 log 0 = 0
        return temperature**2 * float(np.sum(w * p * ratio)), (np.exp(log_q) - p) * (w * y.dtype.type(temperature))

    # Optimizers, in place

    def optimizer_update(self, param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
        if update.kind == "sgd":
            _sgd(param, grad, slots, update)
        else:
            _adamw(param, grad, slots, update)
