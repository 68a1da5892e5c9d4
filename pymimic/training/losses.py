"""The losses that the trainer knows by name, and the check of a user's own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from .. import _check, ops
from ..backends.interface import Array
from ..callables import describe
from ..data.cases import Targets, both
from ..devices import module, place
from ..numerics import log_softmax

Loss = Callable[[Array, Any, Array | None], tuple[float, Array]]
"""(y, targets, weights or None) -> (loss, a mean over the rows; dL/dy), like `pymimic.ops.mimic_loss`.

Targets are what the data's `batch` gives: logits, or labels, or both as `pymimic.Targets`.
"""

_RARE = 1e-9  # least probability of a class
NAMES = ("mimic", "cross_entropy", "distillation")


def loss_function(loss: str | Loss, temperature: float, alpha: float, backend: str | None) -> Loss:
    """The loss called "mimic", "cross_entropy" or "distillation", of which the last reads `temperature` and `alpha`; or a checked one."""
    if callable(loss):
        return partial(_checked, loss, f"loss: expected {describe(loss)} to return")
    if not isinstance(loss, str):
        raise TypeError(f"loss: expected a name or a function, got {type(loss).__name__}")
    if loss == "mimic":
        return partial(_mimic, backend)
    if loss == "cross_entropy":
        return partial(_cross_entropy, backend)
    if loss == "distillation":
        return partial(_distillation, temperature, alpha, backend)
    raise ValueError(f"loss: expected 'mimic', 'cross_entropy', 'distillation' or a function, got {loss!r}")


def suits(loss: str, alpha: float, targets: Array | Targets, like: Array | Targets) -> bool:
    """Whether the loss of that name takes these targets; a user's own takes those that are of the kind of `like`."""
    logits, labels = both(targets)
    if loss == "cross_entropy":
        return labels is not None
    if loss in NAMES:
        return logits is not None and (loss == "mimic" or alpha == 1 or labels is not None)
    return [part is None for part in both(like)] == [logits is None, labels is None]


def one_answer(loss: str, temperature: float, targets: Array | Targets, weights: Array | None, outputs: int) -> Array:
    """(B, C) float32: the same y for every row, of low loss by that name. The targets' mean, or the logits of their mean probabilities."""
    logits, labels = both(targets)
    if loss == "cross_entropy":
        assert labels is not None
        each, temperature = np.eye(outputs)[labels], 1.0
    else:
        wide = _known(logits).astype(np.float64)
        each = wide if loss == "mimic" else np.exp(log_softmax(wide / temperature))
    share = np.ones(len(each)) if weights is None or not weights.any() else weights
    mean = np.average(each, axis=0, weights=share)
    y = mean if loss == "mimic" else temperature * np.log(np.maximum(mean, _RARE))
    return np.tile(y.astype(np.float32), (len(each), 1))


def demand_targets(source: str, loss: str, alpha: float, targets: Array | Targets) -> None:
    """Demand that the loss of that name takes the targets of the argument `source`; the message says what does."""
    if suits(loss, alpha, targets, targets):
        return
    have = "labels" if both(targets)[0] is None else "logits"
    if loss == "cross_entropy":
        want, cure = "labels, as a pymimic.LabelledSet has", "loss='mimic' and loss='distillation' take logits"
    elif have == "labels":
        want, cure = "a teacher's logits, as a pymimic.TransferSet has", "loss='cross_entropy' takes labels"
    else:
        want, cure = f"labels beside the logits, as alpha = {alpha} leaves them a share", "TransferSet(x, logits, labels=...) has both"
    raise TypeError(f"{source}: expected {want}, with loss {loss!r}, got {have}; {cure}")


def _mimic(backend: str | None, y: Array, targets: Array | Targets, weights: Array | None) -> tuple[float, Array]:
    return ops.mimic_loss(y, _known(both(targets)[0]), weights, backend=backend)


def _cross_entropy(backend: str | None, y: Array, targets: Array | Targets, weights: Array | None) -> tuple[float, Array]:
    return ops.cross_entropy(y, _known(both(targets)[1]), weights, backend=backend)


def _distillation(
    temperature: float, alpha: float, backend: str | None, y: Array, targets: Array | Targets, weights: Array | None
) -> tuple[float, Array]:  # fmt: skip
    logits, labels = both(targets)
    return ops.distillation_loss(y, _known(logits), temperature, weights, labels, alpha, backend=backend)


def _known(array: Array | None) -> Array:
    assert array is not None  # `demand_targets` has seen to it
    return array


def _checked(loss: Loss, who: str, y: Array, targets: Array | Targets, weights: Array | None) -> tuple[float, Array]:
    """What the user's loss says, if it is a number and a gradient that fits y; the gradient as y's dtype. `who` begins the errors."""
    said: Any = loss(y, targets, weights)
    if not isinstance(said, (tuple, list)) or len(said) != 2:
        raise TypeError(f"{who} a pair (loss, dL/dy), got {type(said).__name__}")
    value, dy = said
    number = isinstance(value, (int, float)) or (hasattr(value, "dtype") and getattr(value, "shape", None) == ())
    if not number or isinstance(value, bool):
        raise TypeError(f"{who} a number first, the mean over the rows, got {_kind(value)}")
    try:
        gradient = _check.any_array("loss", dy)
    except TypeError:
        raise TypeError(f"{who} dL/dy as a {module(y).__name__} array, got {_kind(dy)}") from None
    if gradient.dtype not in _check.FLOATS:
        raise TypeError(f"{who} dL/dy of dtype {y.dtype}, got {gradient.dtype}")
    if gradient.shape != y.shape:
        raise ValueError(f"{who} dL/dy of the shape that y has, {y.shape}, got {gradient.shape}")
    if place(gradient) != place(y):
        raise ValueError(f"{who} dL/dy on {place(y)}, as y is, got it on {place(gradient)}")
    return value, module(y).ascontiguousarray(gradient, y.dtype)


def _kind(value: object) -> str:
    shape = getattr(value, "shape", None)
    return f"{type(value).__module__}.{type(value).__qualname__}" + ("" if shape is None else f" of shape {tuple(shape)}")
