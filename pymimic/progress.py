"""The progress bar of everything that takes long."""

from __future__ import annotations

import os
import threading

from tqdm import tqdm


class Progress(tqdm):  # type: ignore[misc]
    """tqdm's bar behind a lock of this process alone.

    tqdm's own is shared with forked children: one that is killed while it holds it leaves its parent, and everyone else, waiting for ever.
    """

    _lock = threading.RLock()


def _after_fork() -> None:
    Progress.set_lock(threading.RLock())  # a thread of the parent's may have held it, and is not here


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
