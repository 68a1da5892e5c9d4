"""SGD and AdamW, and learning-rate schedules. One object serves the fused path and the plain one."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from . import _check
from .backends import choose, get
from .backends.interface import Array, Update
from .devices import capturing, is_device, kind, like, module, to

Schedule = Callable[[int], float]
"""Learning rate as a function of the steps completed before this one."""


def constant(learning_rate: float) -> Schedule:
    """The same rate at every step."""
    return lambda step: learning_rate


def cosine(learning_rate: float, steps: int, final: float = 0.0) -> Schedule:
    """From `learning_rate` to `final` along half a cosine over `steps` (Loshchilov & Hutter 2017), then `final`."""

    def rate(step: int) -> float:
        progress = min(1.0, step / max(1, steps))
        return final + (learning_rate - final) * 0.5 * (1 + math.cos(math.pi * progress))

    return rate


def step_decay(learning_rate: float, every: int, factor: float = 0.1) -> Schedule:
    """`learning_rate` times `factor` once per `every` steps."""
    if every < 1:
        raise ValueError(f"every: expected at least 1 step, got {every}")
    return lambda step: learning_rate * factor ** (step // every)


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """`schedule`, reached linearly over the first `steps`."""
    return lambda step: schedule(step) * min(1.0, (step + 1) / max(1, steps))


class Optimizer(ABC):
    """Hyperparameters, the count of steps taken, and slots named after the arrays.

    A training step is one `advance()`, which `ShallowWeights.step` calls, then one `update()` for each
    array that was not updated inside the backward pass. Weight decay skips one-dimensional arrays (b, c).

    Updates that are captured into a CUDA graph read their numbers from device memory, where `advance()` sends them from then on: call it
    before each replay (see `pymimic.Workspace`).
    """

    slot_names: tuple[str, ...]

    def __init__(self, learning_rate: float | Schedule, weight_decay: float) -> None:
        if not callable(learning_rate) and not 0 <= learning_rate < math.inf:
            raise ValueError(f"learning_rate: expected a number of at least 0 or a schedule, got {learning_rate}")
        if not 0 <= weight_decay < math.inf:
            raise ValueError(f"weight_decay: expected a number of at least 0, got {weight_decay}")
        self.schedule: Schedule = learning_rate if callable(learning_rate) else constant(learning_rate)
        self.weight_decay = weight_decay
        self.steps = 0
        self.slots: dict[str, tuple[Array, ...]] = {}
        self._numbers: dict[int, Any] = {}  # device memory for what `rule` says of arrays with one axis and with two
        self._captured = False  # whether a CUDA graph reads it

    def advance(self) -> None:
        """Begin a step: raises the count that schedules and bias corrections read. While a CUDA graph is captured, no step is begun."""
        if self._numbers and capturing():
            self._captured = True
            return
        self.steps += 1
        if self._captured:
            for axes, numbers in self._numbers.items():
                get("cuda").step_numbers(self._rule(axes), numbers)

    @property
    def learning_rate(self) -> float:
        """The rate of the step begun last (before any step: of the first)."""
        return self.schedule(max(0, self.steps - 1))

    def slots_for(self, name: str, param: Array) -> tuple[Array, ...]:
        """The slots of the array called `name`, made of zeros at first use, where the array is."""
        there = name in self.slots and all(kind(slot) == kind(param) for slot in self.slots[name])
        if is_device(param) and not (there and self._numbers):
            self._make_numbers(name)
        if name not in self.slots:
            self.slots[name] = tuple(module(param).zeros_like(param) for _ in self.slot_names)
        if any(kind(slot) != kind(param) for slot in self.slots[name]):
            self.slots[name] = tuple(like(param, slot) for slot in self.slots[name])
        if any(slot.shape != param.shape or slot.dtype != param.dtype for slot in self.slots[name]):
            have = self.slots[name][0]
            raise ValueError(f"{name}: expected shape {have.shape} {have.dtype}, as its slots have, got {param.shape} {param.dtype}")
        return self.slots[name]

    def _make_numbers(self, name: str) -> None:
        if capturing():
            raise ValueError(
                f"optimizer: expected a step before the one that is captured into a CUDA graph, as {name} has no slots there yet"
            )
        self._numbers = self._numbers or {axes: get("cuda").step_numbers(self._rule(axes)) for axes in (1, 2)}

    def rule(self, param: Array) -> Update:
        """The numbers of the current step for `param`."""
        axes = 2 if param.ndim > 1 else 1
        update = self._rule(axes)
        return update._replace(numbers=self._numbers[axes]) if is_device(param) and capturing() else update

    @abstractmethod
    def _rule(self, axes: int) -> Update:
        """The numbers of the current step for arrays of so many axes, 1 or 2."""

    def update(self, name: str, param: Array, grad: Array, backend: str | None = None) -> None:
        """Update `param` in place from its gradient, on the unfused path; `backend` as in `pymimic.ops`."""
        owner, param, grad = param, _check.any_array(name, param), _check.any_array("grad", grad)
        if grad.shape != param.shape or grad.dtype != param.dtype:
            raise ValueError(f"grad: expected {param.shape} {param.dtype} as {name} has, got {grad.shape} {grad.dtype}")
        _check.writable(name, param, owner)
        grad = _check.contiguous(grad)
        choose(backend, param).optimizer_update(param, grad, self.slots_for(name, param), self.rule(param))

    def state(self) -> dict[str, Array]:
        """Slots and the step count as NumPy arrays by name, for a checkpoint: "steps", "U.momentum", ..."""
        arrays = {f"{name}.{slot}": to("cpu", array) for name, slots in self.slots.items() for slot, array in zip(self.slot_names, slots)}
        return {"steps": np.array(self.steps, np.int64), **arrays}

    def load_state(self, state: Mapping[str, Array]) -> None:
        """Take over what `state()` gave."""
        names = {key.rpartition(".")[0] for key in state if key != "steps"}
        self.steps = int(state["steps"])
        self.slots = {name: tuple(np.array(state[f"{name}.{slot}"]) for slot in self.slot_names) for name in names}


class SGD(Optimizer):
    """v = momentum v + g, g = gradient + weight_decay p; p -= rate v, or rate (g + momentum v) with Nesterov."""

    def __init__(
        self, learning_rate: float | Schedule, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        if not 0 <= momentum < 1:
            raise ValueError(f"momentum: expected a number in [0, 1), got {momentum}")
        if nesterov and momentum == 0:
            raise ValueError("nesterov: expected momentum above 0 with it, got momentum 0")
        self.momentum, self.nesterov = momentum, nesterov
        self.slot_names = ("momentum",) if momentum else ()

    def _rule(self, axes: int) -> Update:
        decay = self.weight_decay if axes > 1 else 0.0
        return Update("sgd", self.learning_rate, decay, momentum=self.momentum, nesterov=self.nesterov)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2)."""

    slot_names = ("mean", "square")

    def __init__(
        self, learning_rate: float | Schedule = 1e-3, *, beta1: float = 0.9, beta2: float = 0.999, epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay)
        for name, value in (("beta1", beta1), ("beta2", beta2)):
            if not 0 <= value < 1:
                raise ValueError(f"{name}: expected a number in [0, 1), got {value}")
        if not 0 < epsilon < math.inf:
            raise ValueError(f"epsilon: expected a number above 0, got {epsilon}")
        self.beta1, self.beta2, self.epsilon = beta1, beta2, epsilon

    def _rule(self, axes: int) -> Update:
        return Update(
            "adamw", self.learning_rate, self.weight_decay if axes > 1 else 0.0, beta1=self.beta1, beta2=self.beta2,
            epsilon=self.epsilon, correction1=1 - self.beta1**self.steps, correction2=1 - self.beta2**self.steps,
        )  # fmt: skip
