"""Words as states in order: where each begins, and which word a net hears."""

from __future__ import annotations

import numpy as np

from .. import _check
from ..backends.interface import Array
from .viterbi import align, word_score


def even_states(frames: int, states: int) -> Array:
    """The state (frames,) int64 of each frame where so many share them evenly, in order."""
    frames, states = _check.integer("frames", frames, 1, 1 << 31), _check.integer("states", states, 1, 1 << 31)
    return np.arange(frames) * states // frames


def stretched(states: Array, frames: int) -> Array:
    """The states (frames,) of a recording that is as long as that and says the same, faster or slower: those at the same share of it."""
    if len(states) == 0:
        raise ValueError("states: expected at least one, got none")
    states = np.asarray(states)
    at = (np.arange(_check.integer("frames", frames, 1, 1 << 31)) + 0.5) * (len(states) / frames)
    return states[np.minimum(at.astype(np.int64), len(states) - 1)]


def realigned(log_likelihood: Array, word: int, states: int) -> Array:
    """The state (T,) in [0, states) of each frame of a word, by `align`.

    Parameters
    ----------
    log_likelihood : (T, W * states): of each frame, given each state of each of W words, a word's side by side
    word : which of them it is
    states : of each word

    Raises
    ------
    TypeError, ValueError
        The columns are not of whole words, word is none of them, or as `align` has it.
    """
    array = _of_words("log_likelihood", log_likelihood, states)
    word = _check.integer("word", word, 0, array.shape[1] // states)
    return align(array[:, word * states : (word + 1) * states])


def heard(log_posteriors: Array, states: int) -> int:
    """The word, of W, whose log posteriors have the greatest sum along its best way, left to right.

    Parameters
    ----------
    log_posteriors : (T, W * states), T at least `states`
    states : of each word

    Raises
    ------
    TypeError, ValueError
        The columns are not of whole words, there are fewer frames than states, or as `word_score` has it.
    """
    array = _of_words("log_posteriors", log_posteriors, states)
    if len(array) < states:
        raise ValueError(f"log_posteriors: expected at least as many frames as states, which are {states}, got {len(array)}")
    return int(np.argmax([word_score(word) for word in np.split(array, array.shape[1] // states, axis=1)]))


def _of_words(name: str, given: Array, states: int) -> Array:
    """Demand the columns of whole words, of one at least."""
    states, array = _check.integer("states", states, 1, 1 << 31), _check.data_array(name, given)
    _check.Dims().shape(name, array.shape, ("T", "W * states"))
    if array.shape[1] == 0 or array.shape[1] % states:
        raise ValueError(f"{name}: expected {states} columns a word, got {array.shape[1]} in all")
    return array
