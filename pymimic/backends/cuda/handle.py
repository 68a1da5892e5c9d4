"""The CUDA backend of a handle: U and W stay as the kernels read them."""

from __future__ import annotations

from typing import Any, cast

from ...devices import capturing, cupy
from ..interface import Array
from . import operands
from .backend import Cuda
from .memory import allocate


class Held(Cuda):
    """A backend for arrays that stay: U and W are packed once after each change, and a step rewrites what is packed."""

    def __init__(self, name: str, code: int, params: dict[str, Array]) -> None:
        super().__init__(name, code)
        self._params = params
        self._stale, self._apart = True, False
        self._packed_at: Any = None  # an event: other streams wait for what one of them has packed
        self._captured = False  # whether a CUDA graph knows where `_packed` lies
        self._packed: list[Array] = [self._room(params[key]) for key in "UW"]
        self._second: list[Array] = []  # what a step writes while what it reads is still needed

    def changed(self) -> None:
        """The arrays were written to by someone else."""
        self._stale = True

    def _room(self, a: Array) -> Array:
        return cast(Array, allocate(*operands.form(a, self._code)))

    def _fresh(self) -> list[Array]:
        capture = capturing()
        self._captured |= capture
        if self._stale:
            for key, padded in zip("UW", self._packed):
                operands.pack(self._params[key], padded, self._code)
            self._stale = capture  # what is captured has not been done
            self._packed_at = None if capture else self._now()
        elif self._packed_at is not None and not capture:
            cupy().cuda.get_current_stream().wait_event(self._packed_at)
        return self._packed

    def _now(self) -> Any:
        event = cupy().cuda.Event(disable_timing=True)
        event.record(cupy().cuda.get_current_stream())
        return event

    def _between(self, U: Array, b: Array, W: Array) -> tuple[Array, Array, Array]:
        packed_U, packed_W = self._fresh()
        return packed_U, b, packed_W

    def _step_operands(self, U: Array, W: Array, in_place: bool) -> tuple[tuple[Array, Array], tuple[Any, Any]]:
        old_U, old_W = self._fresh()
        if in_place:
            return (old_U, old_W), (old_U, old_W)
        if not self._second:
            self._second = [self._room(self._params[key]) for key in "UW"]
            for old, new in zip(self._packed, self._second):
                new[...] = old  # the padding
        new_U, new_W = self._second
        self._apart = True
        return (old_U, old_W), (new_U, new_W)

    def shallow_step(self, dy: Array, z: Array, *rest: Any) -> Array | None:
        self._apart, was_stale = False, self._stale
        try:
            dz = super().shallow_step(dy, z, *rest)
        except BaseException:
            self._stale = True
            raise
        if self._apart and self._captured:
            for old, new in zip(self._packed, self._second):
                old[...] = new
        elif self._apart:
            self._packed, self._second = self._second, self._packed
        self._stale = was_stale if capturing() else len(z) == 0  # without rows the arrays were updated apart
        return dz
