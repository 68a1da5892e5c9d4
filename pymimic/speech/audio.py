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
_NIST_HEADER = 1024  # bytes, where it does not say
_WIDTHS = {"PCM_U8": 1, "PCM_16": 2, "PCM_24": 3, "PCM_32": 4, "FLOAT": 4, "DOUBLE": 8, "ULAW": 1, "ALAW": 1}  # bytes of a sample in a WAV
_HIGHEST = 10.0  # floats may go a little beyond 1; whole numbers kept as floats go far beyond
_LOUDEST = 1e6  # 16 bits as whole numbers are still right, as a gain changes nothing; energies of much larger numbers overflow


def read_audio(path: str | os.PathLike[str], rate: int) -> Array:
    """The samples (n,) float32 of a WAV (RIFF) or NIST SPHERE file of one channel, by libsndfile: in [-1, 1], or of floats a little beyond.

    Parameters
    ----------
    path : the file
    rate : samples a second that it must have: nothing is resampled

    Raises
    ------
    FileFormatError
        The file is neither, or truncated, or empty; it has another rate or more channels; a sample is NaN, or far outside [-1, 1].
        The message names the file, what was expected and what came.
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
    wrong = ~(np.abs(samples) <= _HIGHEST)  # NaN too
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
    promised = _of_sphere(where, content) if sound.format == "NIST" else _of_riff(where, content, _WIDTHS.get(sound.subtype))
    if promised is not None and promised != sound.frames:
        raise FileFormatError(f"{where}: expected {promised} samples, as the header says, got {sound.frames}")


def _of_sphere(where: str, content: bytes) -> int | None:
    """The samples that a NIST SPHERE header promises; its second line is how many bytes it has."""
    size = re.match(rb"NIST_1A\r?\n\s*(\d{1,9})", content)
    header = content[: int(size[1]) if size else _NIST_HEADER].decode("ascii", "backslashreplace")
    line = re.search(r"^[ \t]*sample_count\b.*$", header, re.MULTILINE)
    if line is None:
        return None
    found = re.match(r"\s*sample_count\s+-i\s+([+-]?\d{1,18})\b", line[0])
    if found is None:
        raise FileFormatError(f"{where}: expected a line sample_count -i NUMBER, got {printable(line[0][:80])!r}")
    return int(found[1])


def _of_riff(where: str, content: bytes, width: int | None) -> int | None:
    """The samples, of `width` bytes, that the chunk called data promises, which must be whole; None for packed ones, without a width."""
    at = 12
    order: Literal["big", "little"] = "big" if content.startswith(b"RIFX") else "little"
    while content[at : at + 4] != b"data":
        if at + 8 > len(content):
            raise FileFormatError(f"{where}: expected a chunk called data behind whole chunks, got none")
        size = int.from_bytes(content[at + 4 : at + 8], order)
        at += 8 + size + size % 2
    size, there = int.from_bytes(content[at + 4 : at + 8], order), len(content) - at - 8
    if size > there:
        raise FileFormatError(f"{where}: expected {size} bytes of samples, as the header says, got {max(0, there)}")
    return None if width is None else size // width
