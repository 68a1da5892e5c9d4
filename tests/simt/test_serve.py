"""`pymimic_serve` in the emulator: bf16 and int8 weights, one to eight rows."""

import cases
import numpy as np
import pytest
from emulator import INVALID_VALUE, CServing, guarded, operand
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends import reference
from pymimic.backends.interface import ACTIVATIONS

SEEDS = range(6)
WEIGHTS = ("bf16", "int8")


def bytes_of(values, more):
    """int8 values as an operand."""
    rows, columns = values.shape
    ld = -(-columns // 16) * 16 + more
    raw = np.zeros(rows * ld + 16, np.int8)
    start = -raw.ctypes.data % 16
    padded = raw[start : start + rows * ld].reshape(rows, ld)
    padded[:, :columns] = values
    return padded


class Served:
    """A net as the kernel takes it, and as float64."""

    def __init__(self, B, k, H, C, weights="bf16", activation="relu", more=0, seed=0):
        rng = np.random.default_rng(seed)
        self.size, self.weights, self.activation = (B, k, H, C), weights, activation
        self.z, self.b, self.c = (self.buffer(rng.standard_normal(shape)) for shape in ((B, k), (H,), (C,)))
        U, W = rng.standard_normal((H, k)) * max(1, k) ** -0.5, rng.standard_normal((H, C))
        self.scales = [None, None]
        if weights == "int8":
            self.scales = [self.buffer(np.abs(m).max(axis=1, initial=1e-3) / 127) for m in (U, W)]
            digits = [np.rint(m / s[:, None]).astype(np.int8) for m, s in zip((U, W), self.scales)]
            self.U, self.W = (bytes_of(d, more) for d in digits)
            self.wide = [d.astype(np.float64) * s[:, None] for d, s in zip(digits, self.scales)]
        else:
            self.U, self.W = operand(U, "bf16", more), operand(W, "bf16", more)
            self.wide = [self.U[:, :k].astype(np.float64), self.W[:, :C].astype(np.float64)]

    @staticmethod
    def buffer(values):
        array = guarded(values.shape).array
        array[...] = values
        return array

    def struct(self):
        scales = [None if s is None else s.ctypes.data for s in self.scales]
        return CServing(
            *self.size, WEIGHTS.index(self.weights), ACTIVATIONS.index(self.activation), self.z.ctypes.data, self.U.ctypes.data,
            self.U.shape[1], self.W.ctypes.data, self.W.shape[1], *scales, self.b.ctypes.data, self.c.ctypes.data,
        )  # fmt: skip

    def status(self, simt, y, seed=0):
        simt.seed(seed)
        struct = self.struct()
        return simt.status("pymimic_serve", struct, y, simt.workspace("pymimic_serve_workspace", struct), None)

    def run(self, simt, seed=0):
        y = guarded((self.size[0], self.size[3]))
        assert self.status(simt, y.array, seed) == 0, simt.error()
        assert y.intact
        return y.array

    def expected(self):
        """y and its bound: roundings of sums in float32, through h."""
        U, W = self.wide
        z, b, c = (array.astype(np.float64) for array in (self.z, self.b, self.c))
        a, h = z @ U.T + b, reference.activate(z @ U.T + b, self.activation)[0]
        a_error = 2.0**-22 * (4 + self.size[1] ** 0.5) * (np.sqrt((z * z) @ (U * U).T) + np.abs(b))
        h_error = 1.13 * a_error + 2.0**-20 * np.minimum(1, np.abs(a))
        error = 2.0**-22 * (4 + self.size[2] ** 0.5) * np.sqrt((h * h) @ (W * W)) + 4 * np.sqrt((h_error * h_error) @ (W * W))
        y = h @ W + c
        return y, error + 2.0**-22 * (np.abs(y) + np.abs(c))

    def holds(self, y):
        expected, bound = self.expected()
        return bool((np.abs(y - expected) <= bound).all())


@given(
    B=st.integers(0, 8), k=st.sampled_from((0, *cases.SIZES, 250, 2048)), H=st.sampled_from((0, *cases.SIZES, 300, 700)),
    C=st.sampled_from((0, *cases.SIZES, 183, 1000, 1024)), weights=st.sampled_from(WEIGHTS), activation=st.sampled_from(ACTIVATIONS),
    more=st.sampled_from([0, 16, 48]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=80)
def test_any_shape(simt, B, k, H, C, weights, activation, more, seed):
    served = Served(B, k, H, C, weights, activation, more, seed)
    assert served.holds(served.run(simt, seed))


@pytest.mark.parametrize("weights", WEIGHTS)
def test_every_number_of_rows_and_no_row_depends_on_others(simt, weights):
    eight = Served(8, 250, 700, 183, weights, "tanh")
    y, z = eight.run(simt), eight.z
    assert eight.holds(y)
    for B in range(1, 8):
        for first in (0, 8 - B):
            eight.size, eight.z = (B, *eight.size[1:]), eight.buffer(z[first : first + B])
            np.testing.assert_array_equal(eight.run(simt, B), y[first : first + B])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_schedules_give_the_same_bits(simt, weights):
    served = Served(3, 140, 2500, 30, weights)
    first = served.run(simt)
    assert served.holds(first)
    for seed in SEEDS:
        np.testing.assert_array_equal(served.run(simt, seed), first)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_propagates(simt, weights, activation):
    served = Served(4, 40, 300, 9, weights, activation)
    served.z[2, 39] = np.nan
    assert np.flatnonzero(np.isnan(served.run(simt)).all(axis=1)).tolist() == [2]
    assert np.isnan(served.run(simt)).sum() == 9


def test_all_bytes(simt):
    """Each of the 256 values of int8, in U and in W."""
    served = Served(1, 1, 256, 256, "int8", "identity")
    digits = np.arange(-128, 128)
    served.b[:], served.c[:], served.z[:], served.scales[0][:], served.scales[1][:] = 0, 0, 1, 0.5, 0.25
    served.U[:, 0] = digits
    served.W[:] = np.diag(digits[::-1])
    np.testing.assert_array_equal(served.run(simt)[0], digits * digits[::-1] / 8)


def test_beyond_the_limits(simt):
    y = np.zeros((8, 8), np.float32)
    for B, k, H, C in ((9, 3, 4, 5), (-1, 3, 4, 5), (2, 2049, 4, 5), (2, 3, 4, 1025), (2, 3, 2**31, 5), (2, -1, 4, 5)):
        served = Served(2, 3, 4, 5)
        served.size = (B, k, H, C)
        assert simt.status("pymimic_serve", served.struct(), y, None, None) == INVALID_VALUE
    for field, value in (("ldu", 24), ("ldw", 0), ("U_scale", None), ("W_scale", None)):
        served = Served(2, 3, 4, 5, "int8")
        struct = served.struct()
        setattr(struct, field, value)
        assert simt.status("pymimic_serve", struct, y, None, None) == INVALID_VALUE


def survivors(simt, served):
    simt.forget_visits()
    assert all(s.holds(s.run(simt, seed)) for s in served for seed in SEEDS)
    mutants = list(simt.visited("serve.cu", "splits.cuh"))
    alive = []
    for mutant in mutants:
        simt.mutate(mutant)
        for seed in SEEDS:
            ys = [guarded((s.size[0], s.size[3])).array for s in served]
            if any(s.status(simt, y, seed) or not s.holds(y) for s, y in zip(served, ys)):
                break
        else:
            alive.append(mutant.name)
    simt.mutate(None)
    return mutants, alive


def test_mutants(simt):
    """A ring that goes round, a net of many parts."""
    mutants, alive = survivors(simt, [Served(2, 600, 300, 20), Served(1, 20, 2500, 600, "int8")])
    assert len(mutants) == 6
    assert alive == []
