"""The command line: `pymimic demo`, `info`, `distill` and others. A user's mistake gives one line, and status 1 or 2."""

from __future__ import annotations

import os
import sys
from typing import Annotated, NoReturn, cast

import typer

from . import __version__
from .bench.command import bench
from .commands.compress import compress
from .commands.demo import demo
from .commands.distill import distill
from .commands.export import export
from .commands.info import info
from .commands.paper import paper
from .commands.predict import predict
from .exits import FAILED, MISUSED, complain, finish, one_line, status_of, warnings_as_lines
from .training.interrupt import terminable

_UsageError = cast("type[Exception]", typer.BadParameter.__bases__[0])  # its home differs between versions of typer

app = typer.Typer(
    add_completion=False, rich_markup_mode=None, help="Wide shallow nets that mimic deep ones, on the CPU and on NVIDIA GPUs."
)


def run(arguments: list[str]) -> NoReturn:
    """Run one command line, without the program's name, and exit."""
    for name in ("stdout", "stderr"):  # closed ones, as daemons have them: old versions of click want some
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115  (for as long as the program runs)
    try:
        with terminable(), warnings_as_lines():
            code = app(arguments or ["--help"], prog_name="pymimic", standalone_mode=False)
    except _UsageError as error:
        code = complain(getattr(error, "format_message", error.__str__)(), MISUSED)
    except typer.Abort:  # ctrl-C before the command began
        code = status_of(KeyboardInterrupt())
    except OSError as error:  # help or the version could not be written
        code = complain(error.strerror or error, FAILED)
    sys.exit(finish(code if isinstance(code, int) else 0))


def _say_version(asked: bool) -> None:
    if asked:
        typer.echo(f"pymimic {__version__}")
        raise typer.Exit


@app.callback()
def program(
    version: Annotated[
        bool, typer.Option("--version", callback=_say_version, is_eager=True, help="say which version this is, and exit")
    ] = False,
) -> None:
    """Take the options that stand before a command."""


for command in (demo, info, distill, compress, predict, export, bench, paper):
    app.command()(one_line(command))
