"""One contestant in a process of its own: `python -m pymimic.bench.worker NAME FOLDER`, then one JSON object a line, both ways.

First it says what it is: {"title", "versions", ...} or {"skip": why}. Then it answers {"make": what, "batch": B} with the error of
its results, {"run": n, "warm": m} with the seconds of n calls after m that are not timed, and {"rest": true}, which frees memory.
"""

from __future__ import annotations

import gc
import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..backends.interface import Array
from ..devices import cupy
from . import verify
from .machine import busy_seconds
from .memory import forget_peak, peak_bytes
from .shapes import What

Run = Callable[[], Any]
"""Returns y (B, C), or arrays by name in the layout of `pymimic.ops`, or a function that makes them of what the run left: untimed."""


class Peer(Protocol):
    """What a file of peers/ holds. Of `forward`, `step` and `adamw` it has those that it can do.

    Each takes the arguments by name, which are its own to keep and to change. Optional: PRECISION ("float32"), the dtype of the
    products; WEIGHT_BYTES (4), what a weight takes; TOLERANCE (0), the relative error that it asks for beyond rounding; RECOMPUTES
    (False), whether it makes h twice in a step; DEVICE ("cpu"), or "cuda", where it runs: then its calls are timed by the device, and
    `peak_bytes()` says the most memory that it held there.
    """

    TITLE: str

    def versions(self) -> str: ...
    def forward(self, a: dict[str, Array]) -> Run: ...
    def step(self, a: dict[str, Array]) -> Run: ...
    def adamw(self, a: dict[str, Array], learning_rate: float, weight_decay: float) -> Run: ...


def peers_folder() -> Path:
    """The folder that holds peers/ and ceilings.py: inside an installed package, and benchmarks/ in a checkout."""
    package = Path(__file__).parents[1]
    installed = package / "benchmarks"
    return installed if installed.is_dir() else package.parent / "benchmarks"


def load(name: str) -> Any:
    """The module peers/NAME.py; ImportError where what it needs is not installed."""
    folder = str(peers_folder())
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(f"peers.{name}")


def make(peer: Peer, what: What, folder: Path, B: int) -> tuple[Run, float]:
    """What a contestant is to be timed on, and the relative error of its first results.

    Raises
    ------
    WrongResultError
        They are not the reference's.
    """
    a = verify.read_case(folder, B)
    if what == "adamw":
        run = peer.adamw(a, verify.LEARNING_RATE, verify.WEIGHT_DECAY)
    else:
        run = peer.step(a) if what == "step" else peer.forward(a)
    result = run()
    if callable(result):
        result = result()
    got = {key: np.asarray(value) for key, value in result.items()} if isinstance(result, dict) else np.asarray(result)
    return run, verify.check(what, got, folder, getattr(peer, "TOLERANCE", 0.0))


def introduction(peer: Any) -> dict[str, Any]:
    """What the parent needs to know of a contestant."""
    return {
        "title": peer.TITLE,
        "versions": peer.versions(),
        "precision": getattr(peer, "PRECISION", "float32"),
        "weight_bytes": getattr(peer, "WEIGHT_BYTES", 4),
        "recomputes": getattr(peer, "RECOMPUTES", False),
        "functions": [name for name in ("forward", "step", "adamw") if hasattr(peer, name)],
    }


def time_calls(run: Run, calls: int, warm: int) -> dict[str, Any]:
    """Seconds of `calls` calls: by the clock, of this process' own processor time, and of all processors' time but idle."""
    for _ in range(warm):
        run()
    busy, own, start = busy_seconds(), time.process_time(), time.perf_counter()
    for _ in range(calls):
        run()
    seconds, own = time.perf_counter() - start, time.process_time() - own
    after = busy_seconds()
    return {"seconds": seconds, "own": own, "busy": None if busy is None or after is None else after - busy}


def time_calls_on_device(run: Run, calls: int, warm: int) -> dict[str, Any]:
    """The same with seconds as the device counts them, from the first call's begin to the last one's end on the default stream."""
    cuda = cupy().cuda
    start, stop = cuda.Event(), cuda.Event()
    for _ in range(warm):
        run()
    start.synchronize()

    def enqueue() -> None:
        start.record()
        for _ in range(calls):
            run()
        stop.record()
        stop.synchronize()

    clock = time_calls(enqueue, 1, 0)
    return clock | {"seconds": cuda.get_elapsed_time(start, stop) / 1e3}


def serve(name: str, folder: Path, answer: Callable[[dict[str, Any]], None]) -> None:
    """Introduce the contestant, then obey until standard input ends."""
    try:
        peer = load(name)
        answer(introduction(peer))
    except ImportError as error:
        answer({"skip": f"{error.name or error} is not installed" if isinstance(error, ModuleNotFoundError) else str(error)})
        return
    run: Run | None = None
    for line in sys.stdin:
        order = json.loads(line)
        if "make" in order:
            run = None
            try:
                run, off = make(peer, order["make"], folder, order["batch"])
            except Exception as error:  # the user is shown whatever a library raises
                answer({"failed": f"{type(error).__name__}: {error}"})
                continue
            forget_peak()
            answer({"error": off})
        elif "rest" in order:
            run = None
            gc.collect()
            answer({})
        elif run is not None:
            on_device = getattr(peer, "DEVICE", "cpu") == "cuda"
            timed = (time_calls_on_device if on_device else time_calls)(run, order["run"], order["warm"])
            answer(timed | {"peak": peer.peak_bytes() if on_device else peak_bytes()})


def _die_with_parent() -> None:
    """A contestant that is stopped while another one runs must not outlive a parent that is killed."""
    if sys.platform == "linux":
        import ctypes
        import signal

        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


if __name__ == "__main__":
    _die_with_parent()
    channel = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print goes to standard error
    serve(sys.argv[1], Path(sys.argv[2]), lambda message: print(json.dumps(message), file=channel))
