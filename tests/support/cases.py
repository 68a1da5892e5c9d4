"""Shapes and arrays for the tests of the ops, drawn with hypothesis."""

from typing import NamedTuple

import numpy as np
from hypothesis import strategies as st

from pymimic import arguments

# edges of tiles and vectors, primes, and multiples of nothing in particular
SIZES = (1, 2, 3, 4, 5, 7, 8, 9, 13, 15, 16, 17, 23, 31, 32, 33, 47, 48, 63, 64, 65, 96, 97, 127, 128, 129)
LARGEST = {"B": 1500, "k": 1300, "H": 20_000, "C": 1000}


@st.composite
def sizes(draw, axes="BkHC", work=4_000_000, smallest=1):
    """Sizes by axis: small ones at the edges of tiles, often one of them large, sometimes one of them 0 where `smallest` is 0.

    `work` bounds the multiply-adds of B x H x (k + C), so that an example takes milliseconds.
    """
    chosen = {axis: draw(st.sampled_from(SIZES)) for axis in axes}
    large = draw(st.sampled_from(("", *axes)))
    if large:
        chosen[large] = draw(st.integers(1, LARGEST[large]))
    if smallest == 0 and draw(st.integers(0, 7)) == 0:
        chosen[draw(st.sampled_from(axes))] = 0
    while chosen.get("B", 1) * chosen.get("H", 1) * (chosen.get("k", 1) + chosen.get("C", 0)) > work:
        shrinkable = max((axis for axis in axes if axis != large), key=chosen.__getitem__)
        chosen[shrinkable] = -(-chosen[shrinkable] // 2)
    return chosen


def masks(ps=(0.0, 0.0, 0.5, 0.3, 0.9)):
    """The keywords of dropout: often none, with every word of the counter in use."""
    return st.fixed_dictionaries(
        {
            "dropout": st.sampled_from(ps),
            "seed": st.sampled_from([0, 1, 2**32, 2**64 - 1]) | st.integers(0, 2**64 - 1),
            "offset": st.sampled_from([0, 1, 2**32 - 1]),
            "origin": st.tuples(
                st.sampled_from([0, 1, 5, 2**31]).map(lambda tile: 16 * tile), st.sampled_from([0, 1, 7, 2**31]).map(lambda tile: 32 * tile)
            ),
        }
    )


def checked(keywords):
    """The Mask that the ops make of those keywords."""
    return arguments.mask(keywords["dropout"], keywords["seed"], keywords["offset"], keywords["origin"])


class Shallow(NamedTuple):
    """Arguments of the shallow ops; `wide` gives them in float64."""

    dy: np.ndarray
    z: np.ndarray
    U: np.ndarray
    b: np.ndarray
    W: np.ndarray
    c: np.ndarray

    @property
    def wide(self):
        return Shallow(*(array.astype(np.float64) for array in self))

    @property
    def forward(self):
        return self[1:]

    @property
    def backward(self):
        return self[:5]


def shallow(size, dtype, seed=0):
    """Normal values, scaled so that pre-activations are of order 1; read-only, as the ops must not write to them."""
    rng = np.random.default_rng(seed)
    B, k, H, C = (size[axis] for axis in "BkHC")
    scales = (((B, C), 1), ((B, k), 1), ((H, k), max(1, k) ** -0.5), ((H,), 0.5), ((H, C), 1), ((C,), 1))
    return Shallow(*(_read_only((rng.standard_normal(shape) * scale).astype(dtype)) for shape, scale in scales))


def exact_shallow(size, dtype, scale, seed=0):
    """Small multiples of 1/8 (b: of 1/64): every sum of the relu and identity ops is exact in float32, in any order.

    `scale` is that of dropout, a power of 2. In units of the last place: |z|, |U|, |W|, |dy| <= m, and each sum stays under 2^24.
    """
    rng = np.random.default_rng(seed)
    B, k, H, C = (size[axis] for axis in "BkHC")
    for m in (4, 2, 1):
        a, da = k * m * m + 8, scale * C * m * m
        if max(H * scale * a * m + 512 * m, H * da * m, B * da * m, B * scale * a * m) < 2**24:
            break
    else:
        raise AssertionError(f"{size}: too large for exact sums")

    def eighths(*shape):
        return _read_only((rng.integers(-m, m + 1, shape) / 8).astype(dtype))

    b = _read_only((rng.integers(-8, 9, H) / 64).astype(dtype))
    return Shallow(eighths(B, C), eighths(B, k), eighths(H, k), b, eighths(H, C), eighths(C))


def _read_only(array):
    array.flags.writeable = False
    return array
