"""Recordings: one channel of WAV or NIST SPHERE."""

from __future__ import annotations

import io
import os
import re
from typing import Any, Literal

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..errors import FileFormatError
from ..foreign import demand_plain, printable
from ..packages import package

_FORMATS = {"WAV": "WAV", "WAVEX": "WAV", "NIST": "NIST SPHERE"}
_NIST_HEADER = 1024  # bytes
_LOUDEST = 1e6  # 16 bits as whole numbers are still right, as a gain changes nothing; energies of much larger numbers overflow


def read_audio(path: str | os.PathLike[str], rate: int) -> Array:
    """The samples (n,) float32 in [-1, 1] of a WAV (RIFF) or NIST SPHERE file of one channel, by libsndfile.

    Parameters
    ----------
    path : the file
    rate : samples a second that it must have: nothing is resampled

    Raises
    ------
    FileFormatError
        The file is neither, or truncated, or empty; it has another rate or more channels; a sample is outside [-1, 1], as floats can be, or
        NaN. The message names the file, what was expected and what came.
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
            _demand_whole(where, sound, content.getvalue())
            samples: Array = sound.read(sound.frames, dtype="float32")
    except soundfile.LibsndfileError as error:
        raise FileFormatError(f"{where}: expected a WAV or NIST SPHERE file, got another or a damaged one ({error.error_string})") from None
    if len(samples) == 0:
        raise FileFormatError(f"{where}: expected samples, got none")
    wrong = ~(np.abs(samples) <= 1)  # NaN too
    if wrong.any():
        first = int(wrong.argmax())
        raise FileFormatError(f"{where}: expected samples in [-1, 1], got {samples[first]:g} in sample {first}")
    return samples


def demanded_samples(samples: Array) -> Array:
    """Demand (n,) finite floats of a recording, none above a million, and give them as float32."""
    array = _check.data_array("samples", samples)
    _check.float_dtype("samples", array)
    _check.Dims().shape("samples", array.shape, ("n",))
    _check.finite("samples", array)
    if array.size and (loudest := float(np.abs(array).max())) > _LOUDEST:
        raise ValueError(f"samples: expected values in [-1, 1], got up to {loudest:g}")
    return array.astype(np.float32)


def _demand_whole(where: str, sound: Any, content: bytes) -> None:
    """Demand as many samples as the header says: libsndfile reads what there is."""
    if sound.format == "NIST":
        found = re.search(rb"^sample_count\s+-i\s+(\S+)\s*$", content[:_NIST_HEADER], re.MULTILINE)
        promised = found[1].decode("ascii", "backslashreplace") if found else str(sound.frames)
        if promised != str(sound.frames):
            raise FileFormatError(f"{where}: expected {printable(promised)} samples, as the header says, got {sound.frames}")
        return
    at = 12
    order: Literal["big", "little"] = "big" if content.startswith(b"RIFX") else "little"
    while content[at : at + 4] != b"data":
        if at + 8 > len(content):
            raise FileFormatError(f"{where}: expected a chunk called data behind whole chunks, got none")
        size = int.from_bytes(content[at + 4 : at + 8], order)
        at += 8 + size + size % 2
    bytes_promised, there = int.from_bytes(content[at + 4 : at + 8], order), max(0, len(content) - at - 8)
    if bytes_promised > there or (bytes_promised == 0 and sound.frames):
        raise FileFormatError(f"{where}: expected {bytes_promised} bytes of samples, as the header says, got {there}")
