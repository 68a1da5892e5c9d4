"""How a command ends: whatever goes wrong by the user's hand or the system's is one line on standard error and an exit status."""

from __future__ import annotations

import functools
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import ParamSpec, TextIO

import typer

from .distributed.launch import speaks
from .errors import GroupError
from .foreign import printable
from .training.interrupt import Terminated

P = ParamSpec("P")

FAILED, MISUSED, _BY_SIGNAL = 1, 2, 128  # as shells have it: 128 and the signal's number
_SIGINT, _SIGPIPE = 2, 13


def say(message: object) -> None:
    """Print one line on standard output, without what a terminal would obey: names of files may hold it."""
    typer.echo(printable(message))


def complain(message: object, code: int, alone: bool = False) -> int:
    """Print one line, of several processes that have the same to say the first; returns `code`.

    alone : whether this process may be the only one to say it
    """
    if speaks() or alone:
        who = "" if speaks() else f"rank {os.environ['RANK']}: "
        typer.echo(f"pymimic: {who}{printable(' '.join(str(message).split()))}", err=True)
    return code


def one_line(command: Callable[P, None]) -> Callable[P, None]:
    """The command with its errors as one line each instead of a traceback."""

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            command(*args, **kwargs)
        except KeyboardInterrupt as signal:
            raise typer.Exit(complain("interrupted", status_of(signal))) from None
        except BrokenPipeError:
            raise typer.Exit(_BY_SIGNAL + _SIGPIPE) from None
        except OSError as error:
            where = f": {str(error.filename)!r}" if error.filename else ""
            raise typer.Exit(complain(_dashed(f"{error.strerror or error}{where}"), FAILED)) from None
        except (ValueError, TypeError, MemoryError, ImportError, GroupError) as error:
            message = _dashed(str(error) or "out of memory")
            raise typer.Exit(complain(message, FAILED, alone=isinstance(error, MemoryError))) from None

    return wrapped


@contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Let each warning be one line, like a message, without the place in the code."""

    def show(
        message: Warning | str, category: type[Warning], filename: str, lineno: int, file: TextIO | None = None, line: str | None = None
    ) -> None:
        complain(f"warning: {_dashed(str(message))}", 0)

    with warnings.catch_warnings():
        warnings.showwarning = show
        yield


def status_of(signal: KeyboardInterrupt) -> int:
    """The exit status of a program that ends by ctrl-C or another signal."""
    return _BY_SIGNAL + (signal.signum if isinstance(signal, Terminated) else _SIGINT)


@contextmanager
def option(name: str, **others: str) -> Iterator[None]:
    """Let errors name the options of the command: `name` where a file fails, and in place of the library's name for it, `others`."""
    try:
        yield
    except OSError as error:
        given, colon, rest = str(error.strerror or error).partition(": ")
        what = f"{others[given]}: {rest}" if colon and given in others else f"{name}: {rest if given == name else error.strerror or error}"
        raise OSError(error.errno, what, error.filename) from error
    except (ValueError, TypeError) as error:
        given, colon, rest = str(error).partition(": ")
        if colon and given in others:
            raise type(error)(f"{others[given]}: {rest}") from error
        raise


def finish(code: int) -> int:
    """Write out what standard output still holds; returns `code`, or another where nobody reads it or it cannot be written."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python would try, and fail, once more
        if isinstance(error, BrokenPipeError):
            return code or _BY_SIGNAL + _SIGPIPE
        return code or complain(f"standard output: {error.strerror}", FAILED)
    return code


def counted(number: int, thing: str) -> str:
    """A number of things, whose name takes an s where there are several."""
    return f"{number} {thing}{'s' * (number != 1)}"


def _dashed(message: str) -> str:
    """The message, with the argument that it begins with as the command's option has it."""
    message = re.sub(r"^\w+(?=: )", lambda name: name[0].replace("_", "-"), message)
    return re.sub(r"^backend(?=: 'cuda' )", "device", message.replace(" or None, got", ", got"))  # an option is left out, not None
