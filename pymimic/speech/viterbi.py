"""The best way through states in time, given what a net says of each frame."""

from __future__ import annotations

import numpy as np

from .. import _check
from ..backends.interface import Array
from ..packages import package

_STEPS = np.array([[1, 0], [1, 1]])  # to the next frame: stay in the state, or go on to the next
_LARGEST = 1e100  # whose sums do not overflow


def align(log_likelihood: Array) -> Array:
    """The state (T,) of each frame on the best way from the first state through all of them, in order, to the last.

    Parameters
    ----------
    log_likelihood : (T, S) floats in [-1e100, 1e100], T at least S: of each frame, given each state of a word; a net's log posteriors
        less the log priors of its states, up to a constant a frame

    Raises
    ------
    TypeError, ValueError
        It is not, or has fewer frames than states.
    ImportError
        librosa is missing.
    """
    cost, _ = _costs(_demanded(log_likelihood))
    _, path = package("speech", "librosa.sequence").dtw(C=cost, step_sizes_sigma=_STEPS)
    return np.asarray(path[::-1, 1], np.int64)


def word_score(log_likelihood: Array) -> float:
    """The sum along that way: the score of a word, left to right.

    Parameters and errors are those of `align`; -inf where there are fewer frames than states, as no way leads through.
    """
    array = _demanded(log_likelihood)
    if len(array) < array.shape[1]:
        return -np.inf
    cost, most = _costs(array)
    reached = package("speech", "librosa.sequence").dtw(C=cost, step_sizes_sigma=_STEPS, backtrack=False)
    return float(most - reached[-1, -1])


def best_path(log_likelihood: Array, transition: Array, initial: Array) -> tuple[Array, float]:
    """The most likely states (T,) and the logarithm of their likelihood, where any state may follow another (Viterbi 1967).

    Parameters
    ----------
    log_likelihood : (T, S) floats in [-1e100, 1e100]
    transition : (S, S) probabilities; row i, whose sum is 1, is of what follows state i
    initial : (S,) probabilities of the first frame's state, of sum 1

    Raises
    ------
    TypeError, ValueError
        They are not.
    """
    array = _demanded(log_likelihood)
    S = array.shape[1]
    for name, given, shape in (("transition", transition, (S, S)), ("initial", initial, (S,))):
        value = np.asarray(given)
        if value.shape != shape:
            raise ValueError(f"{name}: expected shape {shape}, got {value.shape}")
        if not ((value >= 0).all() and np.allclose(value.sum(axis=-1), 1)):
            raise ValueError(f"{name}: expected probabilities whose sum is 1, got {value.min():g} to {value.max():g}")
    with np.errstate(divide="ignore"):  # a probability of 0 is a way that nobody takes, which librosa's viterbi does not know
        into = np.log(np.ascontiguousarray(np.asarray(transition, np.float64).T))
        score = np.log(np.asarray(initial, np.float64)) + array[0]
    before = np.zeros(array.shape, np.int64)  # the state from which each is best reached
    for t in range(1, len(array)):
        ways = score + into
        before[t] = ways.argmax(axis=1)
        score = ways.max(axis=1) + array[t]
    states = np.full(len(array), score.argmax())
    for t in range(len(array) - 1, 0, -1):
        states[t - 1] = before[t, states[t]]
    return states, float(score.max())


def _costs(array: Array) -> tuple[Array, float]:
    """What each frame loses in each state against its best, and the sum of those."""
    if len(array) < array.shape[1]:
        raise ValueError(f"log_likelihood: expected at least as many frames as states, which are {array.shape[1]}, got {len(array)}")
    largest = array.max(axis=1)
    return largest[:, None] - array, float(largest.sum())


def _demanded(log_likelihood: Array) -> Array:
    """Demand (T, S) finite floats, of at least one frame and state, and give them as float64."""
    array = _check.data_array("log_likelihood", log_likelihood)
    _check.float_dtype("log_likelihood", array)
    _check.Dims().shape("log_likelihood", array.shape, ("T", "S"))
    if array.size == 0:
        raise ValueError(f"log_likelihood: expected at least one frame and one state, got shape {array.shape}")
    _check.finite("log_likelihood", array)
    wide = array.astype(np.float64)
    if (largest := np.abs(wide).max()) > _LARGEST:
        raise ValueError(f"log_likelihood: expected values up to {_LARGEST:g}, got {largest:g}")
    return wide
