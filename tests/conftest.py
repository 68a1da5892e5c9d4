"""Fixtures of the whole suite: the backends that are installed, and how hypothesis looks for examples."""

import gc
import importlib.util
import os
import signal

# before NumPy and Numba are imported: the reference must not fight for cores, and the tests ask for up to five threads on any machine
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("NUMBA_NUM_THREADS", "5")
os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # Numba's and torch's threads: five that spin take two cores from all others

import pytest
from hypothesis import HealthCheck, settings
from instruction_sets import INSTRUCTION_SETS, use_backend

import pymimic

# a shell that starts the tests in the background has them, and what they start, ignore ctrl-C
signal.signal(signal.SIGINT, signal.default_int_handler)
# a forked child collects nothing of its parent's: an onnxruntime session there waits forever for threads that did not come along
os.register_at_fork(after_in_child=gc.freeze)

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
_COMMON = {"deadline": None, "suppress_health_check": _QUIET}
settings.register_profile("default", max_examples=30, derandomize=True, **_COMMON)
settings.register_profile("thorough", max_examples=2000, print_blob=True, **_COMMON)  # pytest --hypothesis-profile=thorough
settings.load_profile("default")


@pytest.fixture(params=["reference", *INSTRUCTION_SETS, "numba"])
def backend(request):
    """The name of each backend in turn; the compiled one with each of its instruction sets."""
    with use_backend(request.param) as name:
        yield name


@pytest.fixture(params=[*INSTRUCTION_SETS, "numba"])
def fast_backend(request):
    """The backends that promise more than the definition does: row-invariant bits, bounded memory."""
    with use_backend(request.param) as name:
        yield name


@pytest.fixture(params=["cpu", "numba"])
def fresh_backend(request):
    """The same by name alone, for tests that start processes of their own."""
    with use_backend(request.param) as name:
        yield name


@pytest.fixture
def threads():
    """set_num_threads, undone after the test."""
    before = pymimic.get_num_threads()
    yield pymimic.set_num_threads
    pymimic.set_num_threads(before)


@pytest.fixture(params=["float32", "float64"])
def dtype(request):
    return request.param


@pytest.fixture(params=["relu", "identity", "tanh", "sigmoid", "gelu"])
def activation(request):
    return request.param


@pytest.fixture
def files(tmp_path):
    """A folder with x.npy and t.npy, for the command line."""
    pytest.importorskip("typer")
    from command_line import write_inputs_and_logits

    write_inputs_and_logits(tmp_path)
    return tmp_path


@pytest.fixture
def torch():
    """torch, where it is installed: not imported with the suite, as that takes seconds."""
    if importlib.util.find_spec("torch") is None:
        pytest.skip("torch is not installed")
    import torch

    return torch
