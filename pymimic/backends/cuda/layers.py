"""Layers around cuBLAS products, dropout, losses and optimizer updates on CuPy arrays."""

from __future__ import annotations

from abc import ABC
from typing import Any, cast

import numpy as np

from ... import _cuda
from ...devices import cupy
from ..interface import ACTIVATIONS, Activation, Array, Backend, LinearGrads, Mask, Update
from . import cublas, operands
from .memory import allocate, copied, empty, scratch, stream

NAMES = ("cuda-bf16", "cuda-fp16", "cuda-tf32", "cuda")  # in the order of pymimic_precision


class Layers(Backend, ABC):
    """All of a `Backend` but the shallow ops, which may multiply in another precision, given by its code."""

    def __init__(self, name: str, code: int | None = None) -> None:
        super().__init__(name)
        self.code = NAMES.index(name) if code is None else code
        self._checked = operands.Checked()  # what an optimizer updates

    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        out = empty((len(x), len(weight))) if out is None else out
        self._multiply(x, weight, out, transpose_b=True)
        if out.size and not (bias is None and activation == "identity" and mask.threshold == 256):
            _cuda.linear_dropout(out, bias, out, ACTIVATIONS.index(activation), mask, stream())
        return out

    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation, mask: Mask,
        needs: frozenset[str],
    ) -> LinearGrads:  # fmt: skip
        da = dout
        dx = empty(x.shape) if "x" in needs else None
        dweight = empty(weight.shape) if "weight" in needs else None
        dbias = empty((len(weight),)) if "bias" in needs else None
        plain = activation == "identity" and mask.threshold == 256
        if dout.size == 0:
            for grad in (dx, dweight, dbias):
                if grad is not None:
                    grad.fill(0)
            return LinearGrads(dx, dweight, dbias)
        if not plain:
            if activation == "gelu":  # takes the same value twice: its slope is of the pre-activation
                product = empty(out.shape)
                self._multiply(x, weight, product, transpose_b=True)
                out = product
            da = empty(dout.shape)
            room = scratch(_cuda.linear_dropout_backward_workspace(*dout.shape))
            code = ACTIVATIONS.index(activation)
            _cuda.linear_dropout_backward(dout, out, bias, da, dbias, code, mask, room, stream())
        elif dbias is not None:
            self._column_sums(dout, dbias)
        if dx is not None:
            self._multiply(da, weight, dx)
        if dweight is not None:
            self._multiply(da, x, dweight, transpose_a=True)
        return LinearGrads(dx, dweight, dbias)

    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array:
        out = empty(x.shape) if out is None else out
        _cuda.dropout(x, out, mask, stream())
        return out

    def mimic_loss(self, y: Array, t: Array, weights: Array | None) -> tuple[float, Array]:
        return self._loss(_cuda.mimic_loss, y, t, weights)

    def cross_entropy(self, y: Array, labels: Array, weights: Array | None) -> tuple[float, Array]:
        return self._loss(_cuda.cross_entropy, y, copied(labels, np.int64), weights)

    def distillation_loss(self, y: Array, t: Array, temperature: float, weights: Array | None) -> tuple[float, Array]:
        return self._loss(_cuda.distillation_loss, y, t, temperature, weights)

    def optimizer_update(self, param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
        if param.size:
            check = self._checked
            _cuda.optimizer_update(parameter(check(param), tuple(map(check, slots)), None, update), self.code, grad, stream())

    def step_numbers(self, update: Update, to: Any = None) -> Any:
        """The numbers of a step, copied on the current stream to memory that captured updates read them from."""
        numbers = np.frombuffer(_cuda.update_numbers(update[:-1]), np.uint8)
        to = allocate(numbers.shape, np.uint8) if to is None else to
        to.set(numbers, stream=cupy().cuda.get_current_stream())
        return to

    def _column_sums(self, a: Array, sums: Array) -> None:
        _cuda.column_sums(a, sums, scratch(_cuda.column_sums_workspace(*a.shape)), stream())

    def _loss(self, function: Any, y: Array, *others: Any) -> tuple[float, Array]:
        loss, dy = empty(()), empty(y.shape)
        if y.size == 0:
            loss.fill(0)
        else:
            function(y, *others, loss, dy, scratch(_cuda.loss_workspace(*y.shape)), stream())
        return cast(float, loss), dy

    def _multiply(self, a: Array, b: Array, out: Array, **transposed: bool) -> None:
        cublas.multiply(a, b, out, cublas.COMPUTE_TYPES[self.name], **transposed)


def parameter(param: Array, slots: tuple[Array, ...], working: Any, update: Update) -> Any:
    """What an update writes and reads, as the binding takes it."""
    return param, slots, working, update[:-1], update.numbers
