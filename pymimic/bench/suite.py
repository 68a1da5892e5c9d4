"""The whole run: for each shape the contestants' processes, for each kind of work verified results and then a race."""

from __future__ import annotations

import datetime
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from . import machine
from .race import Contestant, ContestantError, Pace, Probe, Race, race
from .shapes import SHAPES, Shape, What
from .verify import write_case
from .worker import peers_folder

FORMAT = 1
OURS = "pymimic"  # contestants of this library have names that begin so
DEFAULT_SHAPES = ("letter-4k", "mnist-8k", "timit-8k")
Say = Callable[[str], None]
Row = dict[str, Any]


def peer_names(device: str = "cpu") -> list[str]:
    """All contestants on a device, this library's first.

    Those that compute in bfloat16 have names that end in bf16, those in int8 in int8; those on a GPU have "cuda" in theirs.
    """
    names = sorted(path.stem for path in (peers_folder() / "peers").glob("*.py") if ("cuda" in path.stem) == (device == "cuda"))
    return sorted(names, key=lambda name: not name.startswith(OURS))


def default_peers(device: str = "cpu") -> list[str]:
    """Those that compute in float32; on a GPU all of them."""
    return [name for name in peer_names(device) if device == "cuda" or not name.endswith(("bf16", "int8"))]


def run(
    shapes: Sequence[str], whats: Sequence[What], peers: Sequence[str], batches: Sequence[int] | None = None, *, fast: bool = False,
    pace: Pace | None = None, device: str = "cpu", say: Say = lambda text: None,
    done: Callable[[Row, list[Row]], None] = lambda head, rows: None,
) -> dict[str, Any]:  # fmt: skip
    """Time `peers` at `shapes` and give all figures, as JSON has them.

    Parameters
    ----------
    shapes : names in SHAPES
    whats : kinds of work; serving is at batch 1 whatever `batches` says
    peers : names of contestants
    batches : in place of each shape's own
    fast : small sizes and two short rounds, for tests: the figures mean nothing
    pace : how long to time
    device : "cpu" or "cuda", where the peers run
    say : is told what is going on
    done : is given the head of the results, then each race's rows as soon as there are any

    Raises
    ------
    BackendUnavailableError
        There is no compiled core to measure the machine with.
    """
    pace = pace or (Pace(rounds=2, least=1, seconds=0.5, window=0.01, patience=0) if fast else Pace())
    say("measuring what the machine can do")
    head: Row = {
        "format": FORMAT,
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "fast": fast,
        "device": device,
        "machine": machine.describe(device),
        "ceilings": machine.ceilings(peers_folder(), fast=fast, device=device),
    }
    probe = machine.CoreSpeed(()) if device == "cuda" else machine.CoreSpeed()
    results: list[Row] = []
    skipped: list[Row] = []
    for name in shapes:
        shape = SHAPES[name].small() if fast else SHAPES[name]
        for number, B in enumerate(batches or [1 if set(whats) == {"serving"} else shape.B]):
            here = [what for what in whats if what != "serving" or number == 0]
            for rows, missing in _run_case(shape._replace(B=B), here, peers, pace, probe, say, device):
                if rows:
                    say("measuring again what the machine can do")
                    beside = {dtype: rate / 1e9 for dtype, rate in probe.best.items()}  # of the race's turns
                    again = machine.ceilings(peers_folder(), fast=fast, again=True, device=device)
                    head["ceilings"] = machine.highest(head["ceilings"], beside, again)
                results += rows
                skipped += missing
                done(head, _with_shares(rows, head["ceilings"]))
    return head | {"results": _with_shares(results, head["ceilings"]), "skipped": skipped}


def _run_case(
    shape: Shape, whats: Sequence[What], peers: Sequence[str], pace: Pace, probe: Probe, say: Say, device: str
) -> Iterator[tuple[list[Row], list[Row]]]:
    """The rows of one race after the other, with who was left out of it and why."""
    where = f"{shape.name}, batch {shape.B}"
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="pymimic-bench-")))
        say(f"{where}: computing in float64 what the results must be")
        write_case(shape, folder, set(whats))
        contestants, absent = [], []
        for name in peers:
            say(f"{where}: starting {name}")
            try:
                contestants.append(stack.enter_context(Contestant(name, folder, device)))
            except ContestantError as error:
                absent.append({"shape": shape.name, "B": shape.B, "what": "all", "peer": name, "why": str(error)})
        for what in whats:
            sized = shape._replace(B=1 if what == "serving" else shape.B)
            for contestant in contestants:
                with suppress(ContestantError):  # one that has ended has no more turns
                    contestant.ask(rest=True)
            errors, left_out = _verified([c for c in contestants if c.can(what)], what, sized, f"{where}: {what}", say)
            ready = [c for c in contestants if c.name in errors]
            outcome = race(ready, pace, probe, partial(_say_where, say, f"{where}: {what}")) if ready else None
            missing = [*left_out, *(outcome.lost if outcome else {}).items()]
            rows = [_row(sized, what, c, outcome, errors[c.name]) for c in ready if outcome and c.name in outcome.timings]
            yield rows, [*absent, *({"shape": shape.name, "B": sized.B, "what": what, "peer": name, "why": why} for name, why in missing)]
            absent = []


def _say_where(say: Say, where: str, text: str) -> None:
    say(f"{where}, {text}")


def _verified(
    contestants: Sequence[Contestant], what: What, shape: Shape, where: str, say: Say
) -> tuple[dict[str, float], list[tuple[str, str]]]:
    """The relative error of each contestant whose results are right, and (name, why) of the others."""
    errors, left_out = {}, []
    for contestant in contestants:
        say(f"{where}, verifying {contestant.title}")
        try:
            errors[contestant.name] = float(contestant.ask(make=what, batch=shape.B)["error"])
        except ContestantError as error:
            left_out.append((contestant.name, str(error)))
    return errors, left_out


def _row(shape: Shape, what: What, contestant: Contestant, outcome: Race, error: float) -> Row:
    """All figures of one contestant in one race but the share of the ceiling."""
    about, timing = contestant.introduction, outcome.timings[contestant.name]
    seconds, (low, high) = timing.median, timing.quartiles
    operations, moved = shape.operations(what), shape.least_bytes(what, about["weight_bytes"])
    executed = shape.operations(what, about["recomputes"])
    return {
        **shape._asdict(), "shape": shape.name, "what": what, "peer": contestant.name, "title": contestant.title,
        "versions": about["versions"], "precision": about["precision"], "seconds": seconds, "low": low, "high": high,
        "samples": timing.samples, "rounds": len(timing.samples), "discarded": timing.discarded, "quiet": timing.quiet,
        "peak_bytes": timing.peak, "error": error, "operations": operations, "executed": executed, "least_bytes": moved,
        "gflops": operations / seconds / 1e9, "gbps": moved / seconds / 1e9,
    }  # fmt: skip


def _with_shares(rows: Sequence[Row], ceilings: dict[str, Any]) -> list[Row]:
    """The rows, each with what bounds it and its share of that ceiling."""
    shared = []
    for row in rows:
        compute, memory = bounds(ceilings, row["precision"], row["executed"], row["least_bytes"])
        shared.append(row | {"bound": "FMA" if compute > memory else "RAM", "of_ceiling": max(compute, memory) / row["seconds"]})
    return shared


def bounds(ceilings: dict[str, Any], precision: str, operations: float, moved: float) -> tuple[float, float]:
    """The seconds that so many operations and so many bytes take at least, by the measured ceilings."""
    peak = ceilings.get(precision) or ceilings["float32"]
    nearest = min(ceilings["read"], key=lambda size: abs(math.log(float(size) / moved)))
    return operations / (peak * 1e9), moved / (ceilings["read"][nearest] * 1e9)
