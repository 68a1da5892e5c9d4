"""Peak memory: h (B x H) is never written, gradients are not stored by a step. Measured in fresh processes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

MIB = 2**20
TIMIT = {"B": 1024, "k": 250, "H": 32_768, "C": 183}  # h alone is 128 MiB
LARGE = {**TIMIT, "H": 100_000}  # 390 MiB
SMALLER = {"B": 256, "k": 32, "H": 100_000, "C": 10}  # 98 MiB: for the backend that is slower
STEP = {"B": 96, "k": 64, "H": 300_000, "C": 10}  # h is 110 MiB, the gradients are 86 MiB

# Prints the bytes that a call adds to the peak, beyond the arrays that it returns. Inputs are made without temporaries.
SCRIPT = """
import json, sys
import numpy as np
from pymimic import SGD, ShallowWeights, ops

backend, what, size = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
B, k, H, C = (size[axis] for axis in "BkHC")
rng = np.random.default_rng(0)


def made(*shape):
    array = rng.random(shape, "float32")
    array -= 0.5
    return array


def arrays(B, k, H, C):
    return made(B, C), made(B, k), made(H, k), made(H), made(H, C), made(C)


def call(dy, z, U, b, W, c):
    if what == "forward":
        return [ops.shallow_forward(z, U, b, W, c, dropout=0.5, backend=backend)]
    if what == "forward with save":
        return [ops.shallow_forward(z, U, b, W, c, save=True, backend=backend)]
    if what == "backward":
        return list(ops.shallow_backward(dy, z, U, b, W, dropout=0.5, backend=backend))
    return [weights.step(dy, z, optimizer, dropout=0.5)]


def status(key):
    with open("/proc/self/status") as lines:
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))


optimizer = SGD(0.1, momentum=0.9)
if what == "step":
    weights = ShallowWeights(*arrays(40, 3, 70, 2)[2:], backend=backend)
call(*arrays(40, 3, 70, 2))  # loads libraries, starts threads
inputs = arrays(B, k, H, C)
if what == "step":
    weights, optimizer = ShallowWeights(*inputs[2:], backend=backend), SGD(0.1, momentum=0.9)
    for name, array in weights.arrays(copy=False).items():
        optimizer.slots_for(name, array)[0].fill(0)
try:
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # resets the peak
except OSError:
    pass  # then what imports took counts too, if it was more
before = status("VmRSS")
results = call(*inputs)
print(status("VmHWM") - before - sum(result.nbytes for result in results if hasattr(result, "dtype")))
"""


def added(backend, what, size):
    """Bytes beyond inputs, outputs and gradients."""
    if not Path("/proc/self/status").exists():
        pytest.skip("this system has no /proc/self/status to read peak memory from")
    run = [sys.executable, "-c", SCRIPT, backend, what, json.dumps(size)]
    done = subprocess.run(run, env=os.environ, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("what", ["forward", "backward"])
def test_h_is_never_written(fresh_backend, what):
    assert added(fresh_backend, what, TIMIT if fresh_backend == "cpu" else SMALLER) < 64 * MIB


@pytest.mark.parametrize("backend", ["cpu", "cpu-bf16x3"])
def test_the_workspace_is_small_at_any_H(backend, monkeypatch):
    monkeypatch.setenv("PYMIMIC_NUM_THREADS", "2")
    assert added(backend, "backward", {"B": 1024, "k": 256, "H": 20_000, "C": 192}) < 16 * MIB


@pytest.mark.parametrize("backend", ["cpu", "cpu-bf16x3"])
@pytest.mark.parametrize(("B", "k", "C"), [(1024, 1845, 183), (512, 3072, 10), (1024, 700, 500), (256, 1200, 183), (64, 4096, 10)])
def test_the_workspace_beyond_that(backend, B, k, C, monkeypatch):
    monkeypatch.setenv("PYMIMIC_NUM_THREADS", "2")
    assert added(backend, "backward", {"B": B, "k": k, "H": 3000, "C": C}) < 4 * B * (k + C) * 4 + 2 * 4 * MIB


def test_gradients_of_a_step_are_not_stored(fresh_backend):
    assert added(fresh_backend, "step", STEP) < 64 * MIB


def test_the_measure_sees_what_is_written(fresh_backend):
    """The control: h itself, when it is asked for."""
    h = 4 * SMALLER["B"] * SMALLER["H"]
    assert h - MIB < added(fresh_backend, "forward with save", SMALLER) < h + 64 * MIB


@pytest.mark.slow
@pytest.mark.parametrize("what", ["forward", "backward"])
def test_h_is_never_written_however_large(fresh_backend, what):
    assert added(fresh_backend, what, LARGE) < 64 * MIB
