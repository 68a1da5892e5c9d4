"""ctrl-C, and other signals that end a program, put off to a moment at which everything fits together."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import Any

_ENDING = [signal.Signals[name] for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK") if name in signal.Signals.__members__]


class Terminated(KeyboardInterrupt):
    """A signal other than ctrl-C's ends the program; `signum` says which."""

    def __init__(self, signum: int) -> None:
        super().__init__(signum)
        self.signum = signum


@contextmanager
def terminable() -> Iterator[None]:
    """Let signals that would end this program at once raise Terminated instead: as ctrl-C, they leave a checkpoint and nothing half done.

    A second one of the same kind ends the program at once. Signals that are ignored or have a handler already are left alone. Only the main
    thread can do this; elsewhere it does nothing.
    """
    set_here = []
    try:
        for number in _ENDING:
            if _in_main_thread() and signal.getsignal(number) is signal.SIG_DFL:
                with suppress(ValueError):  # an interpreter other than the main one
                    signal.signal(number, _terminate)
                    set_here.append(number)
        yield
    finally:
        for number in set_here:
            signal.signal(number, signal.SIG_DFL)


class DeferredInterrupt:
    """A context in which the first ctrl-C only raises a flag, and `check()` turns it into KeyboardInterrupt; a second one acts at once.

    The same holds for other signals inside `terminable`, or where their handler is Python's own for ctrl-C. Does nothing outside the main
    thread, where signals don't arrive, or where ctrl-C has another handler.
    """

    def __init__(self) -> None:
        self._pending: int | None = None
        self._before: dict[int, Callable[[int, FrameType | None], Any]] = {}

    def __enter__(self) -> DeferredInterrupt:
        for number in _ENDING if _in_main_thread() else ():
            handler = signal.getsignal(number)
            if handler is signal.default_int_handler or handler is _terminate:
                with suppress(ValueError):  # an interpreter other than the main one
                    signal.signal(number, self._note)
                    self._before[number] = handler
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None:
            self.check()

    @property
    def pending(self) -> bool:
        """Whether `check` would raise."""
        return self._pending is not None

    def check(self) -> None:
        """Raise KeyboardInterrupt if ctrl-C was pressed, Terminated if another signal came."""
        if self._pending is not None:
            number, self._pending = self._pending, None
            self._before[number](number, None)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        handler = self._before[signum]
        if self._pending is not None:
            handler(signum, frame)
        self._pending = signum
        if handler is _terminate:
            signal.signal(signum, signal.SIG_DFL)  # the second need not wait for Python to hear it


def _terminate(signum: int, frame: FrameType | None) -> None:
    signal.signal(signum, signal.SIG_DFL)
    raise Terminated(signum)


def _in_main_thread() -> bool:
    return threading.current_thread() is threading.main_thread()
