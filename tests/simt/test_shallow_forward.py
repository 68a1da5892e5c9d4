"""`pymimic_shallow_forward` in the emulator: shapes that fit no tile, against float64, under many schedules."""

import ctypes as ct
import itertools

import cases
import emulated_shallow
import numpy as np
import pytest
from emulator import ELEMENTS, INVALID_VALUE, PRECISIONS, guarded, operand, shallow
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends.interface import ACTIVATIONS, Mask


@pytest.fixture(params=[80, 90], ids="sm_{}".format)
def simt(simt, request):
    """Emulates a device that runs the kernels of this generation; those for 32-bit operands are the same in both."""
    simt.compute_capability(request.param)
    return simt


class Problem:
    """Arguments of one forward pass, as the kernel takes them."""

    def __init__(self, size, precision="bf16", activation="relu", mask=None, splits=0, more=0, seed=0):
        self.size, self.precision, self.activation, self.mask, self.splits = size, precision, activation, mask or Mask(), splits
        arrays = cases.shallow(size, "float32", seed)
        self.z, self.U, self.W = (operand(x, precision, more) for x in (arrays.z, arrays.U, arrays.W))
        self.b, self.c = (guarded(x.shape).array for x in (arrays.b, arrays.c))
        self.b[:], self.c[:] = arrays.b, arrays.c

    def struct(self):
        return shallow(self.z, self.U, self.b, self.W, self.precision, self.activation, self.mask, self.size, self.splits)

    def run(self, simt, seed=0):
        simt.seed(seed)
        problem, y = self.struct(), guarded((self.size["B"], self.size["C"]))
        simt.call("pymimic_shallow_forward", problem, self.c, y.array, simt.workspace("pymimic_shallow_forward_plan", problem), None)
        assert y.intact
        return y.array

    def expected(self):
        k, C = self.size["k"], self.size["C"]
        arguments = (self.z[:, :k], self.U[:, :k], self.b, self.W[:, :C], self.c)
        return emulated_shallow.forward(*arguments, self.activation, self.mask, self.precision)

    def holds(self, y):
        """Whether y lies within the bound; NaN does not."""
        expected, bound = self.expected()
        return bool((np.abs(y - expected) <= bound).all())


def sized(B, k, H, C):
    return {"B": B, "k": k, "H": H, "C": C}


@given(
    size=cases.sizes(smallest=0, work=4_000_000),
    precision=st.sampled_from(PRECISIONS),
    activation=st.sampled_from(ACTIVATIONS),
    mask=cases.masks(),
    splits=st.sampled_from([0, 0, 1, 3]),
    more=st.sampled_from([0, 16, 48]),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=50)
def test_any_shape(simt, size, precision, activation, mask, splits, more, seed):
    problem = Problem(size, precision, activation, cases.checked(mask), splits, more, seed)
    y = problem.run(simt, seed)
    assert problem.holds(y)


@pytest.mark.parametrize("size", [sized(130, 250, 200, 183), sized(33, 257, 130, 65), sized(5, 1200, 70, 10), sized(17, 64, 300, 1000)])
def test_schedules_give_the_same_bits(simt, size):
    _schedules_give_the_same_bits(simt, Problem(size, "bf16", "gelu", Mask(200, 2**63 + 5, 7, 32, 64)))


@pytest.mark.parametrize("mask", [Mask(), Mask(200, 2**63 + 5, 7, 32, 64)], ids=["all kept", "dropout"])
@pytest.mark.parametrize("size", [sized(130, 250, 500, 183), sized(33, 120, 700, 128), sized(5, 12, 1700, 10), sized(140, 64, 260, 16)])
def test_kernels_for_known_columns(simt, size, mask):
    """Of relu: schedules give the same bits."""
    _schedules_give_the_same_bits(simt, Problem(size, "bf16", "relu", mask))


def _schedules_give_the_same_bits(simt, problem):
    first = problem.run(simt, 0)
    assert problem.holds(first)
    for seed in range(1, 6):
        np.testing.assert_array_equal(problem.run(simt, seed), first)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mask_bits(simt, precision):
    """W picks single units out, so that y shows which of them were kept."""
    rows, units = 150, 190
    mask = Mask(77, 2**64 - 3, 2**32 - 1, 16 * 2**31, 32 * 3)
    problem = Problem(sized(rows, 3, units, units), precision, "identity", mask)
    problem.z[:, :3] = 0
    problem.b[:], problem.c[:] = 1, 0
    problem.W[:, :units] = np.eye(units)
    kept = emulated_shallow.reference.multiplier((rows, units), mask, np.dtype(np.float32))
    np.testing.assert_array_equal(problem.run(simt), emulated_shallow.rounded(kept, precision).astype(np.float32))


def test_float32_sums_over_many_units_are_rounded_and_not_cut_off(simt):
    """As tensor cores would: that is not noise, it all points to zero."""
    problem = Problem({"B": 2, "k": 1, "H": 16384, "C": 1}, "fp32", "identity", splits=1)
    for array in (problem.z, problem.U, problem.W):
        array[:] = np.abs(array)
    problem.b[:] = np.abs(problem.b)
    h = problem.z[:, :1].astype(np.float64) @ problem.U[:, :1].T + problem.b
    np.testing.assert_allclose(problem.run(simt), h @ problem.W[:, :1] + problem.c, rtol=4e-6)


def test_rows_do_not_depend_on_each_other(simt):
    few, many = (Problem(sized(B, 40, 500, 20), splits=3) for B in (3, 140))
    few.z[:] = many.z[:3]
    few.U, few.b, few.W, few.c = many.U, many.b, many.W, many.c
    np.testing.assert_array_equal(few.run(simt), many.run(simt)[:3])


def test_the_splits_of_a_single_row_are_those_of_any_number(simt):
    """Chosen from H, k and C alone, the same on every chip, and given for all rows: parts of H, and with them bits, stay the same."""
    given_, chosen, followed = [], [], []
    for B in (1, 140, 60_000):
        problem = Problem(sized(0, 40, 2000, 20))
        problem.size = sized(B, 40, 2000, 20)
        given_.append(simt.lib.pymimic_shallow_forward_splits(ct.byref(problem.struct())))
        chosen.append(simt.plan("pymimic_shallow_forward_plan", problem.struct()).splits)
        problem.splits = given_[0]
        followed.append(simt.plan("pymimic_shallow_forward_plan", problem.struct()).splits)
    assert given_ == followed == [4] * 3
    assert chosen == {80: [4, 4, 1], 90: [2, 2, 1]}[simt.capability]  # slabs are twice as long on sm_90a
    few, many = (Problem(sized(B, 40, 2000, 20), splits=given_[0]) for B in (1, 140))
    few.z[:] = many.z[139:]
    few.U, few.b, few.W, few.c = many.U, many.b, many.W, many.c
    np.testing.assert_array_equal(few.run(simt), many.run(simt)[139:])


def test_nan_propagates(simt):
    for activation, precision in itertools.product(ACTIVATIONS, PRECISIONS):
        problem = Problem(sized(20, 9, 70, 5), precision, activation, Mask(128))
        problem.z[4, 2] = np.nan
        wrong = np.isnan(problem.run(simt)).any(axis=1)
        np.testing.assert_array_equal(np.flatnonzero(wrong), [4])


def test_no_bank_conflicts(simt):
    simt.bank_conflicts()
    for precision, size in itertools.product(PRECISIONS, (sized(130, 250, 200, 183), sized(40, 300, 70, 10))):
        Problem(size, precision).run(simt)
    assert simt.bank_conflicts() == 0
    # what a block may have on every chip since sm_80; on sm_90
    assert simt.lib.simt_shared_bytes() <= {80: 99, 90: 227}[simt.capability] * 1024


def test_beyond_the_limits(simt):
    good = sized(2, 3, 4, 5)
    for size in (good | {"k": 2049}, good | {"C": 1025}, good | {"B": -1}, good | {"H": 2**31}):
        problem = Problem(good)
        problem.size = size
        assert simt.status("pymimic_shallow_forward", problem.struct(), problem.c, problem.c, None, None) == INVALID_VALUE
    for field, value in (("ldz", 24), ("ldu", 0), ("W", 8)):
        problem = Problem(good)
        struct = problem.struct()
        setattr(struct, field, getattr(struct, field) + value if field == "W" else value)
        assert simt.status("pymimic_shallow_forward", struct, problem.c, problem.c, None, None) == INVALID_VALUE


MUTANT_CASES = {
    80: (
        (sized(130, 250, 330, 183), "bf16", "relu", Mask(), 1),
        (sized(20, 300, 400, 20), "fp16", "tanh", Mask(128), 2),
        (sized(140, 64, 700, 10), "bf16", "relu", Mask(), 1),
        (sized(60, 70, 200, 40), "fp32", "relu", Mask(), 1),
    ),
    # more slabs than the ring has slots
    90: (
        (sized(130, 250, 600, 183), "bf16", "relu", Mask(), 1),
        (sized(130, 250, 600, 183), "bf16", "gelu", Mask(), 1),
        (sized(70, 128, 900, 120), "bf16", "relu", Mask(), 1),
        (sized(70, 300, 700, 20), "fp16", "tanh", Mask(128), 2),
        (sized(140, 64, 1700, 10), "bf16", "relu", Mask(), 1),
    ),
}
MUTATED_FILES = {80: ("forward_sm80.cu", "fragments.cuh", "swizzled.cuh", "mma_products.cuh"), 90: ("forward_sm90a.cu", "ring_sm90a.cuh")}


def survivors(simt, take):
    """Which of the mutants that `take` picks from all of them give the right y throughout."""
    problems = [Problem(*case) for case in MUTANT_CASES[simt.capability]]
    simt.forget_visits()
    assert all(problem.holds(problem.run(simt)) for problem in problems)
    mutants = list(simt.visited(*MUTATED_FILES[simt.capability]))
    alive = []
    for mutant in take(sorted(mutants, key=lambda m: m.name)):
        simt.mutate(mutant)
        runs = ((problem, seed) for seed in range(12) for problem in problems)
        if all(_survives(simt, problem, seed) for problem, seed in runs):
            alive.append(mutant.name)
    return alive


def _survives(simt, problem, seed):
    simt.seed(seed)
    struct, y = problem.struct(), guarded((problem.size["B"], problem.size["C"]))
    workspace = simt.workspace("pymimic_shallow_forward_plan", struct)
    return simt.status("pymimic_shallow_forward", struct, problem.c, y.array, workspace, None) == 0 and problem.holds(y.array)


def test_some_mutants(simt):
    assert survivors(simt, lambda mutants: mutants[::4]) == []


@pytest.mark.mutants
def test_all_mutants(simt):
    assert survivors(simt, lambda mutants: mutants) == []


@pytest.mark.parametrize("element", ELEMENTS.values())
def test_guards_are_nans(element):
    assert guarded((3, 4), element).intact


@pytest.mark.parametrize(("axis", "made"), [("B", 1), ("H", 2), ("C", 1), ("k", 2)])
def test_a_tensor_map_is_remembered_by_all_that_it_depends_on(simt, axis, made):
    if simt.capability != 90:
        pytest.skip("kernels of sm_80 have none")
    problem = Problem({"B": 40, "k": 70, "H": 90, "C": 20})
    assert problem.holds(problem.run(simt))
    simt.lib.simt_tensor_maps()
    first = problem.run(simt)
    assert simt.lib.simt_tensor_maps() == 0
    problem.size[axis] -= 5
    arrays = {"B": "z", "H": ("U", "b", "W"), "C": ("W", "c"), "k": ("z", "U")}[axis]
    for name in arrays:
        array = getattr(problem, name)
        if axis in "BH" or array.ndim == 1:
            setattr(problem, name, array[:-5])
        else:
            array[:, problem.size[axis] :] = 0  # the padding
    fewer = problem.run(simt)
    assert simt.lib.simt_tensor_maps() == made
    assert problem.holds(fewer)
    assert fewer.shape != first.shape or not np.array_equal(fewer, first)
