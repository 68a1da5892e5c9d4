"""`ShallowWeights` of which each process has some of the hidden units: what they pass to each other are y (B, C) and dz (B, k)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from .. import _check, arguments
from ..backends import choose
from ..backends.interface import Array, Backend, Mask, Saved, Seed, Shallow, ShallowGrads, Slots
from ..optimizer import Optimizer
from ..plan import Plan
from ..plan import plan as make_plan
from ..weights import ShallowWeights
from .group import Group
from .sums import Sums
from .units import TILE, Units

_OF_UNITS = ("U", "b", "W")


class _Part(NamedTuple):
    """Some of this process's units, whose contributions to y and dz are summed apart."""

    units: Units  # of all H
    here: slice  # the same among this process's units
    arrays: dict[str, Array]  # views of U, b and W; c is zeros, as it is added once
    backend: Backend

    def net(self, z: Array, activation: Any, mask: Mask, plan: Plan) -> Shallow:
        """What a pass over these units reads."""
        mask = mask._replace(unit=mask.unit + self.units.first)
        return Shallow(z, self.arrays["U"], self.arrays["b"], self.arrays["W"], activation, mask, plan)


class ShardedWeights(ShallowWeights):
    """Some of the hidden units of a wide layer: `forward`, `backward` and `step` are those of `ShallowWeights` on the units of all.

    Each process of the group has rows of U, b and W, in the order of ranks, and the same c. All of them make each call, with the same z
    and dy. A forward pass adds y up over the group, a backward pass dz: 4 B (C + k) bytes of float32 for each process, whatever H is.
    c is added once. Masks, weights and slots are those that one process with all units would have, but for the order of sums.

    Parameters
    ----------
    U, b, W : this process's units, (H', k), (H',) and (H', C), which are copied; H' is a multiple of 32 on all ranks but the last
    c : (C,), the same on all ranks
    group : `pymimic.distributed.ProcessGroup`, or `Group` for this process alone
    reproducible : add up at most 16 parts of H, which depend on H alone, in their order: the same bits for any number of processes that
        have whole parts. Each process then receives all parts of y and of dz, up to 16 times the bytes
    dtype, activation, backend, memory_budget, keep : as of `ShallowWeights`, the same on all ranks; the budget is this process's

    Attributes
    ----------
    units : the range of units that is this process's
    all_hidden : H

    Raises
    ------
    ValueError
        On every rank, where they differ in what has to be the same, or units are not whole tiles or parts.
    GroupError
        Another process is gone, or has raised an exception.
    """

    def __init__(
        self, U: Array, b: Array, W: Array, c: Array, dtype: str = "float32", *, group: Group, reproducible: bool = False,
        activation: str = "relu", backend: str | None = None, memory_budget: int = 256 << 20, keep: str = "float32",
    ) -> None:  # fmt: skip
        with group.together():
            super().__init__(
                U, b, W, c, dtype, activation=activation, backend=backend, memory_budget=memory_budget, keep=keep
            )  # fmt: skip
            _check.flag("reproducible", reproducible)
        self.group = group
        group.agree(
            k=self.rank, C=self.outputs, c=self._arrays["c"], dtype=dtype, activation=activation, backend=self.backend, keep=keep,
            reproducible=bool(reproducible),
        )  # fmt: skip
        counts = group.told(self.hidden)
        first = sum(counts[: group.rank])
        self.units, self.all_hidden = Units(first, first + self.hidden), sum(counts)
        with group.together():
            if not counts[group.rank] or (self.units.end % TILE and self.units.end != self.all_hidden):
                raise ValueError(f"U: expected a multiple of {TILE} units on all ranks but the last, and at least one, got {counts}")
        self._sum = Sums(group, self.units, self.all_hidden, reproducible)
        self._parts = [self._part(units) for units in self._sum.parts]

    def _part(self, units: Units) -> _Part:
        here = slice(units.first - self.units.first, units.end - self.units.first)
        arrays = {name: self._arrays[name][here] for name in _OF_UNITS} | {"c": np.zeros_like(self._arrays["c"])}
        return _Part(units, here, arrays, choose(self.backend, arrays["U"]).handle(arrays, self.dtype))

    def changed(self) -> None:
        super().changed()
        for part in self._parts:
            part.backend.changed()

    def plan(self, rows: int) -> Plan:
        """How a batch of that many rows runs on each part of this process, when h is kept."""
        return self._plan(rows, self._kept() if self._backend.keeps_h(self.rank, self.outputs) else "recompute")

    def _kept(self) -> str:
        return "keep-bf16" if self.keep == "bfloat16" else "keep"

    def _plan(self, rows: int, h: str, units: Units | None = None) -> Plan:
        units = self._parts[0].units if units is None else units
        budget = self.memory_budget // len(self._parts)
        return make_plan(rows, self.rank, self.rank, len(units), self.outputs, self.dtype, budget, h=h)

    def forward(
        self, z: Array, *, dropout: float = 0.0, seed: Seed = 0, offset: Seed = 0, origin: tuple[int, int] = (0, 0),
        save: bool | Any = False, out: Array | None = None,
    ) -> Any:  # fmt: skip
        """y (B, C) of all units; with `save`, this process's h as well, a tuple of `Saved`."""
        dims = self._dims()
        z = dims.array("z", z, "B", "k")
        out = dims.output("out", out, ("B", "C"), (z, *self._arrays.values()))
        mask = arguments.mask(dropout, seed, offset, origin, dims.on_device)
        rooms: Sequence[Any] = self._demand_parts("save", save) if isinstance(save, tuple) else [save] * len(self._parts)
        sums, kept = [], []
        for part, room in zip(self._parts, rooms):
            plan = self._plan(len(z), self.plan(len(z)).h, part.units)
            wanted, memory = arguments.save(room)
            net = part.net(z, self.activation, mask, plan)
            y, saved = part.backend.shallow_forward(net, part.arrays["c"], wanted, memory, out if len(self._parts) == 1 else None)
            sums.append(y)
            if saved is not None:
                kept.append(Saved(saved, self.backend, self.activation, net.mask, plan))
        y = self._sum(sums, out)
        y += self._arrays["c"]
        return (y, tuple(kept)) if kept else y

    def backward(
        self, dy: Array, z: Array, *, dropout: float = 0.0, seed: Seed = 0, offset: Seed = 0, origin: tuple[int, int] = (0, 0),
        saved: Any = None, needs: Iterable[str] = ("z", "U", "b", "W", "c"), out: ShallowGrads | None = None,
    ) -> ShallowGrads:  # fmt: skip
        """Gradients of this process's U, b and W, of c, and of z over all units."""
        dy, z, mask = self._checked(dy, z, dropout, seed, offset, origin)
        wanted = _check.needs(needs, ShallowGrads._fields)
        grads = arguments.gradients(self._dims(), out, wanted, (dy, z, *self._arrays.values()))
        whole = {name: getattr(grads, name) for name in wanted}
        whole |= {name: np.empty_like(self._arrays[name]) for name in wanted if name != "z" and whole[name] is None}
        sums = []
        for part, net, h in self._backward_nets(z, mask, saved):
            views = ShallowGrads(**{name: whole[name][part.here] for name in _OF_UNITS if name in wanted})
            made = part.backend.shallow_backward(dy, net, h, wanted - {"c"}, views)
            sums.append(made.z)
        if "z" in wanted:
            whole["z"] = self._sum([dz for dz in sums if dz is not None], whole["z"])
        if "c" in wanted:
            whole["c"][...] = self._gradient_of_c(dy)
        return ShallowGrads(**whole)

    def step(
        self, dy: Array, z: Array, optimizer: Optimizer, *, dropout: float = 0.0, seed: Seed = 0, offset: Seed = 0,
        origin: tuple[int, int] = (0, 0), saved: Any = None, need_dz: bool = True,
    ) -> Array | None:  # fmt: skip
        """As that of `ShallowWeights`: dz is over all units."""
        if self.group.rows.size > 1:
            raise ValueError("group: expected one without rows for a step that updates inside the backward pass: use backward()")
        dy, z, mask = self._checked(dy, z, dropout, seed, offset, origin)
        nets, sums = self._backward_nets(z, mask, saved), []
        with self._begun(optimizer) as (slots, rules):
            for part, net, h in nets:
                own: Slots = {name: tuple(slot[part.here] for slot in slots[name]) for name in _OF_UNITS}
                own["c"] = tuple(np.zeros_like(slot) for slot in slots["c"])  # of the zeros that stand for c
                dz = part.backend.shallow_step(dy, net, part.arrays["c"], own, rules, h, need_dz)
                part.arrays["c"][...] = 0
                part.backend.changed()
                if dz is not None:
                    sums.append(dz)
            c = self._arrays["c"]
            self._backend.optimizer_update(c, self._gradient_of_c(dy), slots["c"], rules["c"])
        return self._sum(sums) if need_dz else None

    def _checked(
        self, dy: Array, z: Array, dropout: float, seed: Seed, offset: Seed, origin: tuple[int, int]
    ) -> tuple[Array, Array, Mask]:  # fmt: skip
        dims = self._dims()
        dy, z = dims.array("dy", dy, "B", "C"), dims.array("z", z, "B", "k")
        return dy, z, arguments.mask(dropout, seed, offset, origin, dims.on_device)

    def _backward_nets(self, z: Array, mask: Mask, saved: Any) -> list[tuple[_Part, Shallow, Array | None]]:
        """Each part, what its backward pass reads, and what its forward pass saved."""
        given: Sequence[Saved | None] = [None] * len(self._parts) if saved is None else self._demand_parts("saved", saved)
        found = []
        for part, kept in zip(self._parts, given):
            net = part.net(z, self.activation, mask, self._plan(len(z), self.plan(len(z)).h, part.units))
            found.append((part, net, arguments.saved(kept, self.backend, self.activation, net.mask, net.plan)))
        return found

    def _demand_parts(self, name: str, saved: Any) -> tuple[Any, ...]:
        """Demand one of what a forward pass saved for each part of this process's units."""
        if not isinstance(saved, tuple) or len(saved) != len(self._parts):
            got = f"a tuple of {len(saved)}" if isinstance(saved, tuple) else type(saved).__name__
            raise TypeError(f"{name}: expected the tuple of {len(self._parts)} that forward(save=True) returned, got {got}")
        return saved

    def _gradient_of_c(self, dy: Array) -> Array:
        return np.asarray(dy.sum(axis=0, dtype=np.float64), self._arrays["c"].dtype)

    def sum_of_squares(self, gradients: dict[str, Array]) -> float:
        """Of gradients of U, b and W, over all units."""
        own = [sum(float(np.square(gradients[name][part.here], dtype=np.float64).sum()) for name in _OF_UNITS) for part in self._parts]
        return math.fsum(number for theirs in self.group.told(own) for number in theirs)
