"""What a fused step does to memory: rows of any length, arrays that begin anywhere, part of a block; bit for bit the plain step."""

import cases
import numpy as np
import pytest
from emulated_step import Parameter
from emulator import guarded, operand, shallow

from pymimic.backends.interface import Mask

UNITS = {80: 64 + 3, 90: 65 * 64 + 3}  # the last block has units that fill no 16 bytes; so many that the sm_90a kernel is chosen
SHAPES = (  # k, C, by how many floats arrays begin beyond 16 bytes
    ("adamw", 64, 10, 0), ("adamw", 64, 10, 1), ("adamw", 66, 65, 0), ("sgd", 68, 3, 0), ("momentum", 1, 4, 2), ("nesterov", 5, 130, 3),
)  # fmt: skip


class Shifted:
    """An array between guards, `offset` floats beyond 16 bytes."""

    def __init__(self, values, offset):
        self.outer, self.offset = guarded((values.size + offset,)), offset
        self.array = self.outer.array[offset:].reshape(values.shape)
        self.array[...] = values
        assert self.array.ctypes.data % 16 == 4 * offset % 16

    @property
    def intact(self):
        return self.outer.intact and bool(np.isnan(self.outer.array[: self.offset]).all())


@pytest.mark.parametrize(("rule", "k", "C", "offset"), SHAPES)
@pytest.mark.parametrize(("capability", "precision"), [(80, "bf16"), (80, "fp32"), (90, "bf16")])
def test_rows_of_any_length_anywhere(simt, capability, precision, rule, k, C, offset):
    simt.compute_capability(capability)
    size = {"B": 5, "k": k, "H": UNITS[capability], "C": C}
    arrays = cases.shallow(size, "float32")
    dy, z, U, W = (operand(x, precision) for x in (arrays.dy, arrays.z, arrays.U, arrays.W))
    problem = shallow(z, U, arrays.b, W, precision, "relu", Mask(), size)
    plan = simt.plan("pymimic_shallow_backward_units_plan", problem, 1, 1)
    assert plan.kernel.decode() == f"backward_units_sm{capability}{'a' * (capability == 90)}"

    def gradients(offset):
        stored = [Shifted(np.full(x.shape, np.nan), offset) for x in (arrays.U, arrays.b, arrays.W)]
        simt.call("pymimic_shallow_backward_units", problem, dy, dy.shape[1], *(x.array for x in stored), None)
        assert all(x.intact for x in stored)
        return [x.array for x in stored]

    for one, other in zip(gradients(0), gradients(1)):
        np.testing.assert_array_equal(one, other)
    parameters = [Parameter(x, precision, rule) for x in (arrays.U, arrays.b, arrays.W)]
    expected = [parameter.stepped(simt, gradient) for parameter, gradient in zip(parameters, gradients(0))]
    moved = [[Shifted(x, offset) for x in (parameter.value, *parameter.slots)] for parameter in parameters]
    for parameter, places in zip(parameters, moved):
        parameter.value, *parameter.slots = (place.array for place in places)
    simt.call("pymimic_shallow_backward_step", problem, dy, dy.shape[1], *(parameter.struct() for parameter in parameters), None)
    assert all(place.intact for places in moved for place in places)
    assert all(parameter.same(other) for parameter, other in zip(parameters, expected))
