"""Dropout: the generator, its layout over rows and units, and that every op draws the same mask."""

import functools
import math

import numpy as np
import pytest
from cases import checked, masks
from hypothesis import given
from hypothesis import strategies as st

from pymimic import ops
from pymimic.backends import reference
from pymimic.backends.interface import Mask
from pymimic.numerics import philox4x32

# Random123's known answers (its tests/kat_vectors): rounds, counter, key, result
KNOWN_ANSWERS = [
    (7, "00000000 00000000 00000000 00000000", "00000000 00000000", "5f6fb709 0d893f64 4f121f81 4f730a48"),
    (7, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "5207ddc2 45165e59 4d8ee751 8c52f662"),
    (7, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "4dfccaba 190a87f0 c47362ba b6b5242a"),
    (10, "00000000 00000000 00000000 00000000", "00000000 00000000", "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    (10, "ffffffff ffffffff ffffffff ffffffff", "ffffffff ffffffff", "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    (10, "243f6a88 85a308d3 13198a2e 03707344", "a4093822 299f31d0", "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


def words(text):
    return [int(word, 16) for word in text.split()]


def philox(counter, key, rounds=7):
    """Philox4x32 in Python's integers: Salmon et al. 2011, section 4."""
    c, k, low = list(counter), list(key), 2**32 - 1
    for _ in range(rounds):
        left, right = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [right >> 32 ^ c[1] ^ k[0], right & low, left >> 32 ^ c[3] ^ k[1], left & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def byte_of(row, unit, seed, offset):
    """The random byte of one unit: the design's layout, word for word."""
    lane = 4 * (row % 8) + (unit % 8) // 2
    byte = 4 * (unit % 32 // 8) + 2 * (row % 16 // 8) + unit % 2
    word = philox((offset, lane, row // 16, unit // 32), (seed & 0xFFFFFFFF, seed >> 32))[byte // 4]
    return word >> 8 * (byte % 4) & 255


@functools.cache
def bytes_of(rows, units, seed, offset, origin):
    """The same of a whole block; all backends are held against one."""
    return np.array([[byte_of(origin[0] + row, origin[1] + unit, seed, offset) for unit in range(units)] for row in range(rows)])


def p_of(keep):
    return 1 - keep / 256


def kept(shape, p, backend, dtype="float32", **where):
    """Which units of that block are kept."""
    return ops.dropout(np.ones(shape, dtype), p, backend=backend, **where) > 0


def all_bytes(shape, backend, **where):
    """The random bytes behind a block, from its masks at every keep: a unit is kept when its byte < keep."""
    return 255 - sum(kept(shape, p_of(keep), backend, **where).astype(int) for keep in range(1, 256))


@pytest.mark.parametrize(("rounds", "counter", "key", "want"), KNOWN_ANSWERS)
def test_philox_known_answers(rounds, counter, key, want):
    assert philox(words(counter), words(key), rounds) == words(want)
    got = philox4x32(np.array(words(counter), np.uint32), tuple(words(key)), rounds)
    assert got.tolist() == words(want)


def test_the_first_tile_holds_the_known_answer(backend):
    """Seed 0, offset 0, lane 0: rows 0 and 8, units 0, 1, 8, 9, 16, 17, 24, 25."""
    got = all_bytes((16, 32), backend, seed=0)
    lane0 = [got[row, 8 * group + unit] for group in range(4) for row in (0, 8) for unit in (0, 1)]
    assert lane0 == list(np.array(words(KNOWN_ANSWERS[0][3]), "<u4").tobytes())


@pytest.mark.parametrize(
    "where",
    [
        {"seed": 1, "offset": 0, "origin": (0, 0)},
        {"seed": 2**64 - 2, "offset": 2**32 - 1, "origin": (16 * 3, 32 * 5)},
        {"seed": 0x299F31D0_A4093822, "offset": 0x243F6A88, "origin": (16 * 0x13198A2E, 32 * 0x03707344)},
        {"seed": 7, "offset": 3, "origin": (2**36 - 48, 2**37 - 96)},
    ],
    ids=str,
)
def test_layout_is_the_designs(backend, where):
    """Against bytes drawn one at a time, in Python's integers."""
    np.testing.assert_array_equal(all_bytes((35, 69), backend, **where), bytes_of(35, 69, **where))


@given(mask=masks(ps=(0.1, 0.5, 0.97)), rows=st.integers(0, 70), units=st.integers(0, 150), p=st.floats(1 / 511, 511 / 512))
def test_masks_and_survivors_equal_the_references(backend, mask, rows, units, p):
    where = {name: mask[name] for name in ("seed", "offset", "origin")}
    how = checked({**mask, "dropout": p})
    x = np.random.default_rng(0).standard_normal((rows, units))
    for dtype in (np.float32, np.float64):
        want = x.astype(dtype) * reference.multiplier((rows, units), how, np.dtype(dtype))
        for op in (ops.dropout, ops.dropout_backward):
            np.testing.assert_array_equal(op(x.astype(dtype), p, backend=backend, **where), want)


def test_every_op_draws_the_same_mask(backend, dtype):
    where = {"seed": 99, "offset": 5, "origin": (32, 64)}
    rows, units, p = 41, 77, 0.4
    want = kept((rows, units), p, "reference", **where)
    one, zero = np.ones((rows, 1), dtype), np.zeros(units, dtype)
    how = {"activation": "identity", "dropout": p, "backend": backend, **where}
    h = ops.linear_dropout(one, np.ones((units, 1), dtype), zero, **how)
    np.testing.assert_array_equal(h > 0, want)
    dx = ops.linear_dropout_backward(np.eye(rows, units, dtype=dtype), one, np.ones((units, 1), dtype), h, **how).x
    np.testing.assert_array_equal(dx[:, 0] > 0, want.diagonal())
    y = ops.shallow_forward(one, np.ones((units, 1), dtype), zero, np.eye(units, dtype=dtype), zero, **how)
    np.testing.assert_array_equal(y > 0, want)
    dy = np.ones((rows, units), dtype)
    dW = ops.shallow_backward(dy, np.ones((rows, 1), dtype), np.ones((units, 1), dtype), zero, np.eye(units, dtype=dtype), **how)
    np.testing.assert_allclose(dW.b, want.sum(0) * checked({"dropout": p, **where}).scale, rtol=1e-6)
    np.testing.assert_array_equal(kept((rows, units), p, backend, dtype, **where), want)


def test_blocks_at_their_origins_make_the_whole(backend):
    where = {"seed": 5, "offset": 1}
    whole = kept((100, 200), 0.5, backend, origin=(160, 320), **where)
    for row in (0, 16, 48, 96):
        for unit in (0, 32, 160, 192):
            part = kept((100 - row, 200 - unit), 0.5, backend, origin=(160 + row, 320 + unit), **where)
            np.testing.assert_array_equal(part, whole[row:, unit:])


def test_leading_axes_share_one_mask(backend, dtype):
    x = np.random.default_rng(0).standard_normal((3, 2, 20, 50)).astype(dtype)
    got = ops.dropout(x, 0.5, seed=3, backend=backend)
    for i, j in np.ndindex(3, 2):
        np.testing.assert_array_equal(got[i, j], ops.dropout(x[i, j], 0.5, seed=3, backend=backend))


def test_out_is_written_into(backend, dtype):
    x = np.random.default_rng(0).standard_normal((2, 20, 50)).astype(dtype)
    for op in (ops.dropout, ops.dropout_backward):
        out = np.full_like(x, np.nan)
        assert op(x, 0.5, seed=3, out=out, backend=backend) is out
        np.testing.assert_array_equal(out, op(x, 0.5, seed=3, backend=backend))


@pytest.mark.parametrize("keep", [1, 2, 127, 128, 129, 254, 255])
def test_survivors_are_scaled_by_256_over_keep(backend, dtype, keep):
    x = np.full((128, 256), 1.25, dtype)
    got = ops.dropout(x, p_of(keep), seed=keep, backend=backend)
    scale = np.dtype(dtype).type(256 / keep)
    assert set(np.unique(got)) == {0, np.dtype(dtype).type(1.25) * scale}
    share = np.count_nonzero(got) / got.size
    assert abs(share - keep / 256) < 5 * math.sqrt(keep / 256 * (1 - keep / 256) / got.size)


def test_probability_is_rounded_to_the_grain(backend):
    """keep = floor(256 (1 - p) + 0.5), so that expectations are exact."""
    for p, keep in ((0.5, 128), (0.1, 230), (0.9, 26), (0.3, 179), (511 / 512, 1), (1 / 511, 255), (1 / 512 + 1e-9, 255)):
        got = ops.dropout(np.ones((64, 64), "float32"), p, seed=1, backend=backend)
        assert got.max() == np.float32(256 / keep), p


def test_no_dropout_gives_the_same_bits(backend, dtype):
    x = np.random.default_rng(0).standard_normal((5, 33)).astype(dtype)
    got = ops.dropout(x, 0.0, seed=1, backend=backend)
    np.testing.assert_array_equal(got, x)
    assert not np.shares_memory(got, x)


@pytest.mark.parametrize("p", [1 / 512, 1e-9, 512.5 / 513, 0.999999])
def test_a_probability_that_keeps_all_or_none_is_refused(backend, p):
    one = np.ones((1, 1), "float32")
    for call in (
        lambda: ops.dropout(one, p, seed=0, backend=backend),
        lambda: ops.dropout_backward(one, p, seed=0, backend=backend),
        lambda: ops.linear_dropout(one, one, one[0], dropout=p, backend=backend),
        lambda: ops.shallow_forward(one, one, one[0], one, one[0], dropout=p, backend=backend),
    ):
        with pytest.raises(ValueError, match=r"^(dropout|p): expected .*got"):
            call()


def test_the_gradient_is_exactly_zero_where_h_is(backend, activation, dtype):
    """Also where the pre-activation is huge, so that a gate made by scaling would leak."""
    rng = np.random.default_rng(0)
    x, weight, bias = (rng.standard_normal(shape).astype(dtype) * size for shape, size in (((50, 6), 1), ((70, 6), 3), ((70,), 1)))
    how = {"activation": activation, "dropout": 0.5, "seed": 8, "offset": 2, "backend": backend}
    h = ops.linear_dropout(x, weight, bias, **how)
    dropped = ~kept((50, 70), 0.5, "reference", seed=8, offset=2)
    assert not h[dropped].any()
    if activation == "relu":  # h > 0 says active and kept
        assert np.array_equal(h > 0, ~dropped & (x @ weight.T + bias > 0))
        dropped = h == 0
    for unit in range(0, 70, 9):  # one unit at a time, so that dz shows its gradient
        W, dy = np.zeros((70, 1), dtype), np.full((50, 1), 1e30, dtype)
        W[unit] = 1
        dz = ops.shallow_backward(dy, x, weight, bias, W, needs="z", **how).z
        assert not dz[dropped[:, unit]].any()
        assert np.abs(dz[~dropped[:, unit]]).sum() > 0
    grads = ops.linear_dropout_backward(np.full((50, 70), 1e30, dtype) * dropped, x, weight, h, bias=bias, **how)
    assert not any(grad.any() for grad in grads)


def test_bytes_are_uniform_and_uncorrelated():
    """Statistics of the definition, which the backends equal: 2^18 bytes, within five standard errors."""
    drawn = reference.dropout_bytes(512, 512, Mask(128, seed=123, offset=4)).astype(np.float64)
    counts = np.bincount(drawn.astype(int).ravel(), minlength=256)
    chi2 = ((counts - drawn.size / 256) ** 2).sum() / (drawn.size / 256)
    assert abs(chi2 - 255) < 5 * math.sqrt(2 * 255)
    centred = (drawn - 127.5) / math.sqrt((256**2 - 1) / 12)
    others = [
        reference.dropout_bytes(512, 512, Mask(128, seed=123, offset=5)),
        reference.dropout_bytes(512, 512, Mask(128, seed=124, offset=4)),
        reference.dropout_bytes(512, 512, Mask(128, seed=123 + 2**32, offset=4)),
        *(np.roll(drawn, shift, axis) for axis in (0, 1) for shift in (1, 2, 8, 16, 32)),
    ]
    for other in others:
        correlation = np.mean(centred * (other - 127.5)) / math.sqrt((256**2 - 1) / 12)
        assert abs(correlation) < 5 / math.sqrt(drawn.size)
