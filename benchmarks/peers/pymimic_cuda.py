"""This library on a GPU, in true float32; h is kept as a `Trainer` does. Results stay on the device while it is timed."""

import cupy
import numpy as np

import pymimic
from pymimic import AdamW, BackendUnavailableError, ShallowWeights, backends, ops

TITLE, DEVICE = "pymimic", "cuda"

try:
    backends.cuda_devices()
except BackendUnavailableError as error:
    raise ImportError(str(error)) from error


def versions():
    return f"{pymimic.__version__}, CuPy {cupy.__version__}"


def moved(a):
    return {name: cupy.asarray(array) for name, array in a.items()}


def host(results):
    if isinstance(results, dict):
        return {name: cupy.asnumpy(array) for name, array in results.items()}
    return cupy.asnumpy(results)


def peak_bytes():
    """What CuPy's pool has taken from the device: it gives nothing back meanwhile."""
    return cupy.get_default_memory_pool().total_bytes()


class Net:
    """The layers, and what a step needs of them."""

    def __init__(self, a, dtype, backend):
        self.a = moved({name: a[name] for name in "xtV" if name in a})
        self.backend = backend
        self.wide = ShallowWeights(*(cupy.asarray(a[name]) for name in "UbWc"), dtype, backend=backend)
        self.no_bias = cupy.zeros(len(self.a["V"]), np.float32) if "V" in a else None
        self.saved = None

    def bottleneck(self):
        if self.no_bias is None:
            return self.a["x"]
        return ops.linear_dropout(self.a["x"], self.a["V"], self.no_bias, activation="identity", backend=self.backend)

    def forward(self, z):
        """y, and h where it is kept."""
        result = self.wide.forward(z, save=self.wide.keeps(len(z)) and (self.saved or True))
        y, self.saved = result if isinstance(result, tuple) else (result, None)
        return y

    def dV(self, dz, z):
        how = {"activation": "identity", "needs": "weight", "backend": self.backend}
        return ops.linear_dropout_backward(dz, self.a["x"], self.a["V"], z, **how).weight


def forward(a, dtype="float32", backend="cuda"):
    net = Net(a, dtype, backend)

    def run():
        y = net.wide.forward(net.bottleneck())
        return lambda: host(y)

    return run


def step(a, dtype="float32", backend="cuda"):
    net = Net(a, dtype, backend)
    needs = ("U", "b", "W", "c") if net.no_bias is None else ("z", "U", "b", "W", "c")

    def run():
        z = net.bottleneck()
        _, dy = ops.mimic_loss(net.forward(z), net.a["t"], backend=backend)
        grads = net.wide.backward(dy, z, saved=net.saved, needs=needs)._asdict()
        dz = grads.pop("z")
        if dz is not None:
            grads["V"] = net.dV(dz, z)
        return lambda: host(grads)

    return run


def adamw(a, learning_rate, weight_decay, dtype="float32", backend="cuda", graph=False):
    net, optimizer = Net(a, dtype, backend), AdamW(learning_rate, weight_decay=weight_decay)

    def run():
        z = net.bottleneck()
        _, dy = ops.mimic_loss(net.forward(z), net.a["t"], backend=backend)
        dz = net.wide.step(dy, z, optimizer, saved=net.saved, need_dz=net.no_bias is not None)
        if dz is not None:
            optimizer.update("V", net.a["V"], net.dV(dz, z), backend)
        return lambda: host(net.wide.arrays(copy=False) | {name: net.a[name] for name in ("V",) if name in net.a})

    return captured(run, net, optimizer) if graph else run


def captured(run, net, optimizer):
    """The same as a CUDA graph, from the weights that there are: what the first step changes is put back."""
    trained = [*net.wide.arrays(copy=False).values(), *(net.a[name] for name in ("V",) if name in net.a)]
    before, workspace, stream = [array.copy() for array in trained], pymimic.Workspace(), cupy.cuda.Stream(non_blocking=True)
    cupy.cuda.runtime.deviceSynchronize()
    with stream:
        with workspace:
            run()
        stream.begin_capture()
        with workspace:
            result = run()
        graph = stream.end_capture()
        for array, old in zip(trained, before):
            array[...] = old
        for slot in (slot for slots in optimizer.slots.values() for slot in slots):
            slot.fill(0)
        optimizer.steps = 0
        net.wide.changed()
        net.wide.forward(net.bottleneck())  # packs the weights that the graph reads
        stream.synchronize()

    def replay():
        optimizer.advance()
        graph.launch()
        return result

    replay.keeps = workspace  # whose memory the graph uses
    return replay
