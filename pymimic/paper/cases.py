"""Cases that experiments share, as functions of a setting."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

from ..backends.interface import Array
from ..data.cases import Cases
from ..data.generators import Generate, copies
from ..data.teacher import Teacher, centred
from ..data.transfer import TransferSet
from ..demo.setting import Setting

_PAUSE = 1.0  # seconds


def named(name: str) -> Callable[[Setting], Cases]:
    """Those that `Setting.cases` knows by that name."""
    return lambda setting: setting.cases(name)


def copies_of(count: int) -> Callable[[Setting], Cases]:
    """The labelled rows and so many generated versions of them."""
    return lambda setting: setting.part(count)


def copies_named(count: int) -> str:
    """So many copies, in words."""
    return f"{count} cop{'y' if count == 1 else 'ies'}"


def copies_in(folder: Path, teacher: Teacher, generator: Generate, x: Array, count: int, seed: int) -> TransferSet:
    """Generated versions of images x, labelled once, in a folder: images as bytes, logits as float16.

    While another process labels them, for an experiment on the same set, this one waits.
    """
    while True:
        try:
            images = copies(generator, x, count, seed)
            return TransferSet.create(
                folder, centred(teacher), images, source=repr(generator), inputs_dtype="uint8", logits_dtype="float16"
            )
        except BlockingIOError:
            time.sleep(_PAUSE)
