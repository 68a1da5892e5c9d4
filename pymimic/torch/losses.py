"""The library's losses of a student's logits, as modules of torch, which differentiates, compiles and maps them as its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .. import _check

_NO_LABEL = -(1 << 62)  # torch leaves one label out, by default -100


class MimicLoss(nn.Module):
    """sum_b w_b |y_b - t_b|^2 / (2 B), as `pymimic.ops.mimic_loss`: a 0-d tensor. An empty batch has loss 0.

    Logits of float16 and bfloat16 have a loss in float32.
    """

    def forward(self, y: Tensor, t: Tensor, weights: Tensor | None = None) -> Tensor:
        """Of the student's logits y and the teacher's t, both (B, C), with weights (B,) of rows, or None for ones."""
        _demand_logits(y, t)
        return _mean((_sums(y) - _sums(t)).square().sum(1) / 2, weights)


class DistillationLoss(nn.Module):
    """alpha T^2 times the mean of w_b KL(softmax(t_b / T) || softmax(y_b / T)), as `pymimic.ops.distillation_loss`: a 0-d tensor.

    With labels (1 - alpha) times their cross-entropy is added. Hinton, Vinyals & Dean 2015, section 2. t may have -inf.

    Parameters
    ----------
    temperature : T, above 0 and at most 100, see `pymimic.ops.distillation_loss`
    alpha : the share of the teacher's logits, in [0, 1]
    """

    def __init__(self, temperature: float, alpha: float = 1.0) -> None:
        super().__init__()
        self.temperature = _check.temperature(temperature)
        self.alpha = _check.number("alpha", alpha, 0, most=1)

    def forward(self, y: Tensor, t: Tensor, labels: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
        """Of the student's logits y and the teacher's t, both (B, C); labels (B,) of int64, needed where alpha is below 1; weights (B,)."""
        _demand_logits(y, t)
        T = self.temperature
        log_p, log_q = torch.log_softmax(_sums(t) / T, 1), torch.log_softmax(_sums(y) / T, 1)
        p = log_p.exp()
        log_p = log_p.masked_fill(p == 0, 0)  # 0 log 0 is 0
        loss = T**2 * _mean((p * (log_p - log_q)).sum(1), weights)
        if self.alpha == 1:
            return loss
        if labels is None:
            raise ValueError(f"labels: expected (B,) integers, as alpha = {self.alpha} leaves them a share, got None")
        _demand("labels", labels, y.shape[:1])
        if labels.dtype not in (torch.int64, torch.uint8):
            raise RuntimeError(f"labels: expected dtype int64, got {str(labels.dtype).removeprefix('torch.')}")
        try:
            hard = _mean(nn.functional.cross_entropy(_sums(y), labels, reduction="none", ignore_index=_NO_LABEL), weights)
        except IndexError as error:
            raise ValueError(f"labels: expected classes in [0, {y.shape[1]}): {error}") from error
        return self.alpha * loss + (1 - self.alpha) * hard

    def extra_repr(self) -> str:
        """The constructor's arguments."""
        return f"temperature={self.temperature}, alpha={self.alpha}"


def _sums(logits: Tensor) -> Tensor:
    """In the dtype of sums, as float16 and bfloat16 hold none."""
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


def _mean(rows: Tensor, weights: Tensor | None) -> Tensor:
    """Over rows, weighted; 0 where there are none."""
    if weights is not None:
        _demand("weights", weights, rows.shape)
        rows = rows * weights
    return rows.sum() / max(len(rows), 1)


def _demand_logits(y: Tensor, t: Tensor) -> None:
    """Demand two tensors of one shape (B, C): of other axes nobody knows which are rows."""
    _demand("y", y)
    if y.dim() != 2:
        cure = ": pass y.flatten(0, -2), and t likewise" if y.dim() > 2 else ""
        raise ValueError(f"y: expected shape (B, C), got {tuple(y.shape)}{cure}")
    _demand("t", t, y.shape)


def _demand(name: str, given: Tensor, shape: torch.Size | None = None) -> None:
    """Demand a tensor, and its shape if there is one, lest torch broadcasts."""
    if not isinstance(given, Tensor):
        raise TypeError(f"{name}: expected a tensor, got {type(given).__name__}")
    if shape is not None and given.shape != shape:
        raise ValueError(f"{name}: expected shape {tuple(shape)}, got {tuple(given.shape)}")
