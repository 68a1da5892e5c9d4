"""The progress bar of everything that takes long."""

from __future__ import annotations

import os
import sys
import threading
from typing import Any

from tqdm import tqdm


class Progress(tqdm):  # type: ignore[misc]
    """tqdm's bar behind a lock of this process alone, as wide as the terminal is at each moment.

    tqdm's own lock is shared with forked children: one that is killed while it holds it leaves its parent, and everyone else, waiting
    for ever.

    Parameters
    ----------
    disable : True for no bar. None draws it if standard error is a terminal that can move its cursor, or a notebook: text there too, as a
        notebook's own bars need packages that may be missing
    more : what else tqdm takes
    """

    _lock = threading.RLock()

    def __init__(self, *, disable: bool | None = None, **more: Any) -> None:
        hidden = disable or not _can_draw(more.get("file") or sys.stderr)
        super().__init__(**{"dynamic_ncols": True, **more}, disable=hidden)


def _can_draw(file: Any) -> bool:
    """Whether a bar on `file` would be a bar: not in a log, nor on a terminal that shows each of its states on a line of its own."""
    if file is None or getattr(file, "closed", False):
        return False
    if file.isatty():
        return os.environ.get("TERM") != "dumb"
    shell = sys.modules.get("IPython")
    return file is sys.stderr and shell is not None and type(shell.get_ipython()).__name__ == "ZMQInteractiveShell"


def _after_fork() -> None:
    Progress.set_lock(threading.RLock())  # a thread of the parent's may have held it, and is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
