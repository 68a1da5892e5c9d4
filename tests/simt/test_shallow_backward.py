"""The backward kernels in the emulator: dz, then dU, db and dW, stored or stepped, under many schedules."""

import itertools

import cases
import emulated_shallow
import numpy as np
import pytest
from emulated_step import UPDATES, Parameter
from emulator import INVALID_VALUE, CParameter, guarded, operand, shallow
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pymimic.backends.interface import ACTIVATIONS, Mask

PRECISIONS = ("bf16", "tf32", "fp32")
SHARED = {"sm_86": 99 * 1024, "sm_80": 163 * 1024, "sm_90": 227 * 1024}  # what a block may ask for
NO_MASK = {"dropout": 0.0, "seed": 0, "offset": 0, "origin": (0, 0)}
MASK = Mask(200, 2**63 + 5, 7, 32, 64)


class Problem:
    """Arguments of one backward pass, as the kernels take them."""

    def __init__(self, size, precision="bf16", activation="relu", mask=None, splits=0, more=0, seed=0):
        self.size, self.precision, self.activation, self.mask, self.splits = size, precision, activation, mask or Mask(), splits
        arrays = cases.shallow(size, "float32", seed)
        self.dy, self.z, self.U, self.W = (operand(x, precision, more) for x in (arrays.dy, arrays.z, arrays.U, arrays.W))
        self.b = guarded(arrays.b.shape).array
        self.b[:] = arrays.b

    def struct(self):
        return shallow(self.z, self.U, self.b, self.W, self.precision, self.activation, self.mask, self.size, self.splits)

    def outputs(self):
        B, k, H, C = (self.size[axis] for axis in "BkHC")
        return tuple(guarded(shape) for shape in ((B, k), (H, k), (H,), (H, C)))

    def status(self, simt, outputs, seed=0):
        simt.seed(seed)
        problem, (dz, *units) = self.struct(), (x and x.array for x in outputs)
        workspace = simt.workspace("pymimic_shallow_backward_rows_plan", problem)
        status = simt.status("pymimic_shallow_backward_rows", problem, self.dy, self.dy.shape[1], dz, workspace, None)
        return status or simt.status("pymimic_shallow_backward_units", problem, self.dy, self.dy.shape[1], *units, None)

    def run(self, simt, seed=0):
        outputs = self.outputs()
        assert self.status(simt, outputs, seed) == 0, simt.error()
        assert all(output.intact for output in outputs)
        return [output.array for output in outputs]

    def expected(self):
        k, C = self.size["k"], self.size["C"]
        arguments = (self.dy[:, :C], self.z[:, :k], self.U[:, :k], self.b, self.W[:, :C])
        return emulated_shallow.backward(*arguments, self.activation, self.mask, self.precision)

    def holds(self, gradients):
        """Whether all of them, but those that are None, lie within their bounds; NaN does not."""
        pairs = zip(gradients, self.expected())
        return all((np.abs(x - value) <= bound).all() for x, (value, bound) in pairs if x is not None)


def sized(B, k, H, C):
    return {"B": B, "k": k, "H": H, "C": C}


@example(size=sized(1057, 2, 1, 48), precision="bf16", activation="identity", mask=NO_MASK, splits=0, more=0, chip="sm_86", seed=0)
@given(
    size=cases.sizes(smallest=0, work=2_000_000),
    precision=st.sampled_from(PRECISIONS),
    activation=st.sampled_from(ACTIVATIONS),
    mask=cases.masks(),
    splits=st.sampled_from([0, 0, 1, 3]),
    more=st.sampled_from([0, 16, 48]),
    chip=st.sampled_from(list(SHARED)),
    seed=st.integers(0, 2**31),
)
@settings(max_examples=30)
def test_any_shape(simt, size, precision, activation, mask, splits, more, chip, seed):
    simt.limit_shared(SHARED[chip])
    problem = Problem(size, precision, activation, cases.checked(mask), splits, more, seed)
    assert problem.holds(problem.run(simt, seed))


@pytest.mark.parametrize(
    "size",
    [
        sized(130, 250, 70, 183),
        sized(33, 257, 65, 65),
        pytest.param(sized(5, 1200, 20, 10), marks=pytest.mark.slow),
        sized(17, 64, 40, 600),
    ],
)
def test_schedules_and_chips_give_the_same_bits(simt, size):
    problem = Problem(size, "bf16", "gelu", MASK)
    first = problem.run(simt)
    assert problem.holds(first)
    for seed, chip in enumerate(SHARED, 1):
        simt.limit_shared(SHARED[chip])
        for one, other in zip(problem.run(simt, seed), first):
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_mask_bits(simt, precision):
    """With unit matrices for z or U, and for dy, the gradients are the mask."""
    rows, units = 150, 90
    mask = Mask(77, 2**64 - 3, 2**32 - 1, 16 * 2**31, 32 * 3)
    kept = emulated_shallow.reference.multiplier((rows, units), mask, np.dtype(np.float32))
    kept = emulated_shallow.rounded(kept, precision).astype(np.float32)
    by_row = Problem(sized(rows, rows, units, rows), precision, "identity", mask)
    by_unit = Problem(sized(rows, units, units, rows), precision, "identity", mask)
    for problem in (by_row, by_unit):
        problem.dy[:, :rows], problem.W[:, :rows], problem.b[:] = np.eye(rows), 1, 1
        problem.z[:] = problem.U[:] = 0
    by_row.z[:, :rows], by_unit.U[:, :units] = np.eye(rows), np.eye(units)
    _, dU, _, dW = by_row.run(simt)
    np.testing.assert_array_equal(dU, kept.T)
    np.testing.assert_array_equal(dW, kept.T)
    np.testing.assert_array_equal(by_unit.run(simt)[0], kept)


def test_rows_do_not_depend_on_each_other(simt):
    few, many = (Problem(sized(B, 40, 500, 20), splits=3) for B in (3, 140))
    few.z[:], few.dy[:], few.U, few.b, few.W = many.z[:3], many.dy[:3], many.U, many.b, many.W
    np.testing.assert_array_equal(few.run(simt)[0], many.run(simt)[0][:3])


@pytest.mark.parametrize("where", ["z", "dy", "U", "W", "b"])
def test_nan_propagates(simt, where):
    """To where the definition takes it, and nowhere else."""
    for activation, precision in itertools.product(ACTIVATIONS, PRECISIONS):
        problem = Problem(sized(20, 9, 70, 5), precision, activation, Mask(128))
        getattr(problem, where)[(4,) if where == "b" else (4, 2)] = np.nan
        for gradient, (expected, _) in zip(problem.run(simt), problem.expected()):
            np.testing.assert_array_equal(np.isnan(gradient), np.isnan(expected))


@pytest.mark.parametrize("size", [sized(40, 70, 100, 20), sized(40, 300, 100, 200)])
def test_only_what_is_needed(simt, size):
    problem = Problem(size, "bf16", "tanh", MASK)
    everything = problem.run(simt)
    for needs in itertools.product([False, True], repeat=3):
        outputs = [x if i == 0 or needs[i - 1] else None for i, x in enumerate(problem.outputs())]
        assert problem.status(simt, outputs) == 0
        for output, other in zip(outputs, everything):
            if output is not None:
                np.testing.assert_array_equal(output.array, other)


def stepped(simt, problem, parameters, on_device=False):
    structs = [p and p.struct(on_device) for p in parameters]
    simt.call("pymimic_shallow_backward_step", problem.struct(), problem.dy, problem.dy.shape[1], *structs, None)


@pytest.mark.parametrize("capability", [pytest.param(80, marks=pytest.mark.slow), 90])
@pytest.mark.parametrize("rule", UPDATES)
@pytest.mark.parametrize(("size", "in_place"), [(sized(20, 40, 150, 70), False), (sized(7, 5, 4200, 3), True), (sized(0, 9, 70, 5), False)])
def test_step_is_gradients_and_the_plain_update(simt, capability, rule, size, in_place):
    simt.compute_capability(capability)
    for precision, on_device in zip(PRECISIONS, (False, True, False)):
        problem = Problem(size, precision, "tanh", MASK)
        gradients = problem.run(simt)[1:]
        arrays = cases.shallow(size, "float32")
        U, b, W = parameters = [Parameter(x, precision, rule) for x in (arrays.U, arrays.b, arrays.W)]
        assert simt.plan("pymimic_shallow_backward_units_plan", problem.struct(), 1, 1).in_place == in_place
        expected = [parameter.stepped(simt, gradient) for parameter, gradient in zip(parameters, gradients)]
        if in_place:
            U.working, b.value, W.working = problem.U, problem.b, problem.W
        stepped(simt, problem, parameters, on_device)
        assert all(parameter.same(other) for parameter, other in zip(parameters, expected))


def test_a_step_on_sm_90a_prefetches_what_it_updates(simt):
    """Masters and slots of U and W, once; no gradient that is stored."""
    simt.compute_capability(90)
    for size in (sized(7, 12, 4200, 4), sized(500, 12, 4200, 4), sized(200, 12, 4161, 4)):
        problem = Problem(size, "bf16")
        simt.prefetched_bytes()
        problem.run(simt)
        assert simt.prefetched_bytes() == 0
        arrays = cases.shallow(size, "float32")
        for rule, count in (("sgd", 1), ("momentum", 2), ("adamw", 3)):
            U, b, W = (Parameter(x, "bf16", rule) for x in (arrays.U, arrays.b, arrays.W))
            for parameter in (U, W):
                parameter.value, *parameter.slots = (aligned(a) for a in (parameter.value, *parameter.slots))
            stepped(simt, problem, [U, b, W])
            assert simt.prefetched_bytes() == count * 4 * (arrays.U.size + arrays.W.size)


def aligned(array):
    copy = guarded(array.shape).array
    copy[...] = array
    return copy


def test_frozen_parameters_are_left_alone(simt):
    problem = Problem(sized(20, 40, 150, 70))
    gradients = problem.run(simt)[1:]
    for free in range(3):
        arrays = cases.shallow(problem.size, "float32")
        parameter = Parameter((arrays.U, arrays.b, arrays.W)[free], "bf16", "adamw")
        expected = parameter.stepped(simt, gradients[free])
        stepped(simt, problem, [parameter if i == free else None for i in range(3)])
        assert parameter.same(expected)


def test_step_beyond_the_limits(simt):
    problem = Problem(sized(2, 3, 4, 5))
    for field, value in (("ld", 24), ("ld", 0), ("working", 8), ("slot", type(CParameter().slot)())):
        struct = Parameter(np.ones((4, 3)), "bf16", "adamw").struct()
        setattr(struct, field, struct.working + value if field == "working" else value)
        for parameters in ((struct, None, None), (None, None, struct)):
            status = simt.status("pymimic_shallow_backward_step", problem.struct(), problem.dy, 16, *parameters, None)
            assert status == INVALID_VALUE


def test_large_problems_step_in_place_small_ones_and_wide_ones_do_not(simt):
    for size, in_place in (
        (sized(8192, 250, 400_000, 183), 1), (sized(512, 250, 8000, 183), 1), (sized(512, 64, 8192, 10), 1),
        (sized(512, 16, 4096, 26), 0), (sized(512, 1200, 30_000, 10), 0),
    ):  # fmt: skip
        problem = Problem(sized(1, 1, 1, 1))
        problem.size = size
        assert simt.plan("pymimic_shallow_backward_units_plan", problem.struct(), 1, 1).in_place == in_place


def test_no_bank_conflicts(simt):
    simt.bank_conflicts()
    for precision, size, chip in itertools.product(PRECISIONS, (sized(34, 250, 66, 70), sized(40, 300, 20, 10)), ("sm_86", "sm_90")):
        simt.limit_shared(SHARED[chip])
        Problem(size, precision).run(simt)
    assert simt.bank_conflicts() == 0


def test_beyond_the_limits(simt):
    good = sized(2, 3, 4, 5)

    def refused(problem, struct, lddy=16):
        dz, *units = (x.array for x in Problem(good).outputs())
        rows = simt.status("pymimic_shallow_backward_rows", struct, problem.dy, lddy, dz, None, None)
        return rows == simt.status("pymimic_shallow_backward_units", struct, problem.dy, lddy, *units, None) == INVALID_VALUE

    for size in (good | {"k": 2049}, good | {"C": 1025}, good | {"B": -1}, good | {"H": 2**31}):
        problem = Problem(good)
        problem.size = size
        assert refused(problem, problem.struct())
    for field, value in (("ldz", 24), ("ldu", 0), ("ldw", 8)):
        problem = Problem(good)
        struct = problem.struct()
        setattr(struct, field, value)
        assert refused(problem, struct)
    for problem, lddy in ((Problem(good, "fp16"), 16), (Problem(good), 0), (Problem(good), 24)):
        assert refused(problem, problem.struct(), lddy)
    simt.limit_shared(48 * 1024)
    problem = Problem(good)
    assert refused(problem, problem.struct())


EVERYTHING, ONLY_DB = (True, True, True, True), (True, False, True, False)
MUTANT_CASES = (
    (Problem(sized(130, 130, 140, 70), "bf16", "relu", MASK, 1), "sm_90", EVERYTHING),
    (Problem(sized(70, 270, 70, 20), "bf16", "tanh", MASK, 1), "sm_86", EVERYTHING),
    (Problem(sized(50, 40, 70, 40), "fp32", "relu", Mask(), 1), "sm_80", EVERYTHING),
    (Problem(sized(50, 40, 70, 40), "bf16", "relu", Mask(), 1), "sm_80", ONLY_DB),
)
SEEDS = 4
FILES = ("backward_rows_sm80.cu", "backward_units_sm80.cu", "mask.cuh", "swizzled.cuh", "mma_products.cuh", "ring.cuh")


def survives(simt, problem, chip, needs, seed):
    simt.limit_shared(SHARED[chip])
    outputs = [output if needed else None for output, needed in zip(problem.outputs(), needs)]
    return problem.status(simt, outputs, seed) == 0 and problem.holds([output and output.array for output in outputs])


def survivors(simt, take):
    """Which of the mutants that `take` picks from all of them give the right gradients throughout."""
    simt.forget_visits()
    assert all(survives(simt, *case, 0) for case in MUTANT_CASES)
    alive = simt.survivors(
        take(sorted(simt.visited(*FILES), key=lambda m: m.name)),
        lambda: all(survives(simt, *case, seed) for seed in range(SEEDS) for case in MUTANT_CASES),
    )
    return alive


def test_some_mutants(simt):
    assert survivors(simt, lambda mutants: mutants[::6]) == []


@pytest.mark.mutants
def test_all_mutants(simt):
    assert survivors(simt, lambda mutants: mutants) == []
