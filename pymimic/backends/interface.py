"""The one door between the library and its backends: what a backend may be asked, what it receives and returns.

Arguments arrive checked. `Backend` has an answer for everything but the ops themselves, so that a new backend is one file with the ops,
and one line in `pymimic.backends`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np

from ..devices import Array as Array
from ..errors import BackendUnavailableError
from ..plan import Plan
from ..plan import plan as plan_for

Seed = int | Array  # ints; on a device also 0-d int64 arrays, so that a CUDA graph can be replayed with other values
Activation = Literal["relu", "identity", "tanh", "sigmoid", "gelu"]
ACTIVATIONS: tuple[Activation, ...] = ("relu", "identity", "tanh", "sigmoid", "gelu")


class Mask(NamedTuple):
    """Which hidden units are kept: a pure function of these numbers and of (row, unit)."""

    threshold: int = 256  # a unit is kept when its random byte is below; 256 keeps all
    seed: int = 0  # 64 bits: Philox's key; it and offset may be `Seed`s on a device
    offset: int = 0  # 32 bits: the training step
    row: int = 0  # origin of this block, a multiple of 16 ...
    unit: int = 0  # ... and of 32

    @property
    def scale(self) -> float:
        """What survivors are multiplied by, so that the expectation is exact."""
        return 256 / self.threshold


class Shallow(NamedTuple):
    """What a forward and a backward pass read: h = dropout(f(z U^T + b)), y = h W + c but for c."""

    z: Array  # (B, k)
    U: Array  # (H, k)
    b: Array  # (H,)
    W: Array  # (H, C)
    activation: Activation
    mask: Mask
    plan: Plan


class ShallowGrads(NamedTuple):
    """Gradients of `shallow_forward`'s arguments; None where not needed."""

    z: Array | None = None
    U: Array | None = None
    b: Array | None = None
    W: Array | None = None
    c: Array | None = None


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
        """Bytes of the array."""
        return int(self.array.nbytes)


def memory_for(shape: tuple[int, ...], dtype: Any, room: Array | None, empty: Callable[..., Array] = np.empty) -> Array:
    """Memory to save h in: `room` if its shape and type are right, or a new array."""
    return room if room is not None and room.shape == shape and room.dtype == dtype else empty(shape, dtype)


Slots = dict[str, tuple[Array, ...]]
"""An optimizer's arrays for each of U, b, W and c, by name."""


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


def quantised(matrix: Array, scale: Array | None = None, largest: int = 127) -> tuple[Any, Array]:
    """Each row as integers of at most `largest`, and the scale of each row: the one given, or the row's largest value over `largest`."""
    if scale is None:
        scale = np.abs(matrix).max(axis=1) / np.float32(largest)
    steps = np.divide(matrix, scale[:, None], out=np.zeros_like(matrix), where=scale[:, None] > 0)
    return np.clip(np.rint(steps), -largest, largest), scale  # a scale below float32's normal numbers has few digits: a step can be more


class Served(Protocol):
    """A net whose weights are laid out for predictions of a few rows."""

    array: type  # what `predict` takes
    nbytes: int  # that its weights take

    def predict(self, x: Array) -> Array:
        """y (B, C) of x (B, D): a C-contiguous float32 array, where the weights are."""


class Backend(ABC):
    """How the ops run on arrays of one kind, which are C-contiguous and of one dtype."""

    writes_h = False  # whether `shallow_forward` takes memory for h (B, H)

    def __init__(self, name: str) -> None:
        self.name = name

    @abstractmethod
    def shallow_forward(self, net: Shallow, c: Array, save: bool, room: Array | None, out: Array | None) -> tuple[Array, Array | None]:
        """y and, with `save`, h for the backward pass, in `room` if that is the right memory."""

    @abstractmethod
    def shallow_backward(self, dy: Array, net: Shallow, saved: Array | None, needs: frozenset[str], out: ShallowGrads) -> ShallowGrads:
        """The gradients of `needs`, in the arrays of `out` or in new ones."""

    @abstractmethod
    def shallow_step(
        self, dy: Array, net: Shallow, c: Array, slots: Slots, updates: dict[str, Update], saved: Array | None, need_dz: bool,
    ) -> Array | None:  # fmt: skip
        """Update U, b, W and c in place; returns dz of the weights as they were, if it is needed."""

    @abstractmethod
    def linear_dropout(self, x: Array, weight: Array, bias: Array | None, activation: Activation, mask: Mask, out: Array | None) -> Array:
        """dropout(f(x weight^T + bias))."""

    @abstractmethod
    def linear_dropout_backward(
        self, dout: Array, x: Array, weight: Array, bias: Array | None, out: Array, activation: Activation,
        mask: Mask, needs: frozenset[str],
    ) -> LinearGrads:  # fmt: skip
        """The gradients of `needs`."""

    @abstractmethod
    def dropout(self, x: Array, mask: Mask, out: Array | None) -> Array:
        """x, masked over its last two axes."""

    # A loss is a float. On a device it is a 0-d array there, so that the host need not wait for it.

    @abstractmethod
    def mimic_loss(self, y: Array, t: Array, weights: Array | None) -> tuple[float, Array]:
        """The loss and dL/dy."""

    @abstractmethod
    def cross_entropy(self, y: Array, labels: Array, weights: Array | None) -> tuple[float, Array]:
        """The loss and dL/dy."""

    @abstractmethod
    def distillation_loss(self, y: Array, t: Array, temperature: float, weights: Array | None) -> tuple[float, Array]:
        """The loss and dL/dy; 0 log 0 is 0, so that t may rule out classes by -inf."""

    @abstractmethod
    def optimizer_update(self, param: Array, grad: Array, slots: tuple[Array, ...], update: Update) -> None:
        """Update `param` and its slots in place."""

    def keeps_h(self, k: int, C: int) -> bool:
        """Whether `shallow_forward` can save h for the backward pass."""
        return True

    def passes(self, plan: Plan) -> dict[str, str]:
        """What this machine does in the passes of that plan, by name and in words, where the plan does not say it all."""
        return {}

    def handle(self, params: dict[str, Array], dtype: str) -> Backend:
        """The backend of a handle that owns these arrays (U, b, W, c) and multiplies in `dtype`."""
        return self

    def changed(self) -> None:  # noqa: B027  (most backends have no copies to make again)
        """Of a handle's backend: somebody else wrote to its arrays."""

    def prediction(self, weights: dict[str, Array], activation: Activation) -> Prediction:
        """The forward pass of a whole net, V (if it has one), U, b, W and c by name, without dropout."""
        return Prediction(self, weights, activation)

    def predictor(
        self, weights: dict[str, Array], activation: Activation, mean: Array | None, scale: Array | None, dtype: str, copy: bool | None,
        steps: dict[str, Array],
    ) -> Served:  # fmt: skip
        """The same net, of (x - mean) * scale, laid out for a few rows; `dtype` and `copy` as in `pymimic.Predictor`.

        `steps` are, on the host, the scales of rows of V, U and W that are integers times them; int8 takes those integers.
        """
        raise BackendUnavailableError(f"student: a Predictor needs the compiled core or a device, and this is backend {self.name!r}")

    def step_numbers(self, update: Update, to: Any = None) -> Any:
        """The numbers of a step in device memory, `to` or new memory, for updates captured into a CUDA graph. None on the host."""
        return None


class Prediction:
    """The forward pass of a whole net without dropout: V (if it has one), U, b, W and c by name, where they are."""

    def __init__(self, backend: Backend, weights: dict[str, Array], activation: Activation) -> None:
        self._backend, self._weights, self._activation = backend, weights, activation

    @property
    def row_bytes(self) -> int:
        """Scratch that a row takes, beside x, z and y."""
        return 16 * len(self._weights["U"]) if self._backend.writes_h else 0

    def predict(self, x: Array, out: Array | None) -> Array:
        """y (B, C) of x (B, D) as the first weights see it, written to `out` if that is given."""
        w, z = self._weights, x
        if "V" in w:
            z = self._backend.linear_dropout(x, w["V"], np.zeros(len(w["V"]), np.float32), "identity", Mask(), None)
        (B, k), (H, C) = z.shape, w["W"].shape
        net = Shallow(z, w["U"], w["b"], w["W"], self._activation, Mask(), plan_for(B, k, k, H, C))
        return self._backend.shallow_forward(net, w["c"], False, None, out)[0]
