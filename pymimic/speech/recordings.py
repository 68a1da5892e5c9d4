"""Sentences of a corpus as a net learns them: filterbanks, and the state of every frame."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from ..backends.interface import Array
from ..errors import FileFormatError
from ..threads import get_num_threads
from .audio import read_audio
from .features import filterbanks, frame_count
from .segments import Segment, frame_states, read_segments
from .timit import RATE, Utterance


class Recording(NamedTuple):
    """One sentence."""

    features: Array  # (T, 123) float32
    states: Array  # (T,) int64 in [0, 183)
    segments: list[Segment]

    @property
    def phones(self) -> list[str]:
        """What is said."""
        return [segment.phone for segment in self.segments]


def read(utterances: Sequence[Utterance]) -> list[Recording]:
    """The sentences, in their order. Errors are those of `read_audio` and of `read_segments`; FileFormatError, too, of less than 25 ms."""
    with ThreadPoolExecutor(get_num_threads()) as pool:
        return list(pool.map(_read, utterances))


def _read(utterance: Utterance) -> Recording:
    samples = read_audio(utterance.wav, RATE)
    if frame_count(len(samples), RATE) == 0:
        raise FileFormatError(f"path: {str(utterance.wav)!r}: expected at least 25 ms, got {len(samples)} samples")
    segments = read_segments(utterance.phn, len(samples))
    features = filterbanks(samples, RATE)
    return Recording(features, frame_states(segments, len(features), RATE), segments)
