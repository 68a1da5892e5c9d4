"""The handle for those who leave the weights inside the library: the trainer, and serving."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from . import _check, arguments
from .backends import choose
from .backends.interface import Array, Mask, Saved, Seed, Shallow, ShallowGrads, Slots, Update
from .devices import is_device, module
from .errors import CudaError
from .optimizer import Optimizer
from .plan import Plan, plan

_NAMES = ("U", "b", "W", "c")


class ShallowWeights:
    """Owns U (H, k), b (H,), W (H, C) and c (C,); `forward`, `backward` and `step` are the ops on them.

    `step` runs the optimizer inside the backward pass: gradients of the wide layer are never stored.

    Parameters
    ----------
    U, b, W, c : arrays, which are copied. CuPy arrays stay on their device; there U and W have a second copy in the kernels' layout,
        which `step` keeps up to date
    dtype : "float32", "float64" (not on a device) or "bfloat16". With bfloat16 the operands z, dy, U, W, h and da are rounded as they enter
        a product; sums are float32, and so are b, c and the weights that the optimizer updates
    activation : see `pymimic.ops.shallow_forward`
    backend : see `pymimic.ops`; None takes the fastest here, and on a device "cuda"
    memory_budget : bytes that h may take between `forward` and `backward`; `keeps` says whether it fits. On a device h is kept only where
        k or C is above 256 (512 as float32)
    keep : the type in which `forward(save=True)` keeps h: "float32", which means `dtype`, or "bfloat16"; see `pymimic.plan`
    """

    def __init__(
        self, U: Array, b: Array, W: Array, c: Array, dtype: str = "float32", *, activation: str = "relu",
        backend: str | None = None, memory_budget: int = 256 << 20, keep: str = "float32",
    ) -> None:  # fmt: skip
        if not _check.one_of(dtype, ("float32", "float64", "bfloat16")):
            raise ValueError(f"dtype: expected 'float32', 'float64' or 'bfloat16', got {dtype!r}")
        dims = _check.Dims()
        shapes = {"U": ("H", "k"), "b": ("H",), "W": ("H", "C"), "c": ("C",)}
        arrays = {name: dims.array(name, value, *shapes[name]) for name, value in zip(_NAMES, (U, b, W, c))}
        if dtype == "float64" and is_device(arrays["U"]):
            raise ValueError("dtype: expected 'float32' or 'bfloat16' on a device, got 'float64'")
        master = "float32" if dtype == "bfloat16" else dtype
        self._arrays = {name: module(value).array(value, master, order="C") for name, value in arrays.items()}
        self.hidden, self.rank, self.outputs = dims["H"], dims["k"], dims["C"]
        arguments.save_dtype(keep, dtype)
        self.dtype, self.memory_budget, self.keep = dtype, _check.integer("memory_budget", memory_budget, 0, 1 << 62), keep
        self.activation = arguments.activation(activation)
        self.owner: object = None  # whose weights an optimizer takes these for, where not the handle's own
        self._backend = choose(backend, self._arrays["U"]).handle(self._arrays, dtype)

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_backend": self.backend}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__ |= state
        self._backend = choose(state["_backend"], self._arrays["U"]).handle(self._arrays, self.dtype)

    @property
    def backend(self) -> str:
        """The name of the backend in use."""
        return self._backend.name

    @property
    def nbytes(self) -> int:
        """Bytes that the weights take."""
        return sum(array.nbytes for array in self._arrays.values())

    def arrays(self, copy: bool = True) -> dict[str, Array]:
        """U, b, W and c by name: copies, or with `copy=False` the weights themselves. Call `changed()` after you write to those."""
        return {name: array.copy() if copy else array for name, array in self._arrays.items()}

    def changed(self) -> None:
        """Say that you wrote to the arrays of `arrays(copy=False)`."""
        self._backend.changed()

    def forward(
        self, z: Array, *, dropout: float = 0.0, seed: Seed = 0, offset: Seed = 0, origin: tuple[int, int] = (0, 0),
        save: bool | Saved = False, out: Array | None = None,
    ) -> Array | tuple[Array, Saved]:  # fmt: skip
        """y (B, C), as `pymimic.ops.shallow_forward`."""
        dims = self._dims()
        z = dims.array("z", z, "B", "k")
        out = dims.output("out", out, ("B", "C"), (z, *self._arrays.values()))
        mask = arguments.mask(dropout, seed, offset, origin, dims.on_device)
        plan = self.plan(len(z))
        save, room = arguments.save(save)
        if save and plan.h == "recompute":
            raise ValueError(f"save: expected False with backend {self.backend!r}, whose backward pass makes h again, got True")
        y, saved = self._backend.shallow_forward(self._net(z, mask, plan), self._arrays["c"], save, room, out)
        return y if saved is None else (y, Saved(saved, self.backend, self.activation, mask, plan))

    def _dims(self) -> _check.Dims:
        """The sizes and the dtype that arguments must agree with."""
        return _check.Dims(("U", self._arrays["U"]), H=self.hidden, k=self.rank, C=self.outputs)

    def plan(self, rows: int) -> Plan:
        """How a batch of that many rows runs when h is kept."""
        if not self._backend.keeps_h(self.rank, self.outputs):
            return self._plan(rows, "recompute")
        return self._plan(rows, "keep-bf16" if self.keep == "bfloat16" else "keep")

    def _plan(self, rows: int, h: str) -> Plan:
        return plan(rows, self.rank, self.rank, self.hidden, self.outputs, self.dtype, self.memory_budget, h=h)

    def keeps(self, rows: int) -> bool:
        """Whether to keep h of that many rows by `forward(save=True)`: it fits the budget and pays (`pymimic.plan`)."""
        if not self._backend.keeps_h(self.rank, self.outputs):
            return False
        if self.keep == "bfloat16":
            return self.plan(rows).saved_bytes <= self.memory_budget
        return self._plan(rows, "auto").h == "keep"

    def backward(
        self, dy: Array, z: Array, *, dropout: float = 0.0, seed: Seed = 0, offset: Seed = 0, origin: tuple[int, int] = (0, 0),
        saved: Saved | None = None, needs: Iterable[str] = ("z", "U", "b", "W", "c"), out: ShallowGrads | None = None,
    ) -> ShallowGrads:  # fmt: skip
        """Gradients, as `pymimic.ops.shallow_backward`."""
        dy, net, array = self._backward_arguments(dy, z, dropout, seed, offset, origin, saved)
        wanted = _check.needs(needs, ShallowGrads._fields)
        out = arguments.gradients(self._dims(), out, wanted, (dy, net.z, *self._arrays.values()))
        return self._backend.shallow_backward(dy, net, array, wanted, out)

    def _backward_arguments(
        self, dy: Array, z: Array, dropout: float, seed: Seed, offset: Seed, origin: tuple[int, int], saved: Saved | None
    ) -> tuple[Array, Shallow, Array | None]:
        dims = self._dims()
        dy, z = dims.array("dy", dy, "B", "C"), dims.array("z", z, "B", "k")
        mask = arguments.mask(dropout, seed, offset, origin, dims.on_device)
        plan = arguments.plan(None if saved is not None else self.plan(len(z)), dims, saved, self.dtype)
        return dy, self._net(z, mask, plan), arguments.saved(saved, self.backend, self.activation, mask, plan)

    def _net(self, z: Array, mask: Mask, plan: Plan) -> Shallow:
        w = self._arrays
        return Shallow(z, w["U"], w["b"], w["W"], self.activation, mask, plan)

    def step(
        self, dy: Array, z: Array, optimizer: Optimizer, *, dropout: float = 0.0, seed: Seed = 0, offset: Seed = 0,
        origin: tuple[int, int] = (0, 0), saved: Saved | None = None, need_dz: bool = True,
    ) -> Array | None:  # fmt: skip
        """Update the weights and the optimizer's slots inside the backward pass; returns dz (B, k) of the weights as they were.

        With `need_dz=False`, for a z that is the input itself, it returns None and does not compute dz.

        It calls `optimizer.advance()`. Update arrays of your own (V) after it, by `optimizer.update`. A capture into a CUDA graph takes no
        step: each replay does, after an `advance()` of yours (see `pymimic.Workspace`). An optimizer that has stepped other weights is
        refused.
        """
        dy, net, array = self._backward_arguments(dy, z, dropout, seed, offset, origin, saved)
        with self._begun(optimizer) as (slots, rules):
            return self._backend.shallow_step(dy, net, self._arrays["c"], slots, rules, array, need_dz)

    @contextmanager
    def _begun(self, optimizer: Optimizer) -> Iterator[tuple[Slots, dict[str, Update]]]:
        """A step of the optimizer: its slots and its numbers for each of the weights."""
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"optimizer: expected a pymimic Optimizer, such as SGD or AdamW, got {type(optimizer).__name__}")
        optimizer.demand_for(self if self.owner is None else self.owner)
        taken = optimizer.steps
        slots = {name: optimizer.slots_for(name, param) for name, param in self._arrays.items()}
        optimizer.advance()
        try:
            yield slots, {name: optimizer.rule(param) for name, param in self._arrays.items()}
        except CudaError:
            optimizer.steps = taken  # there was no step, as where memory did not suffice
            raise
