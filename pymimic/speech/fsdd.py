"""The Free Spoken Digit Dataset (Jackson et al.): ten digits, six speakers, fifty recordings of each by each, at 8 kHz."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from .. import _check
from ..backends.interface import Array
from ..errors import FileFormatError
from .audio import read_audio

SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
DIGITS, TAKES, RATE = 10, 50, 8000
TEST_TAKES = 5  # the first of each speaker and digit are the publisher's test set


class Recording(NamedTuple):
    """One spoken digit."""

    digit: int
    speaker: str
    take: int
    samples: Array  # (n,) float32


def read_fsdd(folder: str | os.PathLike[str], takes: Iterable[int] = range(TAKES)) -> list[Recording]:
    """Those of the 3,000 recordings that have these numbers, by digit, speaker and number.

    Parameters
    ----------
    folder : has files DIGIT_SPEAKER_NUMBER.wav, or a folder `recordings` that has them
    takes : numbers in [0, 50)

    Raises
    ------
    TypeError, ValueError
        takes has something else.
    FileFormatError
        A file is no WAV of 8,000 samples a second and one channel, or is damaged.
    OSError
        Recordings are missing, which are named, or one cannot be read.
    ImportError
        soundfile is missing.
    """
    wanted = {_check.integer("takes", take, 0, TAKES) for take in takes}
    home = Path(folder)
    if not home.is_dir():
        raise FileNotFoundError(errno.ENOENT, "path: expected the folder with FSDD's recordings, got no folder", os.fspath(folder))
    home = home / "recordings" if (home / "recordings").is_dir() else home
    names = {
        (digit, speaker, take): f"{digit}_{speaker}_{take}.wav" for digit in range(DIGITS) for speaker in SPEAKERS for take in range(TAKES)
    }
    there = set(os.listdir(home))
    missing = {key: name for key, name in names.items() if name not in there}
    if missing:
        speakers = [speaker for speaker in SPEAKERS if sum(key[1] == speaker for key in missing) == DIGITS * TAKES]
        what = f"any of {', '.join(speakers)}" if speakers else ", ".join([*missing.values()][:5]) + ", ..." * (len(missing) > 5)
        message = f"path: expected {len(names):,} recordings of {len(SPEAKERS)} speakers, got {len(names) - len(missing):,}: there is not"
        raise FileNotFoundError(errno.ENOENT, f"{message} {what}", os.fspath(home))
    return [Recording(*key, _read(home / name)) for key, name in names.items() if key[2] in wanted]


def _read(path: Path) -> Array:
    samples = read_audio(path, RATE)
    if len(samples) < RATE // 10:
        raise FileFormatError(f"path: {str(path)!r}: expected at least {RATE // 10} samples, a tenth of a second, got {len(samples)}")
    return samples
