"""A student while it learns: V beside the wide layer's handle, the optimizer, and the running average of the weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..backends.interface import Array, Saved
from ..devices import is_device, module
from ..nets.student import Student
from ..optimizer import Optimizer
from ..weights import ShallowWeights

_BLOCK, _DEVICE_BLOCK = 1 << 16, 1 << 26


class Pass(NamedTuple):
    """What a forward pass leaves for the backward pass."""

    x: Array  # (B, D), standardised
    z: Array  # (B, k)
    y: Array  # (B, C)
    saved: Saved | None  # h, where it fits the memory budget
    mask: dict[str, Any]  # the dropout mask's arguments


class Learner:
    """Forward, backward and update of one student, where it is. The working weights are its own; `hand_over` gives them to the student.

    Parameters
    ----------
    student, optimizer : see `pymimic.Trainer`
    dropout_seed : Philox's key
    ema : decay of the running average of the weights per step, or None for none. Early on the decay is (1 + n) / (10 + n) after
        n steps where that is less, so that the initial weights are soon forgotten.
    backend, memory_budget, dtype, keep : see `pymimic.ShallowWeights`
    """

    def __init__(
        self, student: Student, optimizer: Optimizer, *, dropout_seed: int, ema: float | None, backend: str | None, memory_budget: int,
        dtype: str, keep: str,
    ) -> None:  # fmt: skip
        arrays = student.arrays()
        self.student, self.optimizer, self.dropout_seed, self.ema = student, optimizer, dropout_seed, ema
        self.V = arrays.pop("V", None)
        U, b, W, c = (arrays[name] for name in ("U", "b", "W", "c"))
        self.wide = ShallowWeights(
            U, b, W, c, dtype, activation=student.activation, backend=backend, memory_budget=memory_budget, keep=keep
        )  # fmt: skip
        self._saved: Saved | None = None  # whose memory the next step takes again
        self.average = None if ema is None else {name: array.copy() for name, array in self.arrays().items()}

    def arrays(self) -> dict[str, Array]:
        """The working weights themselves, not copies."""
        bottleneck = {} if self.V is None else {"V": self.V}
        return bottleneck | self.wide.arrays(copy=False)

    def forward(self, x: Array, step: int, row: int) -> Pass:
        """y of a batch of inputs x (B, D); `row` is where the batch begins in the dropout mask of `step`."""
        mask: dict[str, Any] = {"dropout": self.student.dropout, "seed": self.dropout_seed, "offset": step, "origin": (row, 0)}
        x = z = self.student.standardise(x)
        if self.V is not None:
            zeros = module(x).zeros(len(self.V), np.float32)
            z = ops.linear_dropout(x, self.V, zeros, activation="identity", backend=self.wide.backend)
        result = self.wide.forward(z, save=self.wide.keeps(len(z)) and (self._saved or True), **mask)
        y, self._saved = result if isinstance(result, tuple) else (result, None)
        return Pass(x, z, y, self._saved, mask)

    def step(self, done: Pass, dy: Array) -> None:
        """The fused path: the wide layer is updated inside its backward pass, then V."""
        dz = self.wide.step(dy, done.z, self.optimizer, saved=done.saved, need_dz=self.V is not None, **done.mask)
        if self.V is not None and dz is not None:
            self.optimizer.update("V", self.V, self._bottleneck_gradient(done, dz), self.wide.backend)
        self._average()

    def gradients(self, done: Pass, dy: Array) -> dict[str, Array]:
        """The unfused path, first half: gradients by name."""
        needs = ("U", "b", "W", "c") if self.V is None else ("z", "U", "b", "W", "c")
        grads = self.wide.backward(dy, done.z, saved=done.saved, needs=needs, **done.mask)._asdict()
        dz = grads.pop("z")
        return grads if dz is None else {"V": self._bottleneck_gradient(done, dz), **grads}

    def apply(self, gradients: dict[str, Array]) -> None:
        """The unfused path, second half: one optimizer step."""
        self.optimizer.advance()
        for name, array in self.arrays().items():
            self.optimizer.update(name, array, gradients[name], self.wide.backend)
        self.wide.changed()
        self._average()

    def hand_over(self) -> None:
        """Give the student the weights: the averaged ones if there are such."""
        self.student.set_arrays(**(self.average or self.arrays()))

    def _bottleneck_gradient(self, done: Pass, dz: Array) -> Array:
        assert self.V is not None
        grads = ops.linear_dropout_backward(dz, done.x, self.V, done.z, activation="identity", needs=("weight",), backend=self.wide.backend)
        assert grads.weight is not None
        return grads.weight

    def _average(self) -> None:
        if self.ema is None or self.average is None:
            return
        steps = self.optimizer.steps
        share = np.float32(1 - min(self.ema, (1 + steps) / (10 + steps)))
        for name, array in self.arrays().items():
            for average, weights in _blocks(self.average[name], array):
                change = weights - average
                change *= share
                average += change


def global_norm(gradients: dict[str, Array]) -> float:
    """sqrt of the sum of squares over all arrays, summed in float64 and in a fixed order."""
    squares = (module(block).square(block, dtype=np.float64).sum() for g in gradients.values() for (block,) in _blocks(g))
    return math.sqrt(float(sum(squares)))


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """Flat views of C-contiguous arrays of one shape, piece by piece: temporaries stay in cache, and on a device small."""
    flat = [array.reshape(-1) for array in arrays]
    block = _DEVICE_BLOCK if is_device(flat[0]) else _BLOCK
    return ([array[start : start + block] for array in flat] for start in range(0, flat[0].size, block))
