"""`Predictor` of a student on a device: the whole net in one call, with weights in each of their types."""

import copy

import numpy as np
import pytest
from on_device import close

from pymimic import Predictor, Student, Workspace, backends
from pymimic.errors import BackendUnavailableError

NETS = {
    "bottleneck": {"inputs": 37, "hidden": 300, "outputs": 11, "rank": 20, "activation": "gelu"},
    "aligned": {"inputs": 48, "hidden": 64, "outputs": 16, "rank": 32},
    "dense": {"inputs": 21, "hidden": 130, "outputs": 3, "activation": "tanh"},
}
DTYPES = {"float32": "cuda", "bfloat16": "cuda-bf16", "int8": "cuda-bf16"}  # and whose bound they keep against the exact net


def net(configuration, standardised=True):
    student, rng = Student(**configuration, seed=1), np.random.default_rng(2)
    student.set_arrays(b=rng.standard_normal(student.hidden), c=rng.standard_normal(student.outputs))
    if standardised:
        student.set_standardisation(rng.standard_normal(student.inputs), rng.random(student.inputs) + 0.5)
    return student


def inputs(student, rows):
    return np.random.default_rng(3).standard_normal((rows, student.inputs), dtype=np.float32)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", NETS)
@pytest.mark.parametrize("standardised", [False, True])
def test_it_is_the_students_net(device, name, dtype, standardised):
    student = net(NETS[name], standardised)
    x = inputs(student, 19)
    expected, smaller = student.predict(x), Predictor(student, dtype).predict(x)
    few = Predictor(student.to("cuda"), dtype)
    y = few.predict(device.xp.asarray(x))
    assert isinstance(y, device.xp.ndarray)
    close(y, expected, DTYPES[dtype])
    np.testing.assert_allclose(y.get(), smaller, rtol=0, atol=2e-4 * np.abs(smaller).max())  # the same rounded weights
    for rows in (slice(0, 1), slice(5, 13), slice(18, 19), slice(0, 0)):
        assert np.array_equal(few.predict(device.xp.asarray(x[rows])).get(), y.get()[rows])


@pytest.mark.parametrize("dtype", DTYPES)
def test_any_kind_of_array_gets_its_own_kind(device, dtype):
    student = net(NETS["bottleneck"]).to("cuda")
    few, x = Predictor(student, dtype), inputs(student, 3)
    expected = few.predict(device.xp.asarray(x)).get()
    on_host = few.predict(x)
    assert type(on_host) is np.ndarray
    assert np.array_equal(on_host, expected)
    wide = device.xp.asarray(np.repeat(x, 2, axis=1).astype(np.float64))[:, ::2]
    assert np.array_equal(few.predict(wide).get(), expected)


def test_weights_are_held_in_their_type(device):
    student = net(NETS["aligned"], standardised=False).to("cuda")
    small = student.nbytes - sum(student.weights()[name].nbytes for name in "VUW")
    sizes = {dtype: Predictor(student, dtype).nbytes - small for dtype in DTYPES}
    scales = 4 * (student.rank + 2 * student.hidden)
    assert sizes == {"float32": student.nbytes - small, "bfloat16": (student.nbytes - small) // 2, "int8": sizes["float32"] // 4 + scales}


def test_later_changes_are_not_seen(device):
    student = net(NETS["aligned"]).to("cuda")
    x = device.xp.asarray(inputs(student, 2))
    for dtype in DTYPES:
        few = Predictor(student, dtype)
        before = few.predict(x).get()
        changed = copy.copy(student)
        changed.set_arrays(U=student.arrays()["U"] * 2)
        changed.set_standardisation(None, None)
        changed.fold(np.ones(16), np.full(16, 2.0))
        changed.to("cpu")
        assert np.array_equal(few.predict(x).get(), before)


def test_it_can_be_captured(device):
    student = net(NETS["bottleneck"]).to("cuda")
    few, x = Predictor(student, "int8"), device.xp.asarray(inputs(student, 3))
    expected, workspace, stream = few.predict(x).get(), Workspace(), device.xp.cuda.Stream(non_blocking=True)
    with workspace:
        few.predict(x)
    device.xp.cuda.get_current_stream().synchronize()
    with stream:
        stream.begin_capture()
        with pytest.raises(ValueError, match=r"workspace: expected a pymimic.Workspace around calls that are captured"):
            few.predict(x)
        with workspace:
            y = few.predict(x)
        graph = stream.end_capture()
        y[...] = 0
        graph.launch()
        stream.synchronize()
    assert np.array_equal(y.get(), expected)


def test_bad_input(device):
    student = net(NETS["bottleneck"]).to("cuda")
    few = Predictor(student)
    with pytest.raises(TypeError, match=r"^x: expected a NumPy array, got builtins.tuple"):
        few.predict(((0.0,) * 37,))
    with pytest.raises(TypeError, match=r"^x: expected dtype float32 or float64, got int64"):
        few.predict(device.xp.zeros((1, 37), np.int64))
    for x in (device.xp.zeros((1, 36), np.float32), np.zeros((1, 36), np.float32)):
        with pytest.raises(ValueError, match=r"^x: expected shape \(B, D\) = \(any, 37\), got \(1, 36\)"):
            few.predict(x)
    with pytest.raises(ValueError, match=r"^dtype: expected one of float32, bfloat16, int8, got 'int4'"):
        Predictor(student, "int4")
    with pytest.raises(ValueError, match=r"^k: expected at most 2048 with backend 'cuda', got 2049; the CPU takes any"):
        Predictor(Student(2049, 2, 2).to("cuda"))
    with pytest.raises(ValueError, match=r"^C: expected at most 1024 with backend 'cuda', got 1025; the CPU takes any"):
        Predictor(Student(3, 2, 1025).to("cuda"))


def test_without_kernels(device, monkeypatch):
    student = net(NETS["aligned"]).to("cuda")
    monkeypatch.setattr(backends, "_demand_kernels", _missing)
    backends._load.cache_clear()
    with pytest.raises(BackendUnavailableError, match="backend: 'cuda' is not available: no kernels here"):
        Predictor(student)


def _missing():
    raise BackendUnavailableError("no kernels here")


def test_the_binding_refuses_what_it_would_read_outside_of(device):
    xp = device.xp
    V, U, W, b, c, mean = (xp.zeros(shape, np.float32) for shape in ((8, 16), (40, 16), (40, 16), (40,), (11,), (5,)))
    good = ("float32", 0, 5, 8, 40, 11, (V, None), (U, None), (W, None), b, c, mean, mean)
    few = device.core.Predictor(*good)
    x, y = xp.zeros((2, 5), np.float32), xp.zeros((2, 11), np.float32)
    room = xp.zeros(few.plan(2).workspace, np.uint8)
    few.predict(x, y, room, 0)
    for place, bad, said in (
        (0, "int4", "weights: expected 'bfloat16', 'int8' or 'float32', got 'int4'"),
        (1, 9, "activation: unknown code"),
        (2, 0, "D, k, H, C: expected at least 1"),
        (6, None, "k: expected D where there is no V"),
        (6, (V[:7], None), r"V: expected \(8, ld\) aligned to 16 bytes, ld a multiple of 16 of at least 5"),
        (7, (xp.zeros((40, 8), np.float32), None), r"U: expected \(40, ld\)"),
        (8, (xp.zeros((40, 16), np.uint16), None), r"W: expected \(40, ld\) .*, in the type of the weights"),
        (8, (W, b), "W: expected scales with int8 alone"),
        (9, b[:39], r"b: expected shape \(40,\), got \(39,\)"),
        (12, None, "scale: expected None if and only if mean is None"),
    ):
        with pytest.raises(ValueError, match=said):
            device.core.Predictor(*good[:place], bad, *good[place + 1 :])
    for given, said in (
        ((x[:, :4].copy(), y, room), r"x: expected shape \(2, 5\), got \(2, 4\)"),
        ((x, y[:1], room), r"y: expected shape \(2, 11\), got \(1, 11\)"),
        ((x, y, None), r"workspace: expected at least \d+ bytes, got 0"),
    ):
        with pytest.raises(ValueError, match=said):
            few.predict(*given, 0)
