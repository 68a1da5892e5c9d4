"""Arrays of others in a device's memory, by DLPack or __cuda_array_interface__: used where they lie; results are CuPy's."""

import cases
import numpy as np
import pytest
from on_device import close, moved

from pymimic import SGD, Predictor, ShallowWeights, Student, ops

SIZE = {"B": 19, "k": 16, "H": 65, "C": 32}


class Interface:
    """Has `__cuda_array_interface__` and nothing else."""

    def __init__(self, array, **changes):
        self.array, self.changes = array, changes

    @property
    def __cuda_array_interface__(self):
        return {**self.array.__cuda_array_interface__, **self.changes}


class DLPack:
    """Speaks DLPack and nothing else; remembers the streams that asked."""

    def __init__(self, array, device=None, objection=None):
        self.array, self.device, self.objection, self.streams = array, device, objection, []

    def __dlpack_device__(self):
        return self.device or self.array.__dlpack_device__()

    def __dlpack__(self, *, stream=None, **keywords):
        self.streams.append(stream)
        if self.objection is not None:
            raise self.objection
        return self.array.__dlpack__(stream=stream, **keywords)


class Both(DLPack):
    """As torch's tensors that require a gradient: the attribute raises what is no AttributeError."""

    @property
    def __cuda_array_interface__(self):
        raise RuntimeError("not of a tensor that requires grad")


KINDS = [Interface, DLPack, Both]


def foreign(kind, arrays):
    return [kind(array) for array in arrays]


@pytest.mark.parametrize("kind", KINDS)
def test_the_ops_take_them(device, kind):
    xp, arrays = device.xp, cases.shallow(SIZE, "float32")
    there = cases.Shallow(*moved(xp, arrays))
    seed = xp.asarray(np.array(5))
    theirs = foreign(kind, there.forward)
    y = ops.shallow_forward(*theirs, dropout=0.5, seed=kind(seed))
    assert type(y) is xp.ndarray
    assert np.array_equal(y.get(), ops.shallow_forward(*there.forward, dropout=0.5, seed=5).get())
    for got, expected in zip(ops.shallow_backward(*foreign(kind, there.backward)), ops.shallow_backward(*there.backward)):
        assert np.array_equal(got.get(), expected.get())
    dropped = ops.dropout(kind(there.z), 0.25, seed=kind(seed))
    assert np.array_equal(dropped.get(), ops.dropout(there.z, 0.25, seed=5).get())
    labels = xp.asarray(np.arange(SIZE["B"]) % SIZE["C"])
    _, dy = ops.cross_entropy(kind(y), kind(labels))
    assert np.array_equal(dy.get(), ops.cross_entropy(y, labels)[1].get())


@pytest.mark.parametrize("kind", KINDS)
def test_memory_is_shared_and_not_copied(device, kind):
    xp, arrays = device.xp, moved(device.xp, cases.shallow(SIZE, "float32").forward)
    if kind is Interface:
        out = xp.zeros((SIZE["B"], SIZE["C"]), np.float32)
        y = ops.shallow_forward(*arrays, out=kind(out))
        assert y.data.ptr == out.data.ptr
        assert np.array_equal(out.get(), ops.shallow_forward(*arrays).get())
    pointers = []
    backend = _Spy(pointers)
    x = xp.zeros((4, 32), np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pymimic.ops.layers.choose", lambda *_: backend)
        ops.dropout(kind(x), 0.5, seed=1)
        assert pointers == [x.data.ptr]
        if kind is Interface:
            out = xp.zeros_like(x)
            ops.dropout(kind(x), 0.5, seed=1, out=kind(out))
            assert pointers[1:] == [x.data.ptr, out.data.ptr]


class _Spy:
    """A backend that notes where its arrays lie."""

    def __init__(self, pointers):
        self.pointers = pointers

    def dropout(self, x, mask, out):
        self.pointers.extend(array.data.ptr for array in (x, out) if array is not None)


def test_dlpack_is_asked_with_cupys_stream(device):
    x = DLPack(device.xp.zeros((4, 32), np.float32))
    ops.dropout(x, 0.5, seed=1)
    assert len(x.streams) == 1
    assert x.streams[0] is not None


@pytest.mark.parametrize("kind", KINDS)
def test_students_handles_and_optimizers_take_them(device, kind):
    xp, arrays = device.xp, cases.shallow(SIZE, "float32")
    dy, z, U, b, W, c = there = cases.Shallow(*moved(xp, arrays))
    ours, theirs = ShallowWeights(U, b, W, c), ShallowWeights(*foreign(kind, there[2:]))
    assert np.array_equal(theirs.forward(kind(z)).get(), ours.forward(z).get())
    assert np.array_equal(theirs.step(kind(dy), kind(z), SGD(0.1)).get(), ours.step(dy, z, SGD(0.1)).get())
    student = Student(SIZE["k"], SIZE["H"], SIZE["C"])
    student.set_arrays(U=kind(U), b=kind(b), W=kind(W), c=kind(c))
    student.to("cuda")
    close(student.predict(kind(z)), ops.shallow_forward(*arrays.forward), "cuda")
    assert np.array_equal(Predictor(student).predict(kind(z)).get(), Predictor(student).predict(z).get())
    if kind is Interface:
        param, expected = xp.asarray(arrays.U), xp.asarray(arrays.U)
        SGD(0.5).update("U", kind(param), kind(U))
        SGD(0.5).update("U", expected, U)
        assert np.array_equal(param.get(), expected.get())


def test_what_cannot_be_shared(device):
    xp = device.xp
    x = xp.zeros((4, 32), np.float32)
    for objection in (BufferError("requires grad"), RuntimeError("requires grad"), TypeError("requires grad")):
        with pytest.raises(TypeError, match=r"^x: expected a device array whose memory CuPy can share, got .+\.DLPack: requires grad"):
            ops.dropout(DLPack(x, objection=objection), 0.5, seed=1)
    arrays = moved(xp, cases.shallow(SIZE, "float32").forward)
    out = xp.zeros((SIZE["B"], SIZE["C"]), np.float32)
    with pytest.raises(ValueError, match=r"^out: expected a writable array, as it is updated in place, got a read-only one"):
        ops.shallow_forward(*arrays, out=Interface(out, data=(out.data.ptr, True)))
    with pytest.raises(ValueError, match=r"^seed: expected an int or a 0-d int64 array, got shape \(4, 32\) of float32"):
        ops.dropout(x, 0.5, seed=Interface(x))
    with pytest.raises(TypeError, match=r"^x: expected dtype float32 on a device, got float64"):
        ops.dropout(DLPack(x.astype(np.float64)), 0.5, seed=1)


def test_on_the_host_others_share_their_memory_too():
    """Without a device in sight; memory of other devices is refused by name."""
    host, out = np.ones((4, 32), np.float32), np.zeros((4, 32), np.float32)
    for value in (DLPack(host), DLPack(host, device=(3, 0)), memoryview(host)):  # 3: pinned memory of the host
        assert np.array_equal(ops.dropout(value, 0.5, seed=1), ops.dropout(host, 0.5, seed=1))
    ops.dropout(host, 0.5, seed=1, out=memoryview(out))
    assert np.array_equal(out, ops.dropout(host, 0.5, seed=1))
    with pytest.raises(TypeError, match=r"^x: expected a NumPy array, got .+\.DLPack$"):
        ops.dropout(DLPack(host, device=(8, 0)), 0.5, seed=1)  # 8: Metal


@pytest.mark.parametrize("kind", [Interface, DLPack])
def test_overlap_is_seen(device, kind):
    """Although their owner's views begin where they begin."""
    xp = device.xp
    memory, y = xp.zeros(100, np.float32), xp.zeros((4, 5), np.float32)
    x = memory[:20].reshape(4, 5)
    out = kind(memory[16:36].reshape(4, 5))
    with pytest.raises(ValueError, match=r"^out: expected memory of its own, got an array that overlaps another argument"):
        ops.dropout(kind(x), 0.5, seed=1, out=out)
    ops.dropout(kind(x), 0.5, seed=1, out=kind(memory[20:40].reshape(4, 5)))
    ops.dropout(kind(y), 0.5, seed=1, out=out)
