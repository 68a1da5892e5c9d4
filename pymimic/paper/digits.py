"""Spoken digits as a set: recordings and perturbed copies of them, split by speaker or by number, with states as targets."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..backends.interface import Array
from ..demo.datasets import Rows
from ..demo.recipes import Recipe
from ..demo.setting import Seeds, Shape
from ..demo.students import Training
from ..numerics import log_softmax
from ..speech.features import filterbanks
from ..speech.fsdd import DIGITS, RATE, TAKES, TEST_TAKES, Recording, read_fsdd
from ..speech.perturb import Perturb
from ..speech.windows import Frames
from ..speech.words import even_states, heard, realigned, stretched
from .frames import FrameData, FrameSetting

STATES = 3  # of a digit
PERTURB = Perturb(speed=0.15)
_FAST_TAKES = (0, TEST_TAKES, 2 * TEST_TAKES)  # one for each part of the publisher's split
_ROUNDS = 2  # of alignment
_ALIGN = Training("cross_entropy", 2e-3, 1, 256, weight_decay=0.01, dropout=0.2)


class Spoken(NamedTuple):
    """Recordings, and the frames of them and of their copies: all recordings, then all of the first copy, and so on."""

    recordings: list[Recording]
    frames: Frames

    @property
    def lengths(self) -> Array:
        """How many frames each recording and each copy has."""
        return np.diff(self.frames.starts)

    def rows(self, recordings: Array, copies: range, every: int) -> Array:
        """One in so many of the frames of these recordings' copies; copy 0 is what was recorded."""
        count = len(self.recordings)
        rows = (self.frames.rows_of(recordings + copy * count)[copy % every :: every] for copy in copies)
        return np.concatenate([np.zeros(0, np.int64), *rows])


@lru_cache(1)
def recordings_at(path: Path, fast: bool) -> list[Recording]:
    """All, or three of each speaker and digit if it is to be fast; errors are those of `read_fsdd`."""
    return read_fsdd(path, _FAST_TAKES if fast else range(TAKES))


@lru_cache(1)
def spoken(path: Path, copies: int, seed: int, fast: bool) -> Spoken:
    """The set with so many copies of each recording; copy i draws from SeedSequence(seed, spawn_key=(i,))."""
    recordings = recordings_at(path, fast)
    features = [filterbanks(one.samples, RATE) for one in recordings]
    for copy in range(copies):
        rng = np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(copy,)))
        features += [filterbanks(PERTURB(one.samples, RATE, rng), RATE) for one in recordings]
    return Spoken(recordings, Frames(features))


class Split(NamedTuple):
    """Numbers of recordings."""

    train: Array
    validation: Array
    test: Array

    @classmethod
    def of(cls, recordings: list[Recording], held_out: str | None) -> Split:
        """The publisher's, or all of a speaker's to test; of the others, five of each speaker and digit validate."""
        take = np.array([one.take for one in recordings])
        test = take < TEST_TAKES if held_out is None else np.array([one.speaker == held_out for one in recordings])
        first = TEST_TAKES if held_out is None else 0
        validation = ~test & (first <= take) & (take < first + TEST_TAKES)
        return cls(*(np.flatnonzero(part) for part in (~test & ~validation, validation, test)))


class DigitSetting(FrameSetting):
    """As `FrameSetting`; the rows to train on are of recordings and of their first copies, and those of further copies are unlabelled.

    Targets are digits' states: even splits, then twice aligned by a shallow net on labels, which is neither teacher nor
    student. It has learnt from the recordings to train on, and is told the digit, those of test recordings too.

    Parameters
    ----------
    spoken, split : the recordings
    every : of the frames of what was recorded, and of the copies, one in so many is a row
    taught : of each recording's copies, so many are rows to train on
    aligner : the net that aligns

    Attributes
    ----------
    recorded : the rows to train on that are of recordings, and not of copies
    """

    def __init__(
        self, spoken: Spoken, split: Split, every: tuple[int, int], taught: int, aligner: Shape, how: Recipe, seeds: Seeds, device: str
    ) -> None:  # fmt: skip
        self.spoken, self.split, self._every, self._taught, self._aligner = spoken, split, every, taught, aligner
        evenly = [even_states(T, STATES) for T in spoken.lengths[: len(spoken.recordings)]]
        super().__init__(self._labelled(evenly), how, seeds, device)
        for _ in range(_ROUNDS):
            self.data = self._labelled(self._aligned())
            self.validation = self.data.cases(self.data.validation)

    def digit_error(self, logits: Array) -> float:
        """The share of test recordings in which a net with these logits for their frames hears another digit."""
        frames = np.split(log_softmax(logits), np.cumsum(self.spoken.lengths[self.split.test])[:-1])
        return float(np.mean([heard(one, STATES) != self.spoken.recordings[i].digit for one, i in zip(frames, self.split.test)]))

    def _labelled(self, states: list[Array]) -> FrameData:
        """The set, given the states of all that was recorded."""
        known = [STATES * one.digit + state for one, state in zip(self.spoken.recordings, states)]
        labels = np.concatenate([stretched(known[i % len(known)], T) for i, T in enumerate(self.spoken.lengths)])

        def part(recordings: Array, copies: range, every: int) -> Rows:
            x = self.spoken.rows(recordings, copies, every)
            return Rows(x, labels[x])

        (every, of_copies), split = self._every, self.split
        taught, more = range(1, 1 + self._taught), range(1 + self._taught, len(self.spoken.lengths) // len(known))
        self.recorded = part(split.train, range(1), every)
        train = Rows(*(np.concatenate(both) for both in zip(self.recorded, part(split.train, taught, of_copies))))
        unlabelled = part(split.train, more, of_copies)
        validation, test = part(split.validation, range(1), every), part(split.test, range(1), 1)
        return FrameData("fsdd", STATES * DIGITS, train, validation, test, unlabelled, self.spoken.frames)

    def _aligned(self) -> list[Array]:
        """The states by a net that learns those that there are."""
        net = self._train(self.data.cases(self.data.train), _ALIGN, *self._aligner).net
        priors = np.bincount(self.data.train.labels, minlength=self.data.outputs) + 1.0
        count = len(self.spoken.recordings)
        recorded = np.arange(self.spoken.frames.starts[count])
        said = log_softmax(self.spoken.frames.answers(net, recorded)) - np.log(priors / priors.sum())
        frames = np.split(said, self.spoken.frames.starts[1:count])
        return [realigned(one, recording.digit, STATES) for one, recording in zip(frames, self.spoken.recordings)]
