"""`pymimic_serve` in the emulator: the whole net, with weights in bf16, int8 and float32."""

import cases
import numpy as np
import pytest
from emulator import INVALID_VALUE, CServing, guarded, operand
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends import reference
from pymimic.backends.interface import ACTIVATIONS

SEEDS = range(6)
WEIGHTS = ("bf16", "int8", "fp32")


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
    """A net as the kernel takes it, and as float64. Without D there is no bottleneck."""

    def __init__(self, B, k, H, C, weights="bf16", activation="relu", more=0, seed=0, D=None, standardised=False):
        rng = np.random.default_rng(seed)
        self.bottleneck, D = D is not None, k if D is None else D
        self.size, self.weights, self.activation = (B, D, k, H, C), weights, activation
        self.x, self.b, self.c = (self.buffer(rng.standard_normal(shape)) for shape in ((B, D), (H,), (C,)))
        self.mean, self.scale = (self.buffer(rng.random(D) + 0.5) if standardised else None for _ in range(2))
        matrices = {
            "V": rng.standard_normal((k, D) if self.bottleneck else (1, 1)) * max(1, D) ** -0.5,
            "U": rng.standard_normal((H, k)) * max(1, k) ** -0.5,
            "W": rng.standard_normal((H, C)),
        }
        self.operands, self.scales, self.wide = {}, {}, {}
        for name, m in matrices.items():
            if weights == "int8":
                scale = self.buffer(np.abs(m).max(axis=1, initial=1e-3) / 127)
                digits = np.rint(m / scale[:, None]).astype(np.int8)
                self.operands[name], self.scales[name] = bytes_of(digits, more), scale
                self.wide[name] = digits.astype(np.float64) * scale[:, None]
            else:
                self.operands[name], self.scales[name] = operand(m, weights, more), None
                self.wide[name] = self.operands[name][:, : m.shape[1]].astype(np.float64)

    @staticmethod
    def buffer(values):
        array = guarded(values.shape).array
        array[...] = values
        return array

    def struct(self):
        def at(array):
            return None if array is None else array.ctypes.data

        matrices = [(at(m), m.shape[1]) for m in (self.operands[name] for name in "VUW")]
        if not self.bottleneck:
            matrices[0] = (None, 0)
        return CServing(
            *self.size, WEIGHTS.index(self.weights), ACTIVATIONS.index(self.activation), at(self.x), at(self.mean), at(self.scale),
            *(value for matrix in matrices for value in matrix), *(at(self.scales[name]) for name in "VUW"), at(self.b), at(self.c),
        )  # fmt: skip

    def of_rows(self, rows):
        """Goes on with these rows alone."""
        self.x = self.buffer(self.x[rows])
        self.size = (len(self.x), *self.size[1:])
        return self

    def status(self, simt, y, seed=0):
        simt.seed(seed)
        struct = self.struct()
        return simt.status("pymimic_serve", struct, y, simt.workspace("pymimic_serve_plan", struct), None)

    def run(self, simt, seed=0):
        y = guarded((self.size[0], self.size[4]))
        assert self.status(simt, y.array, seed) == 0, simt.error()
        assert y.intact
        return y.array

    def expected(self):
        """y and its bound: roundings of sums in float32, through z and h."""
        x, b, c = (array.astype(np.float64) for array in (self.x, self.b, self.c))
        if self.mean is not None:
            x = (x - self.mean.astype(np.float64)) * self.scale.astype(np.float64)
        z, z_error = x, 2.0**-23 * (np.abs(x) + (self.mean is not None))
        if self.bottleneck:
            z, z_error = _product(x, z_error, self.wide["V"].T)
        U, W = self.wide["U"], self.wide["W"]
        a, a_error = _product(z, z_error, U.T)
        a, a_error = a + b, a_error + 2.0**-22 * np.abs(b)
        h, h_error = reference.activate(a, self.activation)[0], 1.13 * a_error + 2.0**-20 * np.minimum(1, np.abs(a))
        y, error = _product(h, h_error, W)
        return y + c, error + 2.0**-22 * (np.abs(y + c) + np.abs(c))

    def holds(self, y):
        expected, bound = self.expected()
        return bool((np.abs(y - expected) <= bound).all())


def _product(a, error, b):
    """a b, and how far a float32 sum may lie from it when `a` is off by `error`, of either sign in each element."""
    sums = 2.0**-22 * (4 + a.shape[1] ** 0.5) * np.sqrt((a * a) @ (b * b))
    return a @ b, sums + 4 * np.sqrt((error * error) @ (b * b))


@given(
    B=st.integers(0, 10), k=st.sampled_from((0, *cases.SIZES, 250, 2048)), H=st.sampled_from((0, *cases.SIZES, 300, 700)),
    C=st.sampled_from((0, *cases.SIZES, 183, 1000, 1024)), weights=st.sampled_from(WEIGHTS), activation=st.sampled_from(ACTIVATIONS),
    more=st.sampled_from([0, 16, 48]), seed=st.integers(0, 99), standardised=st.booleans(),
)  # fmt: skip
@settings(max_examples=40)
def test_any_shape_without_a_bottleneck(simt, B, k, H, C, weights, activation, more, seed, standardised):
    served = Served(B, k, H, C, weights, activation, more, seed, None, standardised)
    assert served.holds(served.run(simt, seed))


@given(
    B=st.integers(0, 10), D=st.sampled_from((0, *cases.SIZES, 784, 2500)), k=st.sampled_from((0, *cases.SIZES)),
    weights=st.sampled_from(WEIGHTS), more=st.sampled_from([0, 16, 48]), seed=st.integers(0, 99), standardised=st.booleans(),
)  # fmt: skip
@settings(max_examples=30)
def test_any_bottleneck(simt, B, D, k, weights, more, seed, standardised):
    served = Served(B, k, 70, 9, weights, "tanh", more, seed, D, standardised)
    assert served.holds(served.run(simt, seed))


@pytest.mark.parametrize("D", [None, 600])
@pytest.mark.parametrize("weights", WEIGHTS)
def test_any_number_of_rows_and_no_row_depends_on_others(simt, weights, D):
    many = Served(19, 130, 700, 33, weights, "tanh", D=D, standardised=True)
    y = many.run(simt)
    assert many.holds(y)
    for B in (*range(1, 9), 16, 17):
        for first in (0, 19 - B):
            rows = slice(first, first + B)
            few = Served(19, 130, 700, 33, weights, "tanh", D=D, standardised=True).of_rows(rows)
            np.testing.assert_array_equal(few.run(simt, B), y[rows])


@pytest.mark.parametrize("weights", WEIGHTS)
def test_schedules_give_the_same_bits(simt, weights):
    served = Served(3, 140, 2500, 30, weights, D=50)
    first = served.run(simt)
    assert served.holds(first)
    for seed in SEEDS:
        np.testing.assert_array_equal(served.run(simt, seed), first)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_nan_propagates(simt, weights, activation):
    served = Served(4, 40, 300, 9, weights, activation, D=70)
    served.x[2, 69] = np.nan
    assert np.flatnonzero(np.isnan(served.run(simt)).all(axis=1)).tolist() == [2]
    assert np.isnan(served.run(simt)).sum() == 9


def test_chips_with_less_shared_memory_take_fewer_rows_at_once(simt):
    served = Served(8, 2048, 70, 9, "bf16")
    expected = served.run(simt)
    simt.limit_shared(99 * 1024)
    np.testing.assert_array_equal(served.run(simt), expected)


def test_all_bytes(simt):
    """Each of the 256 values of int8, in U and in W."""
    served = Served(1, 1, 256, 256, "int8", "identity")
    digits = np.arange(-128, 128)
    served.b[:], served.c[:], served.x[:], served.scales["U"][:], served.scales["W"][:] = 0, 0, 1, 0.5, 0.25
    served.operands["U"][:, 0] = digits
    served.operands["W"][:] = np.diag(digits[::-1])
    np.testing.assert_array_equal(served.run(simt)[0], digits * digits[::-1] / 8)


def test_beyond_the_limits(simt):
    y = np.zeros((8, 8), np.float32)
    for B, D, k, H, C in (
        (-1, 7, 3, 4, 5), (2, 7, 2049, 4, 5), (2, 7, 3, 4, 1025), (2, 7, 3, 2**31, 5), (2, 7, -1, 4, 5), (2, 2**31, 3, 4, 5),
        (2, -1, 3, 4, 5),
    ):  # fmt: skip
        served = Served(2, 3, 4, 5, D=7)
        served.size = (B, D, k, H, C)
        assert simt.status("pymimic_serve", served.struct(), y, None, None) == INVALID_VALUE
    for field, value in (
        ("ldu", 24), ("ldw", 0), ("ldv", 8), ("V_scale", None), ("U_scale", None), ("W_scale", None), ("V", None), ("mean", None),
        ("scale", None),
    ):  # fmt: skip
        served = Served(2, 3, 4, 5, "int8", D=7, standardised=True)
        struct = served.struct()
        setattr(struct, field, value)
        assert simt.status("pymimic_serve", struct, y, None, None) == INVALID_VALUE


def survivors(simt, served):
    simt.forget_visits()
    assert all(s.holds(s.run(simt, seed)) for s in served for seed in SEEDS)
    mutants = list(simt.visited("serve.cu", "serve_bottleneck.cu", "split_sums.cuh"))
    alive = []
    for mutant in mutants:
        simt.mutate(mutant)
        for seed in SEEDS:
            ys = [guarded((s.size[0], s.size[4])).array for s in served]
            if any(s.status(simt, y, seed) or not s.holds(y) for s, y in zip(served, ys)):
                break
        else:
            alive.append(mutant.name)
    simt.mutate(None)
    return mutants, alive


def test_mutants(simt):
    """A ring that goes round, a net of many parts."""
    mutants, alive = survivors(simt, [Served(2, 600, 300, 20), Served(1, 20, 2500, 600, "int8", D=40)])
    assert len(mutants) == 7
    assert alive == []
