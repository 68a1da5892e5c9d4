"""A net while it learns: all that the loop asks of it is `Learner`. Here is the student's; that of nets of layers is in `layered`."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np

from .. import ops
from ..backends.interface import Array, Saved
from ..devices import is_device, module
from ..distributed.group import Group
from ..nets.net import Net
from ..nets.student import Student
from ..optimizer import Optimizer
from ..weights import ShallowWeights

_BLOCK, _DEVICE_BLOCK = 1 << 16, 1 << 26


class Learner(ABC):
    """Forward, backward and update of one net, where it is. The working weights are its own; `hand_over` gives them to the net.

    Parameters
    ----------
    net : a `Student` or a `LearningNet`
    arrays : the working weights by name, which every step changes in place
    optimizer, backend : see `pymimic.Trainer`
    ema : decay of the running average of the weights per step, or None for none. Early on the decay is (1 + n) / (10 + n) after
        n steps where that is less, so that the initial weights are soon forgotten.
    """

    group = Group()  # the processes that the net is in

    def __init__(self, net: Net, arrays: dict[str, Array], optimizer: Optimizer, ema: float | None, backend: str | None) -> None:
        self.net, self.arrays, self.optimizer, self.ema, self.backend = net, arrays, optimizer, ema, backend
        self.average = None if ema is None else {name: array.copy() for name, array in arrays.items()}

    @abstractmethod
    def forward(self, x: Array, step: int, row: int) -> tuple[Array, Any]:
        """y (B, C) of a batch x (B, D), and what the backward pass needs; `row` is where the batch begins in the masks of `step`."""

    @abstractmethod
    def gradients(self, done: Any, dy: Array) -> dict[str, Array]:
        """Gradients by name, given what `forward` left and dy = dL/dy (B, C)."""

    @abstractmethod
    def predict(self, x: Array) -> Array:
        """y (B, C) of the net with the weights that it was given, without dropout."""

    @abstractmethod
    def outputs(self, x: Array) -> Array:
        """y (B, C) of the working weights, without dropout."""

    def useful(self, x: Array) -> bool:
        """Whether weights and average are finite, and so is what the weights make of the rows x."""
        with np.errstate(all="ignore"):
            arrays = [*self.arrays.values(), *(self.average or {}).values()]
            finite = all(math.isfinite(float(array.sum())) for array in arrays)
            return bool(module(x).isfinite(self.outputs(x)).all()) and not self.group.anyone(not finite)

    def global_norm(self, gradients: dict[str, Array]) -> float:
        """sqrt of the sum of squares over all arrays."""
        return math.sqrt(sum_of_squares(gradients))

    def apply(self, gradients: dict[str, Array]) -> None:
        """One optimizer step."""
        self.optimizer.advance()
        for name, array in self.arrays.items():
            self.optimizer.update(name, array, gradients[name], self.backend)
        self.changed()
        self.update_average()

    def step(self, done: Any, dy: Array) -> None:
        """`gradients` and `apply` in one."""
        self.apply(self.gradients(done, dy))

    def demand_in_step(self) -> None:  # noqa: B027 - a process alone is in step with itself
        """Demand that weights that several processes have are the same on all of them; ValueError, which names the data, on each."""

    def changed(self) -> None:  # noqa: B027 - only learners that have other copies act on it
        """Note that `arrays` were written to."""

    def hand_over(self) -> None:
        """Give the net the weights: the averaged ones if there are such."""
        self.net.set_arrays(**(self.average or self.arrays))

    def update_average(self) -> None:
        """Move the average towards the weights, after a step."""
        if self.ema is None or self.average is None:
            return
        steps = self.optimizer.steps
        share = np.float32(1 - min(self.ema, (1 + steps) / (10 + steps)))
        for name, array in self.arrays.items():
            for average, weights in _blocks(self.average[name], array):
                change = weights - average
                change *= share
                average += change


class _Pass(NamedTuple):
    """What a student's forward pass leaves for the backward pass."""

    x: Array  # (B, D), standardised
    z: Array  # (B, k)
    saved: Saved | None  # h, where it fits the memory budget
    mask: dict[str, Any]  # the dropout mask's arguments


class LearningNet(Net):
    """A net that brings its own learner. A `Student` has `ShallowLearner`."""

    @abstractmethod
    def learner(self, optimizer: Optimizer, ema: float | None, dropout_seed: int, backend: str | None) -> Learner:
        """The net as a `pymimic.Trainer` moves it."""


class ShallowLearner(Learner):
    """V beside the wide layer's handle, which updates its weights inside the backward pass.

    Parameters
    ----------
    wide : the handle, of copies of the student's weights
    """

    net: Student

    def __init__(
        self, student: Student, wide: ShallowWeights, optimizer: Optimizer, ema: float | None, dropout_seed: int, backend: str | None
    ) -> None:
        self.dropout_seed, self.wide = dropout_seed, wide
        self.V = None if student.rank is None else student.weights()["V"].copy()
        self._saved: Saved | None = None  # whose memory the next step takes again
        arrays = ({} if self.V is None else {"V": self.V}) | self.wide.arrays(copy=False)
        super().__init__(student, arrays, optimizer, ema, backend)

    def forward(self, x: Array, step: int, row: int) -> tuple[Array, _Pass]:
        mask: dict[str, Any] = {"dropout": self.net.dropout, "seed": self.dropout_seed, "offset": step, "origin": (row, 0)}
        x = self.net.standardise(x)
        z = self._bottleneck(x)
        result = self.wide.forward(z, save=self.wide.keeps(len(z)) and (self._saved or True), **mask)
        y, self._saved = result if isinstance(result, tuple) else (result, None)
        return y, _Pass(x, z, self._saved, mask)

    def step(self, done: _Pass, dy: Array) -> None:
        dz = self.wide.step(dy, done.z, self.optimizer, saved=done.saved, need_dz=self.V is not None, **done.mask)
        if self.V is not None and dz is not None:
            self.optimizer.update("V", self.V, self._bottleneck_gradient(done, dz), self.backend)
        self.update_average()

    def gradients(self, done: _Pass, dy: Array) -> dict[str, Array]:
        needs = ("U", "b", "W", "c") if self.V is None else ("z", "U", "b", "W", "c")
        grads = self.wide.backward(dy, done.z, saved=done.saved, needs=needs, **done.mask)._asdict()
        dz = grads.pop("z")
        return grads if dz is None else {"V": self._bottleneck_gradient(done, dz), **grads}

    def predict(self, x: Array) -> Array:
        return self.net.predict(x, self.backend)

    def outputs(self, x: Array) -> Array:
        y = self.wide.forward(self._bottleneck(self.net.standardise(x)))
        assert not isinstance(y, tuple)
        return y

    def changed(self) -> None:
        self.wide.changed()

    def _bottleneck(self, x: Array) -> Array:
        if self.V is None:
            return x
        zeros = module(x).zeros(len(self.V), np.float32)
        return ops.linear_dropout(x, self.V, zeros, activation="identity", backend=self.backend)

    def _bottleneck_gradient(self, done: _Pass, dz: Array) -> Array:
        assert self.V is not None
        grads = ops.linear_dropout_backward(dz, done.x, self.V, done.z, activation="identity", needs=("weight",), backend=self.backend)
        assert grads.weight is not None
        return grads.weight


def sum_of_squares(gradients: dict[str, Array]) -> float:
    """Over all arrays, in float64 and in a fixed order."""
    squares = (module(block).square(block, dtype=np.float64).sum() for g in gradients.values() for (block,) in _blocks(g))
    return float(sum(squares))


def _blocks(*arrays: Array) -> Iterator[list[Array]]:
    """Flat views of C-contiguous arrays of one shape, piece by piece: temporaries stay in cache, and on a device small."""
    flat = [array.reshape(-1) for array in arrays]
    block = _DEVICE_BLOCK if is_device(flat[0]) else _BLOCK
    return ([array[start : start + block] for array in flat] for start in range(0, flat[0].size, block))
