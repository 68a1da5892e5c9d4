"""What torchrun has started: its environment variables, and the group of its processes."""

from __future__ import annotations

import atexit
import os
from datetime import timedelta

from .group import Group, ProcessGroup

_PATIENCE = timedelta(minutes=10)  # that one process waits for another, which may be reading files


def launched() -> bool:
    """Whether torchrun started this process with others beside it."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("WORLD_SIZE", "1")) > 1


def speaks() -> bool:
    """Whether this process is the one that says what all of them have to say."""
    return not launched() or os.environ.get("RANK", "0") == "0"


def restarted() -> bool:
    """Whether torchrun has started this run anew, after one of its processes had ended."""
    return "TORCHELASTIC_RUN_ID" in os.environ and int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")) > 0


def joined() -> Group:
    """The group of the processes that torchrun started, by gloo, until this process ends; without torchrun this process alone."""
    if not launched():
        return Group()
    from torch import distributed  # optional, and slow to import

    if not distributed.is_initialized():
        distributed.init_process_group("gloo", timeout=_PATIENCE)
        atexit.register(distributed.destroy_process_group)
    return ProcessGroup()
