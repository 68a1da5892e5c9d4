"""Recordings: one channel of WAV or NIST SPHERE."""

from __future__ import annotations

import io
import os
import re
from typing import Any

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..errors import FileFormatError
from ..foreign import demand_plain
from ..packages import package

_FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "NIST": "NIST SPHERE"}
_NIST_HEADER = 1024  # bytes


def read_audio(path: str | os.PathLike[str], rate: int) -> Array:
    """The samples (n,) float32 in [-1, 1] of a WAV (RIFF) or NIST SPHERE file of one channel, by libsndfile.

    Parameters
    ----------
    path : the file
    rate : samples a second that it must have: nothing is resampled

    Raises
    ------
    FileFormatError
        The file is neither, or truncated, or empty; it has another rate or more channels; a sample is NaN or infinite. The message names
        the file, what was expected and what came.
    OSError
        It cannot be read.
    ImportError
        soundfile is missing.
    """
    soundfile = package("speech", "soundfile")
    rate = _check.integer("rate", rate, 1, 1 << 31)
    where = f"path: {os.fspath(path)!r}"
    demand_plain(path, "path")
    with open(path, "rb") as file:
        content = io.BytesIO(file.read())  # which has no name, from which soundfile would guess a format
    try:
        with soundfile.SoundFile(content) as sound:
            if sound.format not in _FORMATS:
                raise FileFormatError(f"{where}: expected a WAV or NIST SPHERE file, got {sound.format}")
            for what, want, have in (("samples a second", rate, sound.samplerate), ("channel", 1, sound.channels)):
                if want != have:
                    raise FileFormatError(f"{where}: expected {want} {what}, got {have}")
            _demand_whole(where, sound, content.getbuffer()[:_NIST_HEADER].tobytes())
            samples: Array = sound.read(dtype="float32")
    except soundfile.LibsndfileError as error:
        raise FileFormatError(f"{where}: expected a WAV or NIST SPHERE file, got another or a damaged one ({error})") from None
    if len(samples) == 0:
        raise FileFormatError(f"{where}: expected samples, got none")
    if not np.isfinite(samples).all():
        raise FileFormatError(f"{where}: expected finite samples, got NaN or infinity in sample {int(np.isfinite(samples).argmin())}")
    return samples


def _demand_whole(where: str, sound: Any, head: bytes) -> None:
    """Demand as many samples as the header says: libsndfile reads what there is."""
    if sound.format == "NIST":
        found = re.search(rb"sample_count -i (\d{1,18})", head)
        promised = int(found[1]) if found else sound.frames
        if promised != sound.frames:
            raise FileFormatError(f"{where}: expected {promised} samples, as the header says, got {sound.frames}")
    elif cut := re.search(r"data : (\d+) \(should be (\d+)\)", sound.extra_info):
        raise FileFormatError(f"{where}: expected {cut[1]} bytes of samples, as the header says, got {cut[2]}")
