"""What every backend receives and returns. Arguments arrive checked by `pymimic.ops`."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from ..plan import Plan

Array = NDArray[Any]
Seed = int | Array  # ints, or on a device also 0-d int64 arrays, so that a CUDA graph can be replayed with others
Activation = Literal["relu", "identity", "tanh", "sigmoid", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "identity", "tanh", "sigmoid", "gelu")


class Mask(NamedTuple):
    """Which hidden units are kept: a pure function of these numbers and of (row, unit)."""

    keep: int = 256  # a unit is kept when its random byte < keep; 256 keeps all
    seed: int = 0  # 64 bits: Philox's key; it and offset may be `Seed`s on a device
    offset: int = 0  # 32 bits: the training step
    row: int = 0  # origin of this block, a multiple of 16 ...
    unit: int = 0  # ... and of 32

    @property
    def scale(self) -> float:
        """What survivors are multiplied by, so that the expectation is exact."""
        return 256 / self.keep


class ShallowGrads(NamedTuple):
    """Gradients of `shallow_forward`'s arguments; None where not needed."""

    z: Array | None = None
    U: Array | None = None
    b: Array | None = None
    W: Array | None = None
    c: Array | None = None


ANYWHERE = ShallowGrads()
"""Gradients to be written to new arrays."""


def gradient_arrays(
    needs: frozenset[str], out: ShallowGrads, z: Array, U: Array, W: Array, empty: Callable[[tuple[int, ...]], Array]
) -> ShallowGrads:
    """Where gradients go: to the arrays of `out`, and to new ones for the others of `needs`."""
    shapes = {"z": z.shape, "U": U.shape, "b": U.shape[:1], "W": W.shape, "c": W.shape[1:]}
    return out._replace(**{key: empty(shapes[key]) for key in needs if getattr(out, key) is None})


class FactorizedGrads(NamedTuple):
    """Gradients of `factorized_matmul`'s arguments; None where not needed."""

    x: Array | None
    V: Array | None
    U: Array | None
    b: Array | None


class LinearGrads(NamedTuple):
    """Gradients of `linear_dropout`'s arguments; None where not needed."""

    x: Array | None
    weight: Array | None
    bias: Array | None


@dataclass(frozen=True)
class Saved:
    """What `shallow_forward(save=True)` keeps for the backward pass.

    `array` is h for relu and the pre-activation otherwise, in the backend's own layout and the type that the plan says.
    """

    array: Array
    backend: str
    activation: Activation
    mask: Mask
    plan: Plan

    @property
    def nbytes(self) -> int:
        """Bytes held."""
        return int(self.array.nbytes)


def memory_for(shape: tuple[int, ...], dtype: Any, room: Array | None, empty: Callable[..., Array] = np.empty) -> Array:
    """What to keep h in: `room` if it is right, or a new array."""
    return room if room is not None and room.shape == shape and room.dtype == dtype else empty(shape, dtype)


class Update(NamedTuple):
    """One optimizer step's numbers, the same for every element of an array."""

    kind: Literal["sgd", "adamw"]
    learning_rate: float
    weight_decay: float
    momentum: float = 0.0  # sgd
    nesterov: bool = False  # sgd
    beta1: float = 0.0  # adamw ...
    beta2: float = 0.0
    epsilon: float = 0.0
    correction1: float = 1.0  # 1 - beta1^t
    correction2: float = 1.0  # 1 - beta2^t
    numbers: Any = None  # device memory that the rest is read from when the update runs: for CUDA graphs


class Backend(Protocol):
    """A module under `pymimic.backends`. Arrays are C-contiguous and of one dtype."""

    name: str

    def keeps_h(self, k: int, C: int) -> bool: ...  # whether `save` may be True; `room`, if it is right, is what to save to

    def shallow_forward(
        self, z: Array, U: Array, b: Array, W: Array, c: Array, activation: Activation, mask: Mask,
        plan: Plan, save: bool, room: Array | None, out: Array | None,
    ) -> tuple[Array, Array | None]: ...  # fmt: skip

    def shallow_backward(
        self, dy: Array, z: Array, U: Array, b: Array, W: Array, activation: Activation, mask: Mask,
        plan: Plan, saved: Array | None, needs: frozenset[str], out: ShallowGrads,
    ) -> ShallowGrads: ...  # fmt: skip

    def shallow_step(
        self, dy: Array, z: Array, params: dict[str, Array], slots: dict[str, tuple[Array, ...]],
        updates: dict[str, Update], activation: Activation, mask: Mask, plan: Plan, saved: Array | None, need_dz: bool,
    ) -> Array | None: ...  # fmt: skip

    def linear_dropout(
        self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None
    ) -> Array: ...

    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation,
        mask: Mask, needs: frozenset[str],
    ) -> LinearGrads: ...  # fmt: skip

    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array: ...

    # A loss is a float, or on a device a 0-d array there: nobody waits for it.
    def mimic_loss(self, y: Array, t: Array, weights: Array | None) -> tuple[float, Array]: ...

    def cross_entropy(self, y: Array, labels: Array, weights: Array | None) -> tuple[float, Array]: ...

    def distillation_loss(self, y: Array, t: Array, temperature: float) -> tuple[float, Array]: ...

    def optimizer_update(self, param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None: ...
