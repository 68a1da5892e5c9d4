"""What a training step costs the host: how often it asks arrays where they are, and how many tensor maps it makes."""

import ctypes
import gc
import weakref

import cases
import emulator
import numpy as np
import pytest
from on_device import moved

from pymimic import AdamW, ShallowWeights, Workspace, ops

SIZE = {"B": 5, "k": 12, "H": 4200, "C": 9}  # so many units that a step is in place, and all kernels are those of sm_90a


@pytest.fixture
def interfaces(device, monkeypatch):
    """How often arrays were asked for their interface, so far."""
    if not device.emulated:
        pytest.skip("CuPy's arrays don't count")
    asked = []
    real = device.xp.ndarray.__cuda_array_interface__
    monkeypatch.setattr(device.xp.ndarray, "__cuda_array_interface__", property(lambda self: asked.append(1) or real.fget(self)))
    return asked


@pytest.fixture
def hopper(device):
    """The kernels' library, with those of sm_90a, which don't run."""
    library = ctypes.CDLL(str(emulator.build()))
    library.simt_compute_capability(90)
    library.simt_run(0)
    yield library
    library.simt_compute_capability(80)
    library.simt_run(1)


def step_of_a_net(xp):
    """A step of AdamW of a net with a bottleneck before a wide layer, which multiplies in bfloat16."""
    arrays, rng = cases.Shallow(*moved(xp, cases.shallow(SIZE, "float32"))), np.random.default_rng(0)
    x, t, V = (xp.asarray(rng.standard_normal(size).astype(np.float32)) for size in ((5, 7), (5, 9), (12, 7)))
    none, how = xp.zeros(12, np.float32), {"activation": "identity", "backend": "cuda-tf32"}
    handle = ShallowWeights(arrays.U, arrays.b, arrays.W, arrays.c, "bfloat16", backend="cuda-tf32")
    optimizer = AdamW(1e-3, weight_decay=0.01)

    def step():
        z = ops.linear_dropout(x, V, none, **how)
        _, dy = ops.mimic_loss(handle.forward(z), t, backend="cuda-tf32")
        dz = handle.step(dy, z, optimizer)
        optimizer.update("V", V, ops.linear_dropout_backward(dz, x, V, z, needs="weight", **how).weight)

    return step


def test_a_step_asks_only_new_arrays_where_they_are(device, interfaces):
    """Weights and slots are asked once; z, dy, y, dz, their packed copies, scratch and the bottleneck's arrays each time."""
    step = step_of_a_net(device.xp)
    step()
    interfaces.clear()
    step()
    assert len(interfaces) == 26


def test_a_step_makes_no_tensor_map_twice(device, hopper):
    """Of z, U and W in the forward pass; of z, dy, U and W in the rows kernel; of z and dy in the unit kernel."""
    step, workspace = step_of_a_net(device.xp), Workspace()
    made = []
    for _ in range(3):
        hopper.simt_tensor_maps()
        with workspace:  # the same memory each time
            step()
        made.append(hopper.simt_tensor_maps())
    assert made == [9, 0, 0]


def test_slots_that_others_replace_are_asked_anew(device):
    """And the old ones are given back."""
    arrays = cases.Shallow(*moved(device.xp, cases.shallow(SIZE, "float32")))
    handle, other = (ShallowWeights(arrays.U, arrays.b, arrays.W, arrays.c) for _ in range(2))
    optimizer, plain = AdamW(0.1), AdamW(0.1)
    for each, its in ((handle, optimizer), (other, plain)):
        each.step(arrays.dy, arrays.z, its)
    old = weakref.ref(optimizer.slots["U"][0])
    optimizer.load_state(optimizer.state())
    gc.collect()
    assert old() is None
    for each, its in ((handle, optimizer), (other, plain)):
        each.step(arrays.dy, arrays.z, its)
    for name, array in handle.arrays().items():
        np.testing.assert_array_equal(array.get(), other.arrays()[name].get())


def test_a_checked_array_is_demanded_where_and_what_it_is(device):
    """As the array itself: on the current device, of the right type and shape."""
    array = device.xp.zeros((5, 16), np.float32)
    checked = device.core.CheckedArray(array, True)
    with pytest.raises(ValueError, match=r"^out: expected shape \(4, 16\), got \(5, 16\)$"):
        device.core.dropout(array[:4], checked, (128, 0, 0, 0, 0), 0)
    with pytest.raises(TypeError, match=r"^array: expected an array with __cuda_array_interface__, got <class 'list'>$"):
        device.core.CheckedArray([], True)
