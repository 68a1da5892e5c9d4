"""What a teacher and its mimic take, by one rule for both."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np

from ..nets.net import Net

Size = dict[str, int | None]


def size(model: Any) -> Size:
    """bytes of its pickle, parameters, and multiply-adds for a row; None where a word has no meaning.

    Of our nets, scikit-learn's linear models and its multilayer perceptrons all is known; of others, the bytes.
    """
    parameters: int | None = None
    multiply_adds: int | None = None
    learned = getattr(model, "__dict__", {})
    if isinstance(model, Net):
        parameters, multiply_adds = model.parameter_count, model.multiply_adds
    else:
        for weights, biases in (("coef_", "intercept_"), ("coefs_", "intercepts_")):
            if weights in learned and biases in learned:
                multiply_adds = _numbers(learned[weights])
                parameters = multiply_adds + _numbers(learned[biases])
    return {"bytes": None if model is None else _pickled(model), "parameters": parameters, "multiply_adds": multiply_adds}


def _numbers(arrays: Any) -> int:
    return sum(map(_numbers, arrays)) if isinstance(arrays, list) else int(np.size(arrays))


class _Counter:
    """A file that keeps nothing but its length."""

    length = 0

    def write(self, data: Any) -> int:
        self.length += memoryview(data).nbytes
        return memoryview(data).nbytes


def _pickled(model: Any) -> int | None:
    """Bytes of the pickle, which is not kept; None where there is none."""
    counter = _Counter()
    try:
        pickle.dump(model, counter, protocol=5)
    except (pickle.PicklingError, TypeError, AttributeError):  # functions without a name, locks
        return None
    return counter.length
