"""`pymimic bench`: options, progress and output. `cli.py` adds it to the others."""

from __future__ import annotations

import json as jsonlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, cast

import typer
from rich.console import Console

from ..devices import DEVICES
from ..formats import demand_json_or_none, demand_png_or_none
from ..targets import demand_distinct, demand_writable, replacing
from . import report, suite
from .plot import demand_matplotlib, draw
from .race import Pace
from .shapes import SHAPES, WHATS, What


def bench(
    shapes: Annotated[str, typer.Option(metavar="NAME,...", help=f"of {', '.join(SHAPES)}; or all")] = ",".join(suite.DEFAULT_SHAPES),
    peers: Annotated[str, typer.Option(metavar="NAME,...", help="whom to compare with; or all  [default: all in float32]")] = "",
    batch: Annotated[str, typer.Option(metavar="B,...", help="rows, in place of each shape's own")] = "",
    what: Annotated[str, typer.Option(metavar="KIND,...", help=f"of {', '.join(WHATS)}; or all")] = "forward,step,serving",
    seconds: Annotated[float, typer.Option(metavar="S", help="for each table; three times as long where turns are discarded")] = 10.0,
    json: Annotated[Path | None, typer.Option(metavar="FILE", help="write all figures here")] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="draw them here")] = None,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where everyone runs")] = "cpu",
    fast: Annotated[bool, typer.Option("--fast", help="small sizes, hardly any time: to see that all works; figures mean nothing")] = False,
) -> None:
    """Time pymimic beside what you would use instead, on this machine.

    Everyone runs in a process of its own and is checked against the reference in float64 before it is timed, in interleaved rounds. A turn
    is discarded in which other programs took more than 5 % of the machine, or around which its cores were slower than 80 % of the
    fastest of the last two minutes, as other machines on the same cores make them. forward is x to y, step is forward, loss and
    all gradients, adamw is a step and all updates, serving is x to y with one row.

    Columns: median of the turns' time of a call, and half of the distance of their quartiles; GFLOP/s, of the operations that
    nobody can do without; GB/s, of arguments and results; the share of the most that this machine has reached, before or after any
    race, in a loop of multiply-adds (FMA) or of reads (RAM), whichever bounds, counting what a contestant computes twice; time over
    pymimic's fastest; peak memory of the process, arguments and libraries included.
    """
    demand_distinct({}, {"json": json, "plot": plot})
    for name, file in (("json", json), ("plot", plot)):
        if file is not None:
            demand_writable(name, file)
    if json is not None:
        demand_json_or_none("json", json)
    if plot is not None:
        demand_png_or_none("plot", plot)
        demand_matplotlib()
    console, progress = Console(), Console(stderr=True)
    kinds = cast("list[What]", _names("what", what, WHATS))
    if device not in DEVICES:
        raise ValueError(f"device: expected one of {', '.join(DEVICES)}, got {device!r}")
    known = suite.peer_names(device)
    rivals = _names("peers", peers, known) if peers else suite.default_peers(device)
    always = (suite.OURS, f"{suite.OURS}_keep", f"{suite.OURS}_cuda", f"{suite.OURS}_cuda_bf16")
    contestants = [name for name in known if name in rivals or name in always]
    if not seconds > 0:
        raise ValueError(f"seconds: expected more than 0, got {seconds}")
    pace = None if fast else Pace(seconds=seconds)
    batches = [_positive("batch", size) for size in batch.split(",")] if batch else None
    headed = False

    def done(head: suite.Row, rows: Sequence[suite.Row]) -> None:
        nonlocal headed
        if not headed:
            report.show_machine(console, head)
        headed = True
        report.show_race(console, rows)

    with progress.status("starting", refresh_per_second=2) as status:
        result = suite.run(
            _names("shapes", shapes, list(SHAPES)), kinds, contestants, batches, fast=fast, pace=pace, device=device, say=status.update,
            done=done,
        )  # fmt: skip
    if json is not None:
        with replacing(json) as out:
            out.write(jsonlib.dumps(result, indent=1).encode())
    if plot is not None:
        draw(result, plot)
    report.show_summary(console, result["results"], result["skipped"])


def _names(option: str, text: str, known: Sequence[str]) -> list[str]:
    """The names between commas; all of them for "all"."""
    if text == "all":
        return list(known)
    names = [name.strip() for name in text.split(",") if name.strip()]
    for name in names:
        if name not in known:
            raise ValueError(f"{option}: expected names among {', '.join(known)}, or all, got {name!r}")
    if not names:
        raise ValueError(f"{option}: expected at least one name among {', '.join(known)}, got {text!r}")
    return names


def _positive(option: str, text: str) -> int:
    if not text.strip().isdecimal() or int(text) < 1:
        raise ValueError(f"{option}: expected whole numbers of at least 1, got {text!r}")
    return int(text)
