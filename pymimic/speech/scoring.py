"""From a net's logits to phones, by a bigram model of what follows what, and how many of them are wrong."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from ..backends.interface import Array
from ..data.cases import row_numbers
from ..numerics import log_softmax
from ..packages import package
from .phones import NUMBERS, PHONES, SILENCE, STATES, folded, number_of
from .segments import Segment
from .viterbi import best_path

STATE_COUNT = STATES * len(PHONES)
"""183."""

_UNSEEN = -600.0  # the log likelihood of states that training has not: they are never chosen
_WEIGHTS = (2.0, 4.0, 8.0)
_INSERTIONS = (1.0, 0.3)


class Scales(NamedTuple):
    """How far the bigram model is heard, chosen on the development set.

    Attributes
    ----------
    weight : its power, beside 1 for the net's
    insertion : by which the probability to leave a phone is multiplied, at most 1: the less, the fewer phones
    """

    weight: float = 1.0
    insertion: float = 1.0


def bigram(transcripts: Sequence[Sequence[str]]) -> Array:
    """P(second | first) of phones, (61, 61) float64, counted, and smoothed as Witten & Bell (1991) do.

    After a phone that n phones follow, of t kinds, counts have the share n / (n + t), and the rest goes by how often each phone occurs at
    all, to which 1 is added.
    """
    size = len(PHONES)
    pairs, single = np.zeros((size, size)), np.ones(size)
    for phones in transcripts:
        numbers = [number_of(phone) for phone in phones]
        np.add.at(pairs, (numbers[:-1], numbers[1:]), 1)
        np.add.at(single, numbers, 1)
    n, kinds = pairs.sum(axis=1, keepdims=True), np.maximum((pairs > 0).sum(axis=1, keepdims=True), 1)
    return np.asarray((pairs + kinds * single / single.sum()) / (n + kinds))


class Decoder:
    """A hidden Markov model of 61 phones with 3 states each, from what is known of the training sentences.

    Parameters
    ----------
    states : of each sentence's frames, (T,) ints in [0, 183)
    segments : of each sentence

    Attributes
    ----------
    prior : (183,) shares of the frames
    leave : (183,) probabilities to leave a state at the next frame
    follows : see `bigram`

    Raises
    ------
    TypeError, ValueError
        There are no frames; a state is no int in [0, 183); a phone is none of TIMIT's.
    """

    def __init__(self, states: Sequence[Array], segments: Sequence[Sequence[Segment]]) -> None:
        counts, runs = (np.zeros(STATE_COUNT) for _ in range(2))
        checked = [row_numbers(one, STATE_COUNT, f"states[{i}]") for i, one in enumerate(states)]
        if not any(map(len, checked)):
            raise ValueError("states: expected those of at least one frame, got none")
        for one in checked:
            np.add.at(counts, one, 1)
            np.add.at(runs, one[np.flatnonzero(np.diff(one, prepend=-1))], 1)
        self.prior = counts / counts.sum()
        self.leave = np.where(counts > 0, runs / np.maximum(counts, 1), 0.5)
        self.follows = bigram([[segment.phone for segment in one] for one in segments])

    def likelihoods(self, logits: Array) -> Array:
        """Log likelihoods (T, 183) of frames given each state, up to a constant a frame: log posteriors less log priors."""
        seen = self.prior > 0
        posteriors = log_softmax(np.asarray(logits, np.float64))
        return np.asarray(np.where(seen, posteriors - np.log(np.where(seen, self.prior, 1)), _UNSEEN))

    def transition(self, scales: Scales) -> Array:
        """(183, 183) probabilities of what follows each state."""
        leave = self.leave.copy()
        leave[STATES - 1 :: STATES] *= scales.insertion
        matrix = np.diag(1 - leave)
        inner = np.flatnonzero(np.arange(STATE_COUNT) % STATES < STATES - 1)
        matrix[inner, inner + 1] = leave[inner]
        follows = (self.follows / self.follows.max(axis=1, keepdims=True)) ** scales.weight  # the largest is 1, whatever the power
        follows /= follows.sum(axis=1, keepdims=True)
        matrix[STATES - 1 :: STATES, ::STATES] = leave[STATES - 1 :: STATES, None] * follows
        return matrix

    def decoded(self, logits: Sequence[Array], scales: Scales) -> list[list[str]]:
        """The phones of sentences, given a net's logits (T, 183) for each; all begin with silence."""
        transition, initial = self.transition(scales), np.zeros(STATE_COUNT)
        initial[STATES * NUMBERS[SILENCE]] = 1
        return [phones_of(best_path(self.likelihoods(one), transition, initial)[0]) for one in logits]

    def chosen(self, logits: Sequence[Array], references: Sequence[Sequence[str]]) -> Scales:
        """The scales of the least phone error rate on development sentences; of equals the first."""
        tried = [Scales(*pair) for pair in itertools.product(_WEIGHTS, _INSERTIONS)]
        return min(tried, key=lambda scales: phone_error_rate(self.decoded(logits, scales), references))


def phones_of(states: Array) -> list[str]:
    """The phones that a way through the states, ints in [0, 183), passes: each is entered by its first state."""
    states = row_numbers(states, STATE_COUNT, "states")
    first = (states % STATES == 0) & (np.diff(states, prepend=-1) != 0)
    return [PHONES[state // STATES] for state in states[first]]


def phone_error_rate(hypotheses: Sequence[Sequence[str]], references: Sequence[Sequence[str]]) -> float:
    """Substitutions, deletions and insertions of the shortest edit, of all sentences, over the number of reference phones.

    Both are folded to the 39 classes of Lee & Hon (1989) first; glottal stops are dropped.

    Raises
    ------
    ValueError
        There are not as many hypotheses as references, or no reference phones.
    ImportError
        rapidfuzz is missing.
    """
    distance = package("speech", "rapidfuzz.distance").Levenshtein.distance
    if len(hypotheses) != len(references):
        raise ValueError(f"hypotheses: expected {len(references)}, as there are references, got {len(hypotheses)}")
    pairs = [(folded(one), folded(other)) for one, other in zip(hypotheses, references)]
    total = sum(len(reference) for _, reference in pairs)
    if total == 0:
        raise ValueError("references: expected phones, got none")
    return float(sum(distance(one, other) for one, other in pairs) / total)
