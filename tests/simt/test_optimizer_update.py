"""`pymimic_optimizer_update` in the emulator, against the reference in float64."""

import ctypes as ct

import cases
import numpy as np
import pytest
from emulated_step import UPDATES
from emulator import ELEMENTS, INVALID_VALUE, PRECISIONS, CParameter, CUpdate, c_update, guarded, operand
from hypothesis import given, settings
from hypothesis import strategies as st

from pymimic.backends import get


class Step:
    """One call: the parameter, its slots, the gradient, and perhaps a working operand of which the padding must stay."""

    def __init__(self, shape, rule, working=None, seed=0):
        rng = np.random.default_rng(seed)
        self.update, slots = UPDATES[rule]
        self.value, self.grad = guarded(shape), guarded(shape)
        self.slots = [guarded(shape) for _ in range(slots)]
        for array in (self.value, self.grad, *self.slots):
            array.array[...] = rng.standard_normal(shape)
        if rule == "adamw":
            self.slots[1].array[...] **= 2
        self.precision = working or "bf16"
        self.working = None if working is None else operand(np.zeros(shape), working, 16)

    def struct(self):
        slots = [slot.array.ctypes.data for slot in self.slots] + [None] * (2 - len(self.slots))
        working, ld = (self.working.ctypes.data, self.working.shape[1]) if self.working is not None else (None, 0)
        return CParameter(self.value.array.ctypes.data, (ct.c_void_p * 2)(*slots), working, ld, c_update(self.update), None)

    def call(self, simt, struct=None):
        code = PRECISIONS.index(self.precision)
        return simt.status("pymimic_optimizer_update", struct or self.struct(), code, self.grad.array, *self.value.array.shape, None)

    def expected(self):
        value, grad, *slots = (array.array.astype(np.float64) for array in (self.value, self.grad, *self.slots))
        get("reference").optimizer_update(value, grad, tuple(slots), self.update)
        return [value, *slots]

    def check(self, expected):
        for got, want in zip((self.value, *self.slots), expected):
            # values and gradients are of order 1, and an AdamW step is at most the learning rate times its bias correction
            np.testing.assert_allclose(got.array, want, rtol=4e-7, atol=2e-6)
            assert got.intact
        if self.working is not None:
            rounded = np.zeros_like(self.working)
            rounded[:, : self.value.array.shape[1]] = self.value.array.astype(ELEMENTS[self.precision])
            np.testing.assert_array_equal(self.working, rounded)


@given(
    rows=st.sampled_from((*cases.SIZES, 300)), columns=st.sampled_from((*cases.SIZES, 250, 1030)), rule=st.sampled_from(list(UPDATES)),
    working=st.sampled_from([None, *PRECISIONS]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=50)
def test_any_shape(simt, rows, columns, rule, working, seed):
    step = Step((rows, columns), rule, working, seed)
    expected = step.expected()
    assert step.call(simt) == 0
    step.check(expected)


@pytest.mark.parametrize("rule", UPDATES)
def test_numbers_in_device_memory(simt, rule):
    step = Step((5, 7), rule, "bf16")
    expected, numbers = step.expected(), c_update(step.update)
    struct = step.struct()
    struct.update, struct.device_update = CUpdate(), ct.addressof(numbers)
    assert step.call(simt, struct) == 0
    step.check(expected)


@pytest.mark.parametrize("rule", UPDATES)
def test_nan_propagates(simt, rule):
    step = Step((9, 13), rule, "fp16")
    step.grad.array[3, 5] = np.nan
    assert step.call(simt) == 0
    for array in (step.value.array, step.working):
        assert np.argwhere(np.isnan(array)).tolist() == [[3, 5]]


def test_nothing(simt):
    for shape in ((0, 5), (5, 0)):
        assert Step(shape, "adamw", "bf16").call(simt) == 0


def test_beyond_the_limits(simt):
    for field, value in (("ld", 24), ("ld", 0), ("working", 8), ("slot", (ct.c_void_p * 2)())):
        step = Step((5, 20), "adamw", "bf16")
        struct = step.struct()
        setattr(struct, field, struct.working + value if field == "working" else value)
        assert step.call(simt, struct) == INVALID_VALUE
    step = Step((5, 20), "sgd")
    assert simt.status("pymimic_optimizer_update", step.struct(), 0, step.grad.array, -1, 20, None) == INVALID_VALUE
