"""SGD and AdamW, and learning-rate schedules. One object serves the fused path and the plain one."""

from __future__ import annotations

import math
import weakref
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from . import _check
from .backends import choose, get
from .backends.interface import Array, Update
from .callables import describe
from .devices import capturing, is_device, kind, like, module, to

Schedule = Callable[[int], float]
"""Learning rate as a function of the steps completed before this one, and of nothing else."""

_SAMPLED = (0, 1, 10, 100, 1000, 10_000, 100_000)  # steps whose rates tell functions of one name apart


@dataclass(frozen=True)
class constant:  # noqa: N801  (called as a function is)
    """The same rate at every step."""

    learning_rate: float

    def __post_init__(self) -> None:
        _take(self, learning_rate=_rate(self.learning_rate))

    def __call__(self, step: int) -> float:
        return self.learning_rate


@dataclass(frozen=True)
class cosine:  # noqa: N801
    """From `learning_rate` to `final` along half a cosine over `steps` (Loshchilov & Hutter 2017), then `final`."""

    learning_rate: float
    steps: int
    final: float = 0.0

    def __post_init__(self) -> None:
        steps = _check.integer("steps", self.steps, 0, 1 << 62)
        _take(self, learning_rate=_rate(self.learning_rate), steps=steps, final=_rate(self.final, "final"))

    def __call__(self, step: int) -> float:
        progress = min(1.0, step / max(1, self.steps))
        return self.final + (self.learning_rate - self.final) * 0.5 * (1 + math.cos(math.pi * progress))


@dataclass(frozen=True)
class step_decay:  # noqa: N801
    """`learning_rate` times `factor` once per `every` steps."""

    learning_rate: float
    every: int
    factor: float = 0.1

    def __post_init__(self) -> None:
        every = _check.integer("every", self.every, 1, 1 << 62)
        _take(self, learning_rate=_rate(self.learning_rate), every=every, factor=_check.number("factor", self.factor, 0))

    def __call__(self, step: int) -> float:
        return self.learning_rate * self.factor ** (step // self.every)


@dataclass(frozen=True)
class warm_up:  # noqa: N801
    """`schedule`, reached linearly over the first `steps`."""

    schedule: Schedule
    steps: int

    def __post_init__(self) -> None:
        if not callable(self.schedule):
            raise TypeError(f"schedule: expected a function of the step, such as constant(1e-3), got {type(self.schedule).__name__}")
        _take(self, steps=_check.integer("steps", self.steps, 0, 1 << 62))

    def __call__(self, step: int) -> float:
        return self.schedule(step) * min(1.0, (step + 1) / max(1, self.steps))


def _take(schedule: object, **checked: float) -> None:
    """Set fields of a frozen dataclass to what they were checked as: Python's numbers."""
    for name, value in checked.items():
        object.__setattr__(schedule, name, value)


def _rate(value: object, name: str = "learning_rate") -> float:
    return _check.number(name, value, 0, float32=True)


def _known(schedule: Schedule) -> bool:
    """Whether its description says all of it."""
    return _known(schedule.schedule) if isinstance(schedule, warm_up) else isinstance(schedule, (constant, cosine, step_decay))


class Optimizer(ABC):
    """Hyperparameters, the count of steps taken, and slots named after the arrays.

    A training step is one `advance()`, which `ShallowWeights.step` calls, then one `update()` for each
    array that was not updated inside the backward pass. Weight decay skips one-dimensional arrays (b, c).

    Steps and slots go on from training to training of the same weights. For other weights take a new object, or call `reset()`.

    Updates that are captured into a CUDA graph read their numbers from device memory, where `advance()` sends them from then on: call it
    before each replay (see `pymimic.Workspace`).
    """

    slot_names: tuple[str, ...]

    def __init__(self, learning_rate: float | Schedule, weight_decay: float) -> None:
        self.schedule: Schedule = learning_rate if callable(learning_rate) else constant(learning_rate)
        self.weight_decay = _check.number("weight_decay", weight_decay, 0, float32=True)
        self.reset()

    def reset(self) -> None:
        """Forget all steps and slots, so that other weights can be trained."""
        self.steps = 0
        self.slots: dict[str, tuple[Array, ...]] = {}
        self._numbers: dict[int, Any] = {}  # device memory for what `rule` says of arrays with one axis and with two
        self._captured = False  # whether a CUDA graph reads it
        self._owner: weakref.ref[object] | None = None  # whose weights the slots belong to, where that is known
        self._last_rate: tuple[Schedule, int, float] | None = None  # what a schedule said last

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_numbers": {}, "_captured": False, "_owner": None, "_last_rate": None}

    def __repr__(self) -> str:
        settings = {name: value for name, value in self.configuration().items() if name not in ("optimizer", "slots")}
        return f"{type(self).__name__}({', '.join(f'{name}={value}' for name, value in settings.items())})"

    def configuration(self) -> dict[str, Any]:
        """All that shapes the steps, as JSON can hold it: kind, slots, schedule and numbers."""
        rates = "" if _known(self.schedule) else f" with rates {', '.join(map(self._sampled, _SAMPLED))}"
        schedule = f"{describe(self.schedule)}{rates}"
        return {
            "optimizer": type(self).__name__, "slots": list(self.slot_names), "learning_rate": schedule, "weight_decay": self.weight_decay,
        }  # fmt: skip

    def _sampled(self, step: int) -> str:
        try:
            return f"{float(self.schedule(step)):.6g}"
        except Exception as error:  # a table of rates ends somewhere
            return type(error).__name__

    def demand_for(self, owner: object) -> None:
        """Demand that the steps so far were of the owner's weights, and take note that the next ones are.

        What nobody knows of counts as the owner's: steps by `update` alone, and those of `load_state`.
        """
        if self.steps and self._owner is not None and self._owner() is not owner:
            raise ValueError(
                f"optimizer: expected one without steps for weights that it has not trained yet, got one with {self.steps} steps and the "
                f"slots of others; make a new {type(self).__name__}, or call its reset() first"
            )
        self._owner = weakref.ref(owner)

    def rate_at(self, step: int) -> float:
        """What the schedule says, checked: a finite number of at least 0."""
        if self._last_rate is None or self._last_rate[0] is not self.schedule or self._last_rate[1] != step:
            try:
                self._last_rate = self.schedule, step, _rate(self.schedule(step))
            except (TypeError, ValueError) as error:
                raise type(error)(f"{error}, from the schedule at step {step}") from error
        return self._last_rate[2]

    def advance(self) -> None:
        """Begin a step: raises the count that schedules and bias corrections read. While a CUDA graph is captured, no step is begun."""
        if self._numbers and capturing():
            self._captured = True
            return
        self.rate_at(self.steps)  # before anything changes
        self.steps += 1
        if self._captured:
            for axes, numbers in self._numbers.items():
                get("cuda").step_numbers(self._rule(axes), numbers)

    @property
    def learning_rate(self) -> float:
        """The rate of the step begun last (before any step: of the first)."""
        return self.rate_at(max(0, self.steps - 1))

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
        if not isinstance(name, str):
            raise TypeError(f"name: expected a str, got {type(name).__name__}")
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
        """Take over what `state()` of an optimizer of the same kind gave.

        Raises
        ------
        TypeError, ValueError
            It is something else; nothing is taken over.
        """
        if not isinstance(state, Mapping) or not all(isinstance(key, str) for key in state):
            raise TypeError(f"state: expected a mapping of arrays by name, as state() gives it, got {type(state).__name__}")
        names = {key.rpartition(".")[0]: None for key in state if key != "steps"}
        wanted = {"steps", *(f"{name}.{slot}" for name in names for slot in self.slot_names)}
        if other := sorted(wanted ^ state.keys()):
            lack = "nothing" if other[0] in wanted else "it"
            raise ValueError(f"state: expected what state() of {type(self).__name__} gives, got {lack} by the name of {other[0]!r}")
        steps = np.asarray(state["steps"])
        if steps.shape != () or steps.dtype.kind not in "iu" or steps < 0:
            value = f": {steps}" if steps.shape == () else ""
            raise ValueError(f"state: expected a count in 'steps', got {steps.dtype} of shape {steps.shape}{value}")
        slots = {name: tuple(np.array(state[f"{name}.{slot}"]) for slot in self.slot_names) for name in names}
        self.slots, self.steps, self._owner = slots, int(steps), None


class SGD(Optimizer):
    """v = momentum v + g, g = gradient + weight_decay p; p -= rate v, or rate (g + momentum v) with Nesterov."""

    def __init__(
        self, learning_rate: float | Schedule, *, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0
    ) -> None:
        super().__init__(learning_rate, weight_decay)
        self.momentum = _check.number("momentum", momentum, 0, 1, float32=True)
        self.nesterov = _check.flag("nesterov", nesterov)
        if self.nesterov and self.momentum == 0:
            raise ValueError("nesterov: expected momentum above 0 with it, got momentum 0")
        self.slot_names = ("momentum",) if self.momentum else ()

    def configuration(self) -> dict[str, Any]:
        """Of the base class, and momentum and Nesterov."""
        return super().configuration() | {"momentum": self.momentum, "nesterov": self.nesterov}

    def _rule(self, axes: int) -> Update:
        decay = self.weight_decay if axes > 1 else 0.0
        return Update("sgd", self.learning_rate, decay, momentum=self.momentum, nesterov=self.nesterov)


class AdamW(Optimizer):
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019, algorithm 2).

    The defaults suit wide shallow nets as mimics and were chosen by measuring, see docs/howto/choose.md: others have 1e-3 and 0.999.
    """

    slot_names = ("mean", "square")

    def __init__(
        self, learning_rate: float | Schedule = 5e-3, *, beta1: float = 0.9, beta2: float = 0.99, epsilon: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(learning_rate, weight_decay)
        self.beta1 = _check.number("beta1", beta1, 0, 1, float32=True)
        self.beta2 = _check.number("beta2", beta2, 0, 1, float32=True)
        self.epsilon = _check.number("epsilon", epsilon, above=0, float32=True)

    def configuration(self) -> dict[str, Any]:
        """Of the base class, and both betas and epsilon."""
        return super().configuration() | {"beta1": self.beta1, "beta2": self.beta2, "epsilon": self.epsilon}

    def _rule(self, axes: int) -> Update:
        return Update(
            "adamw", self.learning_rate, self.weight_decay if axes > 1 else 0.0, beta1=self.beta1, beta2=self.beta2,
            epsilon=self.epsilon, correction1=1 - self.beta1**self.steps, correction2=1 - self.beta2**self.steps,
        )  # fmt: skip
