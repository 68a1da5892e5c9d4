"""New recordings from old ones: faster or slower, louder or softer, noisier, and not cut at the same place."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..data.generators import keep
from ..packages import package
from .audio import demanded_samples


@dataclass(frozen=True)
class Perturb:
    """A generator of recordings that say the same: (samples, rate, rng) -> samples.

    Parameters
    ----------
    speed : a recording is played by a factor exp(u), u uniform in [-speed, speed], faster: its pitch and formants rise with it
    gain : decibels, uniform in [-gain, gain]
    noise : white noise so many decibels below the recording, uniform between the two numbers; None for none
    shift : seconds, uniform in [-shift, shift], by which it begins later, after silence, or is cut; so is its end
    """

    speed: float = 0.1
    gain: float = 6.0
    noise: tuple[float, float] | None = (15.0, 45.0)
    shift: float = 0.02

    def __post_init__(self) -> None:
        keep(self, "speed", _check.number("speed", self.speed, 0, most=1))
        keep(self, "gain", _check.number("gain", self.gain, 0, most=60))
        keep(self, "shift", _check.number("shift", self.shift, 0, most=1))
        if self.noise is not None:
            pair = _check.sequence("noise", self.noise, "decibels")
            if len(pair) != 2:
                raise ValueError(f"noise: expected two numbers of decibels or None, got {len(pair)}")
            low = _check.number("noise", pair[0], -60, most=120)
            object.__setattr__(self, "noise", (low, _check.number("noise", pair[1], low, most=120)))

    def __call__(self, samples: Array, rate: int, rng: np.random.Generator) -> Array:
        """A new recording (n',) float32 of samples (n,) of floats.

        Raises
        ------
        TypeError, ValueError
            samples are of a wrong kind, none, NaN, infinite or above a million; rate is no whole number above 0.
        ImportError
            librosa is missing.
        """
        rate, array = _check.integer("rate", rate, 1, 1 << 31), demanded_samples(samples)
        if len(array) == 0:
            raise ValueError("samples: expected some, got none")
        factor = float(np.exp(rng.uniform(-self.speed, self.speed)))
        y: Array = package("speech", "librosa").resample(array, orig_sr=rate * factor, target_sr=rate, res_type="soxr_hq")
        begin, end = (round(rate * rng.uniform(-self.shift, self.shift)) for _ in range(2))
        begin, end = (max(cut, -(len(y) // 4)) for cut in (begin, end))  # half of it stays, however short it is
        y = np.pad(y[max(0, -begin) : len(y) - max(0, -end)], (max(0, begin), max(0, end)))
        if self.noise is not None:
            below = rng.uniform(*self.noise)
            y = y + np.sqrt(np.square(y).mean()) * 10 ** (-below / 20) * rng.standard_normal(len(y))
        return np.asarray(y * 10 ** (rng.uniform(-self.gain, self.gain) / 20), np.float32)
