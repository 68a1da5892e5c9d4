"""The kernels on torch's threads: no second pool, the same bits, torch's limit, forked children."""

import os
import subprocess
import sys

import pytest

pytest.importorskip("torch")

PRELUDE = """
import os, sys
import numpy as np
import pymimic
if "torch" in sys.argv:
    import torch
    import pymimic.torch

rng = np.random.default_rng(0)
shapes = ((600, 32), (4000, 32), (4000,), (4000, 10), (10,))
z, U, b, W, c = (rng.standard_normal(shape, np.float32) for shape in shapes)
pymimic.set_num_threads(2)

def bits():
    y = pymimic.ops.shallow_forward(z, U, b, W, c)
    return hash((y.tobytes(), pymimic.ops.shallow_backward(y, z, U, b, W).U.tobytes()))

def threads():
    return len(os.listdir("/proc/self/task"))
"""


def printed(code, *arguments):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code, *arguments], capture_output=True, text=True, timeout=120,
        env=os.environ | {"PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "2"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the loaded library in /proc")
def test_one_pool_serves_both():
    code = """
torch.set_num_threads(2)
(torch.ones(300, 300) @ torch.ones(300, 300)).exp()  # torch's threads have begun
before = threads()
bits()
print(before, threads())
"""
    before, after = printed(code, "torch")
    assert before == after
    alone = printed("before = threads()\nbits()\nprint(threads() - before)")
    assert alone == ["1"]  # without torch there is a pool of our own


def test_bits_are_those_of_the_own_pool():
    assert printed("print(bits())", "torch") == printed("print(bits())")


@pytest.mark.skipif(sys.platform != "linux", reason="looks for the loaded library in /proc")
def test_no_more_threads_than_torch_may_use():
    code = """
torch.set_num_threads(1)
before = threads()
bits()
print(threads() - before)
"""
    assert printed(code, "torch") == ["0"]


def test_a_forked_child_computes():
    code = """
here = bits()
child = os.fork()
if not child:
    os._exit(0 if bits() == here else 1)
print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    assert printed(code, "torch") == ["0"]


def test_a_path_of_no_loaded_library_is_refused():
    pymimic = pytest.importorskip("pymimic")
    for path in ("/nowhere/libgomp.so", ""):
        with pytest.raises(ValueError, match="path: expected a library"):
            pymimic._core.run_on_openmp(path)
