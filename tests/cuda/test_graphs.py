"""Training steps captured into a CUDA graph: each replay is the step that the optimizer has begun."""

import cases
import numpy as np
import pytest
from on_device import moved

from pymimic import SGD, AdamW, ShallowWeights, Workspace, cosine, ops

OPTIMIZERS = {
    "sgd": lambda: SGD(cosine(1e-3, 6), weight_decay=0.1),
    "nesterov": lambda: SGD(cosine(1e-4, 6), momentum=0.9, nesterov=True),
    "adamw": lambda: AdamW(cosine(0.01, 6), weight_decay=0.1),
}
SIZES = {
    "in place": {"B": 5, "k": 12, "H": 4200, "C": 9},  # so many units that a block of the kernel makes all of k and C
    "two buffers": {"B": 21, "k": 20, "H": 70, "C": 9},
    "slabs": {"B": 5, "k": 20, "H": 600, "C": 520},  # by cuBLAS's products; h kept in float32, made again in bfloat16
    "slabs of long k": {"B": 5, "k": 520, "H": 300, "C": 9},  # where bfloat16 keeps it too
    "no rows": {"B": 0, "k": 12, "H": 70, "C": 9},
}


class Net:
    """A handle with a bottleneck before it, and one training step of both."""

    def __init__(self, xp, size, optimizer, dtype):
        rng = np.random.default_rng(0)
        arrays = cases.Shallow(*moved(xp, cases.shallow(size, "float32")))
        self.x = xp.asarray(rng.standard_normal((size["B"], 7)).astype(np.float32))
        self.t = xp.asarray(rng.standard_normal((size["B"], size["C"])).astype(np.float32))
        self.V, self.none = xp.asarray(rng.standard_normal((size["k"], 7)).astype(np.float32)), xp.zeros(size["k"], np.float32)
        self.handle = ShallowWeights(arrays.U, arrays.b, arrays.W, arrays.c, dtype, activation="tanh")
        self.optimizer, self.offset, self.saved = optimizer(), xp.asarray(np.array(0)), None

    def step(self):
        how = {"dropout": 0.25, "seed": 3, "offset": self.offset}
        z = ops.linear_dropout(self.x, self.V, self.none, activation="identity")
        result = self.handle.forward(z, **how, save=self.handle.keeps(len(z)) and (self.saved or True))
        y, self.saved = result if isinstance(result, tuple) else (result, None)
        _, dy = ops.mimic_loss(y, self.t)
        dz = self.handle.step(dy, z, self.optimizer, **how, saved=self.saved)
        dV = ops.linear_dropout_backward(dz, self.x, self.V, z, activation="identity", needs="weight").weight
        self.optimizer.update("V", self.V, dV)

    def state(self):
        return {**{name: a.get() for name, a in self.handle.arrays().items()}, "V": self.V.get(), **self.optimizer.state()}


def same(ours, theirs):
    assert ours.keys() == theirs.keys()
    return all(np.array_equal(array, theirs[name]) for name, array in ours.items())


@pytest.mark.parametrize("dtype", ["float32", pytest.param("bfloat16", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    ("optimizer", "name"), [*(("adamw", name) for name in SIZES), *((optimizer, "two buffers") for optimizer in ("sgd", "nesterov"))]
)
def test_replays_are_the_steps_that_would_have_been_taken(device, optimizer, name, dtype):
    xp, size = device.xp, SIZES[name]
    captured, plain = (Net(xp, size, OPTIMIZERS[optimizer], dtype) for _ in range(2))
    if name in ("in place", "two buffers"):
        assert device.core.shallow_backward_units_plan(3 if dtype == "float32" else 0, *size.values(), True, True).in_place == (
            name == "in place"
        )
    workspace, stream = Workspace(), xp.cuda.Stream(non_blocking=True)
    xp.cuda.get_current_stream().synchronize()
    with stream:
        with workspace:
            captured.step()
        plain.step()
        before = captured.state()
        assert same(before, plain.state())
        stream.begin_capture()
        with workspace:
            captured.step()
        graph = stream.end_capture()
        assert same(captured.state(), before)  # nothing has been done
        assert captured.optimizer.steps == 1

        def replay():
            captured.optimizer.advance()
            graph.launch()

        def eager():  # between replays, which must find what it leaves
            captured.step()

        for number, run in enumerate((replay, replay, eager, replay, eager, eager, replay), 1):
            captured.offset[...] = plain.offset[...] = np.int64(number)
            run()
            plain.step()
            stream.synchronize()
            assert same(captured.state(), plain.state()), (number, run.__name__)


def test_a_forward_pass_that_was_captured_sees_the_steps_that_follow(device):
    xp, size = device.xp, SIZES["two buffers"]
    arrays = cases.Shallow(*moved(xp, cases.shallow(size, "float32")))
    handle, optimizer = ShallowWeights(*arrays[2:], "bfloat16"), SGD(0.1)
    workspace, stream = Workspace(), xp.cuda.Stream(non_blocking=True)
    xp.cuda.get_current_stream().synchronize()
    with stream:
        with workspace:
            handle.forward(arrays.z)
        stream.begin_capture()
        with workspace:
            y = handle.forward(arrays.z)
        graph = stream.end_capture()
        for _ in range(3):
            handle.step(arrays.dy, arrays.z, optimizer)
            graph.launch()
            stream.synchronize()
            assert np.array_equal(y.get(), handle.forward(arrays.z).get())


@pytest.mark.parametrize("call", ["forward", "step"])
def test_what_is_packed_while_capturing_is_packed_again(device, call):
    """After `changed()` the first pass packs: captured, it has not, and the next one must not think so."""
    xp, (dy, z, *weights) = device.xp, moved(device.xp, cases.shallow(SIZES["two buffers"], "float32"))
    handle, optimizer = ShallowWeights(*weights, "bfloat16"), SGD(0.1)
    workspace, stream = Workspace(), xp.cuda.Stream(non_blocking=True)
    calls = {"forward": lambda: handle.forward(z), "step": lambda: handle.step(dy, z, optimizer)}
    xp.cuda.get_current_stream().synchronize()
    with stream:
        with workspace:
            calls[call]()
        handle.arrays(copy=False)["U"][...] = 0
        handle.changed()
        stream.begin_capture()
        with workspace:
            calls[call]()
        stream.end_capture()
        changed = ShallowWeights(*handle.arrays().values(), "bfloat16").forward(z).get()
        assert np.array_equal(handle.forward(z).get(), changed)


def test_a_step_has_to_be_taken_before_one_is_captured(device):
    xp, arrays = device.xp, moved(device.xp, cases.shallow(SIZES["in place"], "float32"))
    handle, optimizer, stream = ShallowWeights(*arrays[2:]), AdamW(0.1), xp.cuda.Stream(non_blocking=True)
    xp.cuda.get_current_stream().synchronize()
    with stream:
        stream.begin_capture()
        with pytest.raises(ValueError, match=r"^optimizer: expected a step before the one that is captured into a CUDA graph, as U has"):
            handle.step(arrays[0], arrays[1], optimizer)
        stream.end_capture()
        assert optimizer.steps == 0
        assert optimizer.slots == {}
        handle.step(arrays[0], arrays[1], optimizer)
        stream.begin_capture()
        with pytest.raises(ValueError, match=r"^workspace: expected a pymimic.Workspace around calls that are captured"):
            handle.step(arrays[0], arrays[1], optimizer)
        stream.end_capture()
        assert optimizer.steps == 1


def test_the_binding_refuses_numbers_that_are_none(device):
    param, update = device.xp.zeros((4, 16), np.float32), SGD(0.1).rule(np.zeros((4, 16)))[:-1]
    for numbers in (device.xp.zeros(39, np.uint8), device.xp.zeros(11, np.float32), device.xp.zeros(41, np.uint8)[1:]):
        with pytest.raises(ValueError, match="param: expected 40 aligned bytes for a step's numbers, got others"):
            device.core.optimizer_update((param, (), None, update, numbers), 3, param, 0)
