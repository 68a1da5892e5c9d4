"""What is spoken when: TIMIT's .PHN files, and the state of each frame that follows from one."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..backends.interface import Array
from ..errors import FileFormatError
from ..foreign import demand_plain, printable
from .features import frame_centres
from .phones import NUMBERS, SILENCE, STATES, number_of

_LINE = re.compile(r"(\d{1,9}) (\d{1,9}) (\S+)")
_SLACK = 4_000  # samples, a quarter of a second: TIMIT's own files end a little before the recordings
_MOST_BYTES = 1 << 20


class Segment(NamedTuple):
    """A phone from sample `start` to before sample `end`."""

    start: int
    end: int
    phone: str


def read_segments(path: str | os.PathLike[str], samples: int) -> list[Segment]:
    """The phones of a .PHN file: a line each, "start end phone", one behind the other, with silence (h#) first and last.

    Parameters
    ----------
    path : the file
    samples : of its recording, at which it must end, give or take a quarter of a second

    Raises
    ------
    FileFormatError
        A line is not of that form; phones overlap, leave a gap, or are none of TIMIT's; the file ends early or late. The message names file
        and line, what was expected and what came.
    OSError
        It cannot be read.
    """
    demand_plain(path, "path")
    with open(path, "rb") as file:
        lines = file.read(_MOST_BYTES).decode("ascii", "backslashreplace").splitlines()
    segments: list[Segment] = []
    for number, line in enumerate(lines, 1):
        segments.append(_segment(f"path: {os.fspath(path)!r}, line {number}", line, segments[-1].end if segments else 0))
    where = f"path: {os.fspath(path)!r}, line {len(lines)}"
    if not segments:
        raise FileFormatError(f"{where}: expected phones, got an empty file")
    for expected, segment in (("first", segments[0]), ("last", segments[-1])):
        if segment.phone != SILENCE:
            raise FileFormatError(f"{where}: expected {SILENCE} as the {expected} phone, got {segment.phone}")
    if abs(segments[-1].end - samples) > _SLACK:
        raise FileFormatError(
            f"{where}: expected the last phone to end near sample {samples}, where the recording does, got {segments[-1].end}"
        )
    return segments


def write_segments(segments: Sequence[Segment]) -> str:
    """The text of a .PHN file."""
    return "".join(f"{start} {end} {phone}\n" for start, end, phone in segments)


def frame_states(segments: Sequence[Segment], frames: int, rate: int) -> Array:
    """The state (T,) int64 in [0, 183) under the centre of each frame: a third of its phone's time each.

    A frame behind the last phone's end has that phone's last state. ValueError: there is no segment, or a phone is none of TIMIT's.
    """
    if not segments:
        raise ValueError("segments: expected at least one, got none")
    starts, ends = (np.array(column, np.int64) for column in list(zip(*segments))[:2])
    centres = frame_centres(frames, rate)
    which = np.minimum(np.searchsorted(ends, centres, side="right"), len(ends) - 1)
    thirds = STATES * (centres - starts[which]) // (ends - starts)[which]
    numbers = np.array([number_of(segment.phone) for segment in segments])
    return np.asarray(STATES * numbers[which] + np.minimum(thirds, STATES - 1), np.int64)


def _segment(where: str, line: str, begin: int) -> Segment:
    found = _LINE.fullmatch(line.rstrip())
    if found is None:
        raise FileFormatError(f"{where}: expected two sample numbers and a phone, got {printable(line[:80])!r}")
    start, end, phone = int(found[1]), int(found[2]), found[3].lower()
    if phone not in NUMBERS:
        raise FileFormatError(f"{where}: expected one of TIMIT's 61 phones, got {printable(phone[:80])!r}")
    if start != begin:
        what = "an overlap" if start < begin else "a gap"
        raise FileFormatError(f"{where}: expected start {begin}, where the phone before ends, got {start}: {what}")
    if end <= start:
        raise FileFormatError(f"{where}: expected an end behind start {start}, got {end}")
    return Segment(start, end, phone)
