"""Contestants timed in interleaved rounds, one at a time: while one runs, the others are stopped."""

from __future__ import annotations

import contextlib
import json
import math
import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from .. import get_num_threads
from .machine import python_path
from .shapes import What

OTHERS_SHARE = 0.05  # of all cores' time: a turn is discarded in which other processes took more
SPEED_SHARE = 0.8  # of the cores' best speed so far: a turn is discarded if they were slower before or after it
_TICKS = 0.02  # seconds: processor time is counted in hundredths, so that two of them say nothing
_ANSWER_SECONDS = 900.0
_THREAD_VARIABLES = ("PYMIMIC_NUM_THREADS", "OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMBA_NUM_THREADS")

Rates = dict[str, float]


class Probe(Protocol):
    """Says how fast the cores are now, by any names, and the fastest that they have been of late; nothing where nobody looks."""

    best: Rates

    def __call__(self) -> Rates: ...


class ContestantError(RuntimeError):
    """A contestant cannot go on; the message is for the user."""


class Contestant:
    """A process that runs one file of peers/ on one case. It is stopped whenever it has no order to carry out."""

    def __init__(self, name: str, folder: Path, device: str = "cpu") -> None:
        self.name = name
        threads = {variable: str(get_num_threads()) for variable in _THREAD_VARIABLES}
        quiet = {"JAX_PLATFORMS": "cpu", "TORCHINDUCTOR_COMPILE_THREADS": "1", "PYTHONPATH": python_path()}
        quiet |= {} if device == "cuda" else {"CUDA_VISIBLE_DEVICES": ""}
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the contestant)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "pymimic.bench.worker", name, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self._errors, env=os.environ | threads | quiet,
        )  # fmt: skip
        try:
            self.introduction = self._answer()
            if "skip" in self.introduction:
                raise ContestantError(self.introduction["skip"])
        except ContestantError:
            self.close()
            raise

    def __enter__(self) -> Contestant:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def title(self) -> str:
        """What tables call it."""
        return str(self.introduction.get("title", self.name))

    def can(self, what: What) -> bool:
        """Whether it has a function for that work."""
        return ("forward" if what == "serving" else what) in self.introduction.get("functions", ())

    def ask(self, **order: object) -> dict[str, Any]:
        """Carry out an order and give its answer."""
        assert self._process.stdin is not None
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.stdin.write(json.dumps(order).encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # _answer says why it ended
        answer = self._answer()
        if "failed" in answer:
            raise ContestantError(answer["failed"])
        return answer

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            with contextlib.suppress(BrokenPipeError):
                if stream is not None:
                    stream.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        if not select.select([self._process.stdout], [], [], _ANSWER_SECONDS)[0]:
            raise ContestantError(f"no answer within {_ANSWER_SECONDS:.0f} s")
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._errors.seek(0)
            last = self._errors.read().decode(errors="replace").strip().splitlines()[-1:] or ["no message"]
            raise ContestantError(f"died of signal {-code}" if code < 0 else f"died: {last[0]}")
        self._process.send_signal(signal.SIGSTOP)
        answer: dict[str, Any] = json.loads(line)
        return answer


@dataclass
class Pace:
    """How long to time: until everyone has `rounds` quiet turns, or `least` of them after `seconds`; never three times either."""

    rounds: int = 7
    least: int = 3
    seconds: float = 10.0
    window: float = 0.2  # seconds that a contestant's turn takes, or one call if that is longer
    patience: float = 0.5  # seconds that a turn waits for slow cores to become fast


@dataclass
class Turn:
    """What a contestant did in a round, and what others did to the machine meanwhile."""

    seconds: float  # of one call
    peak: int | None  # bytes; None where the system does not tell
    others: float  # share of all cores' time that other processes took
    rates: Rates  # how fast the cores were, the lower of before and after

    def quiet(self, best: Rates) -> bool:
        """Whether others left the machine alone, which has been as fast as `best`."""
        return self.others <= OTHERS_SHARE and _fast(self.rates, best)


@dataclass
class Timing:
    """Seconds of one call, one for each turn that counts. Where `quiet` is False no turn was, and the samples are of disturbed ones."""

    samples: list[float]
    discarded: int
    quiet: bool
    peak: int | None

    @property
    def median(self) -> float:
        """The figure."""
        return float(np.median(self.samples))

    @property
    def quartiles(self) -> tuple[float, float]:
        """The spread."""
        low, high = np.quantile(self.samples, (0.25, 0.75))
        return float(low), float(high)


@dataclass
class Race:
    """What rounds gave."""

    timings: dict[str, Timing]
    lost: dict[str, str]  # who ended before the race did, and why


def others_share(answer: dict[str, Any], cores: int) -> float:
    """The share of all cores' time that went to other processes while a contestant ran; 0 where the system does not tell."""
    if answer["busy"] is None:
        return 0.0
    return max(0.0, float(answer["busy"] - answer["own"] - _TICKS)) / (float(answer["seconds"]) * cores)


def race(contestants: Sequence[Contestant], pace: Pace, probe: Probe, say: Callable[[str], None] = lambda text: None) -> Race:
    """Time contestants that have made their run, round by round, each in another order; `probe` is asked around each turn."""
    running, lost = list(contestants), {}
    calls: dict[str, int] = {}
    turns: dict[str, list[Turn]] = {contestant.name: [] for contestant in contestants}
    start, number = time.monotonic(), 0
    while eager := [c for c in running if _goes_on(turns[c.name], probe.best, pace, time.monotonic() - start)]:
        quiet = [turn.quiet(probe.best) for done in turns.values() for turn in done]
        say(f"round {number + 1}, {quiet.count(False)} of {len(quiet)} turns discarded")
        first = number % len(eager)
        number += 1
        for contestant in [*eager[first:], *eager[:first]]:
            name, before = contestant.name, _rates_when_fast(probe, pace.patience)
            try:
                if name not in calls:
                    calls[name], answer = _first_part(contestant, pace.window)
                else:
                    answer = _part(contestant, calls[name])
            except ContestantError as error:
                running.remove(contestant)
                lost[name] = str(error)
                continue
            after = probe()
            rates = {key: min(rate, after[key]) for key, rate in before.items()}
            turns[name].append(Turn(answer["seconds"] / calls[name], answer["peak"], others_share(answer, os.cpu_count() or 1), rates))
    return Race({contestant.name: _timing(turns[contestant.name], probe.best) for contestant in running}, lost)


def _fast(rates: Rates, best: Rates) -> bool:
    return all(rate >= SPEED_SHARE * best[name] for name, rate in rates.items())


def _rates_when_fast(probe: Probe, patience: float) -> Rates:
    """As soon as they are fast, and after `patience` seconds whatever they are: cores are slow for a while, and so they are fast."""
    start = time.monotonic()
    while not _fast(rates := probe(), probe.best) and time.monotonic() < start + patience:
        time.sleep(0.02)
    return rates


def _timing(turns: Sequence[Turn], best: Rates) -> Timing:
    """The figures of the quiet turns, and of all where there are none."""
    quiet = [turn for turn in turns if turn.quiet(best)]
    counted = quiet or turns
    peak = max((turn.peak for turn in counted if turn.peak), default=None)
    return Timing([turn.seconds for turn in counted], len(turns) - len(counted), bool(quiet), peak)


def _part(contestant: Contestant, calls: int) -> dict[str, Any]:
    """A contestant's turn, after one call that fills the caches again if calls are short."""
    return contestant.ask(run=calls, warm=int(calls > 3))


def _first_part(contestant: Contestant, window: float) -> tuple[int, dict[str, Any]]:
    """How many calls take about `window` seconds, at least 1, and the answer to so many."""
    calls = 1
    while (answer := _part(contestant, calls))["seconds"] < 0.7 * window:
        calls = math.ceil(calls * min(100.0, window / max(float(answer["seconds"]), 1e-7)))
    return calls, answer


def _goes_on(turns: Sequence[Turn], best: Rates, pace: Pace, passed: float) -> bool:
    quiet = sum(turn.quiet(best) for turn in turns)
    if quiet >= pace.rounds or len(turns) >= 3 * pace.rounds:
        return False
    return not turns or passed <= (pace.seconds if quiet >= pace.least else 3 * pace.seconds)
