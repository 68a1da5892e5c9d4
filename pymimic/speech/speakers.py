"""The speakers of a synthetic corpus: what makes each voice another, and where and how it is recorded."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from ..backends.interface import Array
from ..packages import package
from .timit import RATE

_VOICES = {
    "slt": ("F", 180.0),
    "rms": ("M", 105.0),
    "awb": ("M", 125.0),
}  # of flite, with sex and pitch in Hz: those with exact phone times
_TRACTS = [Fraction(20, n) for n in range(18, 23)]  # by which formants are multiplied
_QUIET, _LOUD = 25.0, 10.0  # dB of speech over noise
_ECHO = 0.03  # of an echo's samples, at its beginning, beside 1 for what is heard at once


@dataclass(frozen=True)
class Speaker:
    """One who speaks.

    Attributes
    ----------
    name : as TIMIT makes them: sex, three letters, a number
    voice : flite's
    region : the folder, one for each voice
    pitch : mean, in Hz; the voice rms keeps its own
    pace : how long phones last, 1 being the voice's own
    tract : formants are multiplied by this
    tilt : of the microphone, a first-order filter's coefficient
    room : seconds in which an echo falls by 60 dB
    """

    name: str
    voice: str
    region: str
    pitch: float
    pace: float
    tract: Fraction
    tilt: float
    room: float

    @property
    def stretch(self) -> float:
        """What flite is told, as another tract changes the time that it takes too."""
        return self.pace * float(self.tract)

    def recorded(self, samples: Array, rng: np.random.Generator) -> Array:
        """Clean samples (n,) as they are recorded, (n / tract,) float32: the tract, the room, the microphone, noise."""
        signal = package("speech", "scipy.signal")
        voiced = signal.resample_poly(samples, self.tract.denominator, self.tract.numerator)
        times = np.arange(round(self.room * RATE)) / RATE
        echo = _ECHO * rng.standard_normal(len(times)) * np.exp(-6.9 * times / self.room)
        echo[0] = 1
        heard = signal.lfilter([1, -self.tilt], [1], signal.fftconvolve(voiced, echo)[: len(voiced)])
        noise = signal.lfilter([1], [1, -rng.uniform(0, 0.95)], rng.standard_normal(len(heard)))
        noise *= np.sqrt(np.mean(heard**2) / np.mean(noise**2)) * 10 ** (-rng.uniform(_LOUD, _QUIET) / 20)
        noisy = heard + noise
        return np.asarray(0.5 * noisy / np.abs(noisy).max(), np.float32)


def drawn(count: int, stream: np.random.SeedSequence) -> list[Speaker]:
    """So many speakers, all voices equally often; the first n are the same for every count."""
    people, voices = [], list(_VOICES)
    for i, own in enumerate(stream.spawn(count)):
        rng, voice = np.random.default_rng(own), voices[i % len(voices)]
        sex, pitch = _VOICES[voice]
        tract = _TRACTS[rng.integers(len(_TRACTS))]
        people.append(
            Speaker(
                f"{sex}{voice.upper()}{i}", voice, f"DR{1 + i % len(voices)}", pitch * rng.uniform(0.8, 1.25) / float(tract) ** 0.5,
                rng.uniform(0.8, 1.2), tract, rng.uniform(-0.5, 0.9), rng.uniform(0.05, 0.3),
            )
        )  # fmt: skip
    return people
