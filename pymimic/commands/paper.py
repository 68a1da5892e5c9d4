"""`pymimic paper`: the paper's questions, answered by experiments."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ..exits import say
from ..targets import expanded
from ..threads import get_num_threads


def paper(
    which: Annotated[
        str,
        typer.Argument(metavar="[mnist1d|letter|mnist|cifar10|compress|speech|timit|timit-synthetic|all]", help="which experiment"),
    ] = "all",
    out: Annotated[Path, typer.Option(metavar="DIR", help="folder for CSV files, pictures and report.html")] = Path("paper"),
    path: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="folder with the publisher's files, or with folders that have them, called as the sets"),
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="each run is made with the seeds 0 to N - 1 (default: 5, of what takes long 3 or 1)"),
    ] = None,
    fast: Annotated[bool, typer.Option("--fast", help="a few hundred rows and few epochs: seconds, and figures that say nothing")] = False,
    device: Annotated[str, typer.Option(metavar="cpu|cuda", help="where nets are trained")] = "cpu",
) -> None:
    """Train many nets, and write what came out: a CSV with every run, pictures, and one HTML page with tables of means over seeds.

    Stopped at any moment it goes on behind the last whole run when it is called again. Test rows are looked at once, when all nets have
    been trained; the folder keeps a note of each time.
    """
    from ..paper import run_paper

    where = run_paper(which, Path(expanded(out)), None if path is None else Path(expanded(path)), seeds=seeds, fast=fast, device=device)
    say(f"{where}, by {get_num_threads()} threads")
