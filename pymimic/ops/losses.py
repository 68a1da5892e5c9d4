"""Losses and their gradients."""

from __future__ import annotations

import math

import numpy as np

from .. import _check
from ..backends import choose
from ..backends.interface import Array


def mimic_loss(y: Array, t: Array, weights: Array | None = None, *, backend: str | None = None) -> tuple[float, Array]:
    """Regression on logits: loss = sum_b w_b |y_b - t_b|^2 / (2 B), and dL/dy (B, C). An empty batch has loss 0.

    Ba & Caruana 2014, equation 1.

    Parameters
    ----------
    y, t : (B, C) arrays, the student's and the teacher's logits. -inf in t, for a class that is ruled out, is an error on the CPU
    weights : (B,) array of per-row weights, or None for ones
    """
    dims = _check.Dims()
    y, t = dims.array("y", y, "B", "C"), dims.array("t", t, "B", "C")
    weights = None if weights is None else dims.array("weights", weights, "B")
    loss, dy = choose(backend, y).mimic_loss(y, t, weights)
    if not dims.on_device and not math.isfinite(loss) and bool(np.isneginf(t).any()):
        raise ValueError("t: expected logits that squared errors can be taken of, got -inf; distillation_loss takes it, as probability 0")
    return loss, dy


def cross_entropy(y: Array, labels: Array, weights: Array | None = None, *, backend: str | None = None) -> tuple[float, Array]:
    """Mean over rows of w_b (-log softmax(y_b)[labels_b]), and dL/dy (B, C). An empty batch has loss 0.

    Parameters
    ----------
    y : (B, C) array of logits
    labels : (B,) array of integers in [0, C), which is checked, but not while a CUDA graph is captured
    weights : (B,) array of per-row weights, or None for ones
    """
    dims = _check.Dims()
    y = dims.array("y", y, "B", "C")
    labels = dims.labels("labels", labels)
    weights = None if weights is None else dims.array("weights", weights, "B")
    return choose(backend, y).cross_entropy(y, labels, weights)


def distillation_loss(
    y: Array, t: Array, temperature: float, weights: Array | None = None, labels: Array | None = None, alpha: float = 1.0, *,
    backend: str | None = None,
) -> tuple[float, Array]:  # fmt: skip
    """alpha T^2 times the mean over rows of w_b KL(softmax(t_b / T) || softmax(y_b / T)), and dL/dy (B, C).

    Hinton, Vinyals & Dean 2015, section 2. With labels (1 - alpha) times their `cross_entropy` is added. An empty batch has loss 0.

    Parameters
    ----------
    y, t : (B, C) arrays, the student's and the teacher's logits. t may have -inf, for a class that is ruled out: 0 log 0 is 0. A row of
        nothing else has no softmax, and gives NaN
    temperature : T, above 0 and at most 100: float32 rounds away the loss above. `mimic_loss` of logits less their row's mean, over C, is
        what it tends to
    weights : (B,) array of per-row weights, or None for ones
    labels : (B,) array of integers in [0, C), as in `cross_entropy`; needed where alpha is below 1
    alpha : the share of the teacher's logits, in [0, 1]
    """
    dims = _check.Dims()
    y, t = dims.array("y", y, "B", "C"), dims.array("t", t, "B", "C")
    temperature = _check.temperature(temperature)
    weights = None if weights is None else dims.array("weights", weights, "B")
    labels = None if labels is None else dims.labels("labels", labels)
    alpha = _check.number("alpha", alpha, 0, most=1)
    chosen = choose(backend, y)
    loss, dy = chosen.distillation_loss(y, t, temperature, weights)
    if alpha == 1:
        return loss, dy
    if labels is None:
        raise ValueError(f"labels: expected (B,) integers, as alpha = {alpha} leaves them a share, got None")
    hard_loss, hard_dy = chosen.cross_entropy(y, labels, weights)
    dy *= y.dtype.type(alpha)
    hard_dy *= y.dtype.type(1 - alpha)
    dy += hard_dy
    return alpha * loss + (1 - alpha) * hard_loss, dy
