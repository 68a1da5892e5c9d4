"""Long k and C on a device: gradients by products, a slab of hidden units at a time, with h made again or kept."""

import itertools

import cases
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ml_dtypes import bfloat16
from on_device import BOUND, close, moved, steps_without_memory

import pymimic
from pymimic import SGD, AdamW, ShallowWeights, Student, Trainer, TransferSet, ops
from pymimic.backends.interface import ACTIVATIONS
from pymimic.errors import CudaError

TRAINING = [name for name in BOUND if name != "cuda-fp16"]
LONG_K, LONG_C = {"B": 21, "k": 300, "H": 333, "C": 9}, {"B": 5, "k": 20, "H": 200, "C": 270}
NO_K = {"B": 5, "k": 0, "H": 200, "C": 270}
HOW = {"dropout": 0.5, "seed": 2**63 + 3, "offset": 7, "origin": (16, 64)}
KINDS = {"float32": ("keep", np.float32), "bfloat16": ("keep", np.uint16), "float32 in bfloat16": ("keep-bf16", np.uint16)}


@pytest.fixture
def slabs(device, monkeypatch):
    """The module, with slabs of 128 units, for k and C from 257 on."""
    from pymimic.backends.cuda import by_cublas

    monkeypatch.setattr(by_cublas, "LONG", dict.fromkeys(by_cublas.LONG, 256))
    monkeypatch.setattr(by_cublas, "_LEAST", 128)
    monkeypatch.setattr(by_cublas, "_VALUES", 1)
    return by_cublas


def given_arrays(xp, size, dtype="float32", seed=0, exact=False):
    """`exact`: no sum is rounded, so that no unit of relu is active here and not there."""
    arrays = cases.exact_shallow(size, "float32", 2, seed) if exact else cases.shallow(size, "float32", seed)
    if dtype == "bfloat16":
        arrays = cases.Shallow(*(a if a.ndim == 1 else a.astype(bfloat16) for a in arrays))
    return arrays, cases.Shallow(*moved(xp, arrays))


def all_close(grads, expected, backend):
    for gradient, wanted in zip(grads, expected):
        close(gradient, wanted, backend)


def same_bits(some, others):
    return all(np.array_equal(one.get(), other.get()) for one, other in zip(some, others))


@pytest.mark.parametrize("backend", TRAINING)
@pytest.mark.parametrize("size", [LONG_K, LONG_C, NO_K])
def test_gradients(device, slabs, size, backend):
    arrays, there = given_arrays(device.xp, size)
    expected = ops.shallow_backward(*arrays.wide.backward, activation="gelu", **HOW, backend="reference")
    grads = ops.shallow_backward(*there.backward, activation="gelu", **HOW, backend=backend)
    all_close(grads, expected, backend)
    assert same_bits(ops.shallow_backward(*there.backward, activation="gelu", **HOW, backend=backend), grads)
    for name in grads._fields:
        only = ops.shallow_backward(*there.backward, activation="gelu", **HOW, needs=(name,), backend=backend)
        assert [field for field in only._fields if getattr(only, field) is not None] == [name]
        assert same_bits([getattr(only, name)], [getattr(grads, name)])


@given(
    B=st.sampled_from((5, 16, 33, 64)), k=st.sampled_from((257, 272, 300)), H=st.integers(16, 600), C=st.sampled_from((9, 16)),
    activation=st.sampled_from(ACTIVATIONS), mask=cases.masks((0.0, 0.5)), keeps=st.sampled_from([False, *KINDS]), seed=st.integers(0, 99),
)  # fmt: skip
@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_shape(device, slabs, B, k, H, C, activation, mask, keeps, seed):
    """Against the reference, which keeps the same."""
    size, dtype = {"B": B, "k": k, "H": H, "C": C}, "bfloat16" if keeps == "bfloat16" else "float32"
    arrays, there = given_arrays(device.xp, size, dtype, seed, activation in ("relu", "identity"))
    how, backend, kept = {"activation": activation, **mask}, "cuda" if keeps in (False, "float32") else "cuda-bf16", [{}, {}]
    if keeps:
        h, kind = KINDS[keeps]
        plan = pymimic.plan(B, k, k, H, C, dtype, h=h)
        y, saved = ops.shallow_forward(*there.forward, **how, save=True, plan=plan)
        expected, wanted = ops.shallow_forward(*arrays.forward, **how, save=True, plan=plan, backend="reference")
        assert saved.array.dtype == kind
        close(y, expected, backend)
        kept = [{"saved": saved}, {"saved": wanted}]
    grads = ops.shallow_backward(*there.backward, **how, **kept[0])
    all_close(grads, ops.shallow_backward(*arrays.backward, **how, **kept[1], backend="reference"), backend)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_relu_keeps_what_it_would_make_again(device, slabs, dtype):
    _, there = given_arrays(device.xp, LONG_K, dtype)
    y, saved = ops.shallow_forward(*there.forward, **HOW, save=True)
    assert saved.array.shape == (3, 21, 128)
    assert same_bits(ops.shallow_backward(*there.backward, **HOW, saved=saved), ops.shallow_backward(*there.backward, **HOW))
    memory = saved.array
    again, saved = ops.shallow_forward(*there.forward, **HOW, save=saved)
    assert saved.array is memory
    assert same_bits([again], [y])


@pytest.mark.parametrize("size", [LONG_K | {"B": 0}, LONG_K | {"H": 0}])
def test_nothing(device, slabs, size):
    arrays, there = given_arrays(device.xp, size)
    y, saved = ops.shallow_forward(*there.forward, save=True)
    assert saved.array.size == 0
    close(y, np.broadcast_to(arrays.c, (size["B"], 9)), "cuda")
    expected = ops.shallow_backward(*arrays.wide.backward, backend="reference")
    all_close(ops.shallow_backward(*there.backward, saved=saved), expected, "cuda")


def test_slabs_hold_what_fits(device):
    """A slab's size is the shape's alone, a multiple of tiles of the mask, no slab is empty, and neither h nor gradients grow with H."""
    from pymimic.backends.cuda import by_cublas

    for B, H, k in itertools.product((1, 21, 1000, 8192, 100_000), (1, 127, 1024, 1025, 8000, 30_000, 400_000), (300, 2048)):
        problem = by_cublas.Problem(0, 68, 0, None, np.empty((B, 0)), np.empty((0, k)), np.empty(H), np.empty((0, 10)))
        units, found = problem.slab_units(), [slab for _, slab in problem.slabs()]
        assert units % 128 == 0
        assert units <= max(256, (8 << 20) // max(B, k + 10)) + 127
        assert [slab.start for slab in found] == [slab.stop for slab in [slice(0), *found[:-1]]]
        assert found[-1].stop == H
        assert problem.saved_shape() == (len(found), B, units)


def test_h_is_kept_only_where_that_is_for(device):
    for backend, most in (("cuda", 512), ("cuda-tf32", 256), ("cuda-bf16", 256)):
        _, short = given_arrays(device.xp, {"B": 2, "k": most, "H": 9, "C": 5})
        with pytest.raises(ValueError, match=f"save: expected False with backend '{backend}', which at k = {most} and C = 5 makes h again"):
            ops.shallow_forward(*short.forward, save=True, backend=backend)
        assert not ShallowWeights(*short[2:], backend=backend).keeps(1)
        _, long = given_arrays(device.xp, {"B": 2, "k": most + 1, "H": 9, "C": 5})
        ops.shallow_forward(*long.forward, save=True, backend=backend)
    with pytest.raises(ValueError, match=r"save: expected False with backend 'cuda-fp16'"):
        ops.shallow_forward(*long.forward, save=True, backend="cuda-fp16")
    _, long = given_arrays(device.xp, LONG_K | {"k": 513})
    handle = ShallowWeights(*long[2:], memory_budget=4 * 32 * 333)
    assert handle.keeps(32)
    assert not handle.keeps(33)
    assert handle.plan(21).h == "keep"


@pytest.mark.parametrize(("dtype", "keep"), [("float32", "float32"), ("float32", "bfloat16"), ("bfloat16", "float32")])
@pytest.mark.parametrize("optimizer", [lambda: SGD(0.01, momentum=0.9), lambda: AdamW(0.01, weight_decay=0.1)])
def test_steps_of_a_handle(device, slabs, optimizer, dtype, keep):
    arrays, there = given_arrays(device.xp, LONG_K)
    ours, theirs = (
        ShallowWeights(*some[2:], dtype, activation="tanh", keep=keep, backend=name)
        for some, name in ((there, None), (arrays, "reference"))
    )
    rules, bound = (optimizer(), optimizer()), "cuda" if dtype == keep else "cuda-bf16"
    for step in range(3):
        how = {"dropout": 0.25, "seed": 4, "offset": step}
        (y, saved), (expected, kept) = (
            handle.forward(some.z, **how, save=True) for handle, some in ((ours, there), (theirs, arrays))
        )  # fmt: skip
        close(y, expected, bound)
        dz = ours.step(there.dy, there.z, rules[0], **how, saved=saved)
        close(dz, theirs.step(arrays.dy, arrays.z, rules[1], **how, saved=kept), bound)
    for name, array in ours.arrays().items():
        close(array, theirs.arrays()[name], "cuda-bf16" if isinstance(rules[0], AdamW) else bound)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_step_is_gradients_and_updates(device, slabs, dtype):
    """The same bits, and what is packed follows."""
    _, there = given_arrays(device.xp, LONG_K)
    one, other = (ShallowWeights(*there[2:], dtype, activation="tanh") for _ in range(2))
    rules = AdamW(0.01), AdamW(0.01)
    for _ in range(2):
        grads = other.backward(there.dy, there.z)
        dz = one.step(there.dy, there.z, rules[0])
        assert same_bits([dz], [grads.z])
        rules[1].advance()
        for name, array in other.arrays(copy=False).items():
            rules[1].update(name, array, getattr(grads, name))
        other.changed()
        assert same_bits(one.arrays().values(), other.arrays().values())
        assert same_bits([one.forward(there.z)], [other.forward(there.z)])
    assert one.step(there.dy, there.z, rules[0], need_dz=False) is None


def test_a_step_without_memory_changes_nothing(device, slabs, monkeypatch):
    allowed, _ = steps_without_memory(device, monkeypatch, LONG_K)
    assert allowed > 5


@pytest.mark.parametrize("failing", range(5))
def test_a_step_that_cublas_refuses_changes_nothing(device, slabs, monkeypatch, failing):
    """Any product before the first update."""
    if not device.emulated:
        pytest.skip("cuBLAS does not refuse here")
    _, there = given_arrays(device.xp, LONG_K)
    handle, optimizer = ShallowWeights(*there[2:]), AdamW(0.1)
    handle.step(there.dy, there.z, optimizer)
    before, steps, calls, real = handle.arrays(), optimizer.steps, itertools.count(), device.core.multiply

    def refusing(handle, *rest):
        return real(0 if next(calls) == failing else handle, *rest)

    monkeypatch.setattr(device.core, "multiply", refusing, raising=False)
    with pytest.raises(CudaError, match=r"cuBLAS: .*: free device memory"):
        handle.step(there.dy, there.z, optimizer)
    assert same_bits(handle.arrays().values(), before.values())
    assert optimizer.steps == steps


def test_sizes_that_cublas_cannot_take(device):
    with pytest.raises(ValueError, match=r"multiply: expected sizes in \[1, 2\^31\), got 2147483648"):
        device.core.multiply(1, (2**31, 1, 1), (False, False), (0, 1), (0, 1), (0, 1), False, False, 68, 0)


@pytest.mark.parametrize("rank", [None, 260])
def test_students_learn_as_on_the_cpu(device, slabs, rank):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((96, 270)).astype(np.float32)
    cases_ = TransferSet(x, np.tanh(x[:, :4]))
    students = [Student(270, 200, 4, rank=rank, seed=1) for _ in range(2)]
    for student, where in zip(students, ("cpu", "cuda")):
        Trainer(student, AdamW(1e-3), epochs=3, batch_size=32, seed=2, device=where, progress=False).fit(cases_)
    on_cpu, other = students
    close(device.xp.asarray(other.predict(x)), on_cpu.predict(x), "cuda-tf32")
