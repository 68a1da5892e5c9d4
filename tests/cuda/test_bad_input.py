"""Bad input on a device: an exception that names the argument, what was expected and what came; nothing is written out of place."""

import ctypes
import sys
from types import SimpleNamespace

import cases
import numpy as np
import pytest
from on_device import moved

from pymimic import SGD, BackendUnavailableError, CudaError, ShallowWeights, Student, Trainer, backends, ops
from pymimic.plan import plan

SIZE = {"B": 5, "k": 16, "H": 40, "C": 16}  # needs no packing
FORWARD = ("z", "U", "b", "W", "c")


@pytest.fixture
def arrays(device):
    return dict(zip(("dy", *FORWARD), moved(device.xp, cases.shallow(SIZE, "float32"))))


def forward(arrays, **changes):
    given = {**arrays, **changes}
    return ops.shallow_forward(*(given[name] for name in FORWARD), **{name: v for name, v in changes.items() if name not in FORWARD})


@pytest.mark.parametrize("name", FORWARD)
def test_arrays_in_two_places(arrays, name):
    with pytest.raises(ValueError, match=r"\w+: expected an array on .+, as \w+ is, got one on .+"):
        forward(arrays, **{name: arrays[name].get()})


def test_a_backend_for_the_other_kind_of_array(arrays):
    host = {name: array.get() for name, array in arrays.items()}
    with pytest.raises(TypeError, match=r"backend: expected CuPy arrays with 'cuda-bf16', got NumPy arrays"):
        forward(host, backend="cuda-bf16")
    with pytest.raises(TypeError, match=r"backend: expected NumPy arrays with 'reference', got arrays on a device"):
        forward(arrays, backend="reference")
    with pytest.raises(ValueError, match=r"backend: expected one of cpu, .+, got 'cuda-fp8'"):
        forward(arrays, backend="cuda-fp8")


def test_what_the_kernels_cannot_do(device, arrays):
    wide = {
        name: device.xp.zeros(shape, np.float32)
        for name, shape in {"z": (2, 2049), "U": (3, 2049), "b": (3,), "W": (3, 4), "c": (4,)}.items()
    }
    with pytest.raises(ValueError, match=r"k: expected at most 2048 with backend 'cuda', got 2049"):
        forward(wide)
    wide |= {
        "z": wide["z"][:, :5],
        "U": wide["U"][:, :5],
        "W": device.xp.zeros((3, 1025), np.float32),
        "c": device.xp.zeros(1025, np.float32),
    }
    with pytest.raises(ValueError, match=r"C: expected at most 1024 with backend 'cuda', got 1025"):
        forward(wide)
    with pytest.raises(ValueError, match=r"save: expected False with backend 'cuda'"):
        forward(arrays, save=True)
    with pytest.raises(ValueError, match=r"plan: expected one for .+, got"):
        forward(arrays, plan=plan(6, 16, 16, 40, 16))
    with pytest.raises(ValueError, match=r"backend: expected 'cuda', 'cuda-tf32' or 'cuda-bf16' for gradients, got 'cuda-fp16'"):
        ops.shallow_backward(*(arrays[name] for name in ("dy", "z", "U", "b", "W")), backend="cuda-fp16")
    with pytest.raises(TypeError, match=r"z: expected dtype float32 or bfloat16 on a device, got float64"):
        forward({name: array.astype(np.float64) for name, array in arrays.items()})


def test_seeds_on_a_device(device, arrays):
    assert forward(arrays, dropout=0.5, seed=device.xp.asarray(np.array(3)), offset=2).shape == (5, 16)
    with pytest.raises(ValueError, match=r"seed: expected an int or a 0-d int64 array, got shape \(1,\) of int64"):
        forward(arrays, dropout=0.5, seed=device.xp.asarray(np.array([3])))
    host = {name: array.get() for name, array in arrays.items()}
    with pytest.raises(TypeError, match=r"seed: expected an int, got"):
        forward(host, dropout=0.5, seed=device.xp.asarray(np.array(3)))


def test_out_is_checked(device, arrays):
    for out, kind, said in (
        (np.empty((5, 16), np.float32), ValueError, "out: expected an array on device 0"),
        (arrays["z"], ValueError, "out: expected memory of its own"),
        (device.xp.empty((16, 5), np.float32), ValueError, "out: expected shape"),
        (device.xp.empty((5, 32), np.float32)[:, ::2], ValueError, "out: expected a C-contiguous array"),
    ):
        with pytest.raises(kind, match=said):
            forward(arrays, out=out)


def test_labels_beyond_the_outputs(device, arrays):
    with pytest.raises(ValueError, match=r"labels: expected values in \[0, 16\), got \[0, 16\]"):
        ops.cross_entropy(arrays["z"], device.xp.asarray(np.array([0, 1, 2, 3, 16])))


def test_the_binding_refuses_what_it_would_misread(device):
    xp, core = device.xp, device.core
    x, out, mask = xp.zeros((4, 32), np.float32), xp.zeros((4, 32), np.float32), (128, 0, 0, 0, 0)
    for bad, kind, said in (
        (np.zeros((4, 32), np.float32), TypeError, "x: expected an array with __cuda_array_interface__, got"),
        (x[:, ::2], ValueError, r"x: expected a C-contiguous array, got shape \(4, 16\) with strides \(128, 8\)"),
        (x.astype(np.float64), TypeError, "x: expected elements <f4, got <f8"),
        (xp.zeros(5, np.float32), ValueError, "x: expected at least two axes, got 1"),
        (xp.zeros((4, 16), np.float32), ValueError, r"out: expected shape \(4, 16\), got \(4, 32\)"),
    ):
        with pytest.raises(kind, match=said):
            core.dropout(bad, out, mask, 0)
    raw = xp.zeros(4 * 32 * 4 + 1, np.uint8)
    with pytest.raises(ValueError, match="x: expected memory aligned to its 4-byte elements"):
        core.dropout(_Odd(raw), out, mask, 0)
    for wrong in ((0, 0, 0, 0, 0), (257, 0, 0, 0, 0), (128, 0, 0, 8, 0), (128, 0, 0, 0, 16)):
        with pytest.raises(ValueError, match="mask: expected keep"):
            core.dropout(x, out, wrong, 0)
    how = (3, 0, 0, 16, 16, (256, 0, 0, 0, 0))
    z, U, W, b, c, y = (xp.zeros(shape, np.float32) for shape in ((5, 16), (40, 16), (40, 16), (40,), (16,), (5, 16)))
    for changed, said in (
        ({0: xp.zeros((5, 24), np.float32)}, "z: expected rows of at least 16 elements, a multiple of 16, got 24"),
        ({0: xp.zeros((5, 16), np.uint16)}, "z: expected elements of 4 bytes, got <u2"),
        ({0: xp.zeros(5 * 16 + 1, np.float32)[1:].reshape(5, 16)}, "z: expected memory aligned to 16 bytes"),
        ({3: xp.zeros((41, 16), np.float32)}, "W: expected as many rows as U has"),
        ({2: xp.zeros(41, np.float32)}, r"b: expected shape \(40,\), got \(41,\)"),
        ({5: xp.zeros((5, 17), np.float32)}, r"y: expected shape \(5, 16\), got \(5, 17\)"),
    ):
        given = [changed.get(place, array) for place, array in enumerate((z, U, b, W, c, y))]
        with pytest.raises(ValueError, match=said):
            core.shallow_forward(how, *given, None, 0)
    if core.shallow_forward_plan(3, 5, 16, 4096, 16, 4).workspace:
        big = [z, xp.zeros((4096, 16), np.float32), xp.zeros(4096, np.float32), xp.zeros((4096, 16), np.float32), c, y]
        with pytest.raises(ValueError, match=r"workspace: expected at least \d+ bytes, got 0"):
            core.shallow_forward((3, 0, 4, 16, 16, (256, 0, 0, 0, 0)), *big, None, 0)
    with pytest.raises(ValueError, match="precision: unknown code"):
        core.shallow_forward((4, *how[1:]), z, U, b, W, c, y, None, 0)
    with pytest.raises(ValueError, match="activation: unknown code"):
        core.shallow_forward((3, 9, *how[2:]), z, U, b, W, c, y, None, 0)


class _Odd:
    """An array one byte off its alignment."""

    def __init__(self, raw):
        self.raw = raw

    @property
    def __cuda_array_interface__(self):
        address = self.raw.__cuda_array_interface__["data"][0] + 1
        return {"shape": (4, 32), "typestr": "<f4", "data": (address, False), "version": 3}


def test_memory_of_another_device_or_of_the_host(device):
    if not device.emulated:
        pytest.skip("needs a second device")
    x, out = (device.xp.zeros((4, 32), np.float32) for _ in range(2))
    begin = x.data.ptr
    library = ctypes.CDLL(device.core.__file__)
    for pretend, said in (
        ("pretend_elsewhere", "memory of device 0, the current one, got memory of device 1"),
        ("pretend_host", "device memory, got host memory"),
    ):
        function = getattr(library, pretend)
        function.argtypes = (ctypes.c_size_t, ctypes.c_size_t)
        function(begin, begin + x.nbytes)
        with pytest.raises(ValueError, match=f"x: expected {said}"):
            device.core.dropout(x, out, (128, 0, 0, 0, 0), 0)
        function(0, 0)
    device.core.dropout(x, out, (128, 0, 0, 0, 0), 0)


def test_a_failed_launch_is_one_exception(device):
    """Sizes beyond the limits reach the launcher by the binding alone: ops refuse them first."""
    z, U, W, b, c, y = (device.xp.zeros(shape, np.float32) for shape in ((1, 2064), (1, 2064), (1, 16), (1,), (16,), (1, 16)))
    with pytest.raises(CudaError, match=r"shallow_forward: cudaErrorInvalidValue \(.+\): a size is beyond the kernels' limits"):
        device.core.shallow_forward((3, 0, 0, 2064, 16, (256, 0, 0, 0, 0)), z, U, b, W, c, y, None, 0)


def test_handles_and_trainers(device, arrays):
    with pytest.raises(ValueError, match="dtype: expected 'float32' or 'bfloat16' on a device, got 'float64'"):
        ShallowWeights(*(arrays[name] for name in FORWARD[1:]), dtype="float64")
    handle = ShallowWeights(*(arrays[name] for name in FORWARD[1:]))
    with pytest.raises(ValueError, match="z: expected an array on device 0, as U is, got one on the CPU"):
        handle.forward(arrays["z"].get())
    with pytest.raises(ValueError, match="device: expected one of cpu, cuda, got 'tpu'"):
        Trainer(Student(3, 4, 2), SGD(0.1), epochs=1, device="tpu")


def test_without_cupy(monkeypatch):
    """As on most machines: an array that claims to be on a device, and a student that is told to move there."""
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(BackendUnavailableError, match=r"cuda: CuPy is not available"):
        ops.dropout(SimpleNamespace(__cuda_array_interface__={}), 0.5, seed=0)
    monkeypatch.setitem(sys.modules, "pymimic.backends.cuda.backend", None)
    backends._load.cache_clear()
    with pytest.raises(BackendUnavailableError, match=r"backend: 'cuda' is not available"):
        Student(3, 4, 2).to("cuda")
    backends._load.cache_clear()
