#!/usr/bin/env python3
"""Stands for flite: each letter of a text is a phone of 60 ms, with a tone of its own."""

import array
import math
import os
import sys
import wave

SPOKEN = "aa ae ah ao aw ax ay b ch d dh eh er ey f g hh ih iy jh k l m n ng ow".split()  # noqa: SIM905 - of the letters a to z
SILENCE, SECONDS, RATE = 0.2, 0.06, 16000

options = dict(zip(sys.argv[1:], sys.argv[2:]))
stretch = float(next(word for word in sys.argv if word.startswith("duration_stretch=")).partition("=")[2])
phones = [SPOKEN[ord(letter) - ord("a")] for letter in options["-t"].lower() if "a" <= letter <= "z"]
phones = [os.environ.get("FLITE_PHONE", phone) for phone in phones]
samples, end, said = array.array("h"), 0.0, []
for phone in ["pau", *phones, "pau"]:
    end += stretch * (SILENCE if phone == "pau" else SECONDS)
    pitch = 0 if phone == "pau" else 200 + 150 * (SPOKEN.index(phone) if phone in SPOKEN else 0)
    samples.extend(round(9000 * math.sin(2 * math.pi * pitch * i / RATE)) for i in range(len(samples), round(end * RATE)))
    said.append(f"{phone}:{end:.3f}")
with wave.open(options["-o"], "wb") as file:
    file.setparams((1, 2, RATE, 0, "NONE", ""))
    file.writeframes(samples.tobytes())
print(" ".join(said))
