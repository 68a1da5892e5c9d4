"""What a net sees of a recording: mel filterbank energies, the energy, and how both change, every 10 ms."""

from __future__ import annotations

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..packages import package
from .audio import demanded_samples

COLUMNS = 123
"""40 filters and the energy, and their first and second differences."""

_FILTERS = 40
_WINDOW, _HOP = 0.025, 0.010  # seconds
_FLOOR = 1e-7  # energies of digital silence count as this; 16 bits' rounding has about as much
_WIDTH = 9  # frames over which differences are fitted


def frame_count(samples: int, rate: int) -> int:
    """How many frames so many samples have: as many windows as fit, 0 where none does."""
    window, hop = _sizes(rate)
    return max(0, 1 + (samples - window) // hop)


def frame_centres(frames: int, rate: int) -> Array:
    """The sample (frames,) int64 in the middle of each frame's window."""
    window, hop = _sizes(rate)
    return np.arange(frames) * hop + window // 2


def filterbanks(samples: Array, rate: int) -> Array:
    """Features (T, 123) float32 of samples (n,): of every 25 ms, by Hamming windows, each 10 ms after the one before.

    The logarithms of the energy in 40 mel filters and of the whole window's, then their first and second differences, fitted over 9
    frames (Savitzky & Golay). The mean of each column over the recording is 0: a gain, or a microphone's colour, changes nothing.

    Parameters
    ----------
    samples : (n,) float array in [-1, 1] of at least 25 ms
    rate : samples a second, at least 8,000

    Raises
    ------
    TypeError, ValueError
        samples are of a wrong kind, too few, NaN, infinite or above a million; rate is below 8,000.
    ImportError
        librosa is missing.
    """
    features = package("speech", "librosa.feature")
    y = demanded_samples(samples)
    window, hop = _sizes(rate)
    if len(y) < window:
        raise ValueError(f"samples: expected at least {window} of them, which are 25 ms, got {len(y)}")
    size = 1 << (window - 1).bit_length()  # a frequency every 40 Hz or less: each filter, 100 Hz wide or more, has some
    spare = size - window  # zeros, so that frame t is of the samples from t * hop on
    power = features.melspectrogram(
        y=np.pad(y, (spare // 2, spare - spare // 2)), sr=rate, n_fft=size, hop_length=hop, win_length=window, window="hamming",
        center=False, n_mels=_FILTERS, norm=None,
    )  # fmt: skip
    energy = window * features.rms(y=y, frame_length=window, hop_length=hop, center=False) ** 2
    static = np.log(np.maximum(np.concatenate([power, energy]), _FLOOR, dtype=np.float64))
    changes = [features.delta(static, width=_WIDTH, order=order, mode="nearest") for order in (1, 2)]
    rows = np.concatenate([static, *changes]).T
    return np.ascontiguousarray(rows - rows.mean(axis=0), np.float32)


def _sizes(rate: int) -> tuple[int, int]:
    """Samples in a window, and from one to the next."""
    rate = _check.integer("rate", rate, 8000, 1 << 31)
    return round(_WINDOW * rate), round(_HOP * rate)
