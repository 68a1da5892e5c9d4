"""A folder in FSDD's layout, made of tones: each digit is three of them, and each speaker has a pitch of their own."""

import os

import numpy as np
import soundfile

from pymimic.speech.fsdd import DIGITS, RATE, SPEAKERS, TAKES

MADE = (0, 5, 10)  # the numbers that have sounds of their own; the others are one file under many names


def write_digits(folder):
    """Write all 3,000 names."""
    folder.mkdir()
    for digit in range(DIGITS):
        for place, speaker in enumerate(SPEAKERS):
            for take in MADE:
                soundfile.write(folder / f"{digit}_{speaker}_{take}.wav", _sound(digit, place, take), RATE, subtype="PCM_16")
            for take in set(range(TAKES)) - set(MADE):
                os.link(folder / f"{digit}_{speaker}_{MADE[0]}.wav", folder / f"{digit}_{speaker}_{take}.wav")
    return folder


def _sound(digit, place, take):
    rng = np.random.default_rng([digit, place, take])
    tones = np.random.default_rng(digit).uniform(300, 3000, 3) * (1 + 0.01 * place)
    parts = [np.sin(2 * np.pi * hertz * np.arange(rng.integers(400, 1000)) / RATE) for hertz in tones]
    samples = np.concatenate(parts)
    return (0.2 * samples + 0.01 * rng.standard_normal(len(samples))).astype(np.float32)
