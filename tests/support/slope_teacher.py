"""A teacher and rows for the tests of transfer sets."""

import numpy as np

from pymimic.data.teacher import from_callable

D, C = 5, 3
SLOPE = np.linspace(-1, 1, D * C, dtype=np.float32).reshape(D, C)


def says(x):
    """A teacher's logits, whose bits do not depend on the rows beside."""
    return (x[:, :, None] * SLOPE).sum(axis=1)


TEACHER = from_callable(says, "slope")


def rows(n, seed=0, width=D):
    return np.random.default_rng(seed).standard_normal((n, width), np.float32)


def uneven(x, sizes=(1, 7, 30, 2)):
    """x in pieces."""
    start = 0
    while start < len(x):
        for size in sizes:
            yield x[start : start + size]
            start += size


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}
