"""When U and W are packed into the form that the kernels read: at each call, or for a handle once after each change."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

from ...devices import capturing, cupy
from ..interface import Array
from . import operands
from .memory import allocate

Pair = tuple[Any, Any]  # of U and of W


class PackEachCall:
    """For arrays of the caller's."""

    def __init__(self, code: int) -> None:
        self._code = code

    def read(self, U: Array, W: Array) -> Pair:
        """U and W as a pass reads them."""
        return operands.operand(U, self._code), operands.operand(W, self._code)

    def read_and_write(self, U: Array, W: Array, in_place: bool) -> tuple[Pair, Pair]:
        """What a step reads, which are not the arrays themselves, and what it writes: the packed weights after it, or None and None."""
        return (operands.copied(U, self._code), operands.copied(W, self._code)), (None, None)

    @contextmanager
    def step(self, updates_packed: bool) -> Iterator[None]:
        """Around a step; `updates_packed` says whether it writes to the packed weights too."""
        yield

    def changed(self) -> None:
        """Somebody else wrote to the arrays."""

    def checked(self, a: Array) -> Any:
        """An array that belongs to the weights or their optimizer, as the binding takes it."""
        return a


class PackOnce(PackEachCall):
    """For a handle's own arrays: packed once after each change, and a step rewrites what is packed."""

    def __init__(self, code: int, params: dict[str, Array]) -> None:
        super().__init__(code)
        self._params, self._checked = params, operands.Checked()
        self._stale, self._apart = True, False
        self._packed_at: Any = None  # an event: other streams wait for what one of them has packed
        self._captured = False  # whether a CUDA graph holds the address of `_packed`
        self._packed: list[Array] = [self._room(params[key]) for key in "UW"]
        self._second: list[Array] = []  # what a step writes while others still read `_packed`

    def changed(self) -> None:
        self._stale = True

    def checked(self, a: Array) -> Any:
        return self._checked(a)

    def read(self, U: Array, W: Array) -> Pair:
        capture = capturing()
        self._captured |= capture
        if self._stale:
            for key, padded in zip("UW", self._packed):
                operands.pack(self._params[key], padded, self._code)
            self._stale = capture  # what is captured has not run
            self._packed_at = None if capture else self._now()
        elif self._packed_at is not None and not capture:
            cupy().cuda.get_current_stream().wait_event(self._packed_at)
        packed_U, packed_W = self._packed
        return packed_U, packed_W

    def read_and_write(self, U: Array, W: Array, in_place: bool) -> tuple[Pair, Pair]:
        old = self.read(U, W)
        if in_place:
            return old, old
        if not self._second:
            self._second = [self._room(self._params[key]) for key in "UW"]
            for packed, new in zip(self._packed, self._second):
                new[...] = packed  # the padding
        new_U, new_W = self._second
        self._apart = True
        return old, (new_U, new_W)

    @contextmanager
    def step(self, updates_packed: bool) -> Iterator[None]:
        self._apart, was_stale = False, self._stale
        try:
            yield
        except BaseException:
            self._stale = True
            raise
        if self._apart and self._captured:
            for old, new in zip(self._packed, self._second):
                old[...] = new
        elif self._apart:
            self._packed, self._second = self._second, self._packed
        self._stale = was_stale if capturing() else not updates_packed

    def _room(self, a: Array) -> Array:
        return cast(Array, allocate(*operands.form(a, self._code)))

    def _now(self) -> Any:
        event = cupy().cuda.Event(disable_timing=True)
        event.record(cupy().cuda.get_current_stream())
        return event
